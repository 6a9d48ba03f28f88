"""The neural timing model: what it learns that counting gaps cannot, and what it refuses."""

import time
from functools import cache

import numpy as np
import pytest
import torch

from nextbuy import storage
from nextbuy.errors import BundleError, EmptyDataError, TimeIsUpError
from nextbuy.nn.log_normal_mixture import LogNormalMixture
from nextbuy.timing.neural import WEIGHTS, NeuralTiming, NeuralTimingConfig
from nextbuy.timing.neural_outlook import NeuralOutlook
from nextbuy.timing.protocol import log_likelihood
from nextbuy.timing.renewal import Renewal
from nextbuy.timing.waits import waits_after
from tests.timing.purchases import bought_on, moment


def small(**change):
    values = {"epochs": 12, "hidden": 12, "components": 3, "fewest_gaps": 1} | change
    return NeuralTiming(NeuralTimingConfig(**values))


def stocking_up(num_users=100, seed=1):
    """A basket of one thing lasts for about 4 days, one of six for about 25."""
    rng = np.random.default_rng(seed)
    logs = []
    for _ in range(num_users):
        day, own = rng.uniform(0, 10), []
        while day < 160:
            large = rng.random() < 0.5
            own += [day] * (6 if large else 1)
            day += 1 + rng.lognormal(np.log(24.0 if large else 3.0), 0.2)
        logs.append(own)
    return bought_on(*logs)


@cache
def fitted():
    return small().fit(stocking_up(), moment(120))


def test_a_large_basket_foretells_a_long_wait_which_renewal_cannot_know():
    log, now = stocking_up(), moment(120)
    waits = waits_after(log, now, moment(160))
    neural, renewal = (
        log_likelihood(model.outlook(log, now), waits.days, waits.observed).mean()
        for model in (fitted(), Renewal().fit(log, now))
    )
    assert neural > renewal + 0.3
    asked = bought_on([100.5, 110.5], [100.5, *[110.5] * 6])
    after_small, after_large = fitted().outlook(asked, moment(111)).days_to_next([0.5])[:, 0]
    assert after_small < 7
    assert after_large > 15


def test_silence_tells_who_has_left_since_open_waits_count():
    """Every 5 days or so; after each purchase 3 of 10 leave."""
    rng = np.random.default_rng(2)
    logs = []
    for _ in range(200):
        own = [rng.uniform(0, 60)]
        while rng.random() < 0.7 and own[-1] < 100:
            own.append(own[-1] + 1 + rng.gamma(4.0, 1.0))
        logs.append([day for day in own if day < 100])
    model = small().fit(bought_on(*logs), moment(100))
    outlook = model.outlook(bought_on([50, 55], [50, 55]), np.array([moment(55.1), moment(95)]))
    lately, silent = outlook.p_active()
    assert lately == pytest.approx(0.7, abs=0.1) and silent < 0.1


def test_whole_days_are_not_learnt_as_moments():
    """Every 7 days to the day: the wait ends within a day, whose density is about 1."""
    log = bought_on(*[np.arange(k % 7, 140, 7.0).tolist() for k in range(60)])
    outlook = small().fit(log, moment(140)).outlook(bought_on([0, 7, 14]), moment(20))
    assert np.exp(outlook.log_density(np.arange(0, 3, 0.01))).max() < 3


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    log = stocking_up(40)
    stored = []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        small(epochs=2, seed=seed).fit(log, moment(120)).save(folder)
        stored.append((folder / WEIGHTS).read_bytes())
    assert stored[0] == stored[1] != stored[2]


def test_expected_purchases_of_one_who_is_long_gone_are_those_beside_him():
    """Beyond what a probability of 64 bits can be, logarithms go on where it ends."""
    said = torch.tensor([[-2000.0, 0.4, -0.2, -0.8, 0.9, -0.5, -0.9]], dtype=torch.float64)
    mixture = LogNormalMixture.of(said.repeat(3, 1))
    elapsed = torch.tensor([[5.0e4], [5.6e4], [6.0e4]], dtype=torch.float64)
    outlook = NeuralOutlook(mixture, elapsed, (2.0, 0.5))
    assert outlook._log_seen[1, 0] < -400 < outlook._log_seen[0, 0]
    found = outlook.expected_purchases([100.0])[:, 0]
    alone = outlook.take(np.array([1])).expected_purchases([100.0])[0, 0]
    assert found[1] == pytest.approx(alone, rel=1e-12)
    assert found[0] > found[1] > found[2] > 0.8 * found[0]


def test_expected_purchases_are_those_of_simulation():
    said = torch.tensor([[-1.5, 0.4, -0.2, -0.8, 0.9, -0.5, -0.9]], dtype=torch.float64)
    mean, spread, elapsed, horizon = 2.0, 0.8, 6.0, 60.0
    outlook = NeuralOutlook(
        LogNormalMixture.of(said), torch.full((1, 1), elapsed, dtype=torch.float64), (mean, spread)
    )
    rng, runs = np.random.default_rng(3), 60_000
    never = 1 / (1 + np.exp(1.5))
    share = 1 / (1 + np.exp(-0.2 - 0.4))

    def draw(n):
        first = rng.random(n) < share
        y = np.where(first, -0.8, 0.9) + rng.normal(size=n) * np.where(
            first, np.exp(-0.5) + 0.05, np.exp(-0.9) + 0.05
        )
        return np.where(rng.random(n) < never, np.inf, np.exp(mean + spread * y))

    at = draw(4 * runs)
    at = at[at > elapsed][:runs] - elapsed
    counts = np.zeros((len(at), 2))
    while (at < horizon).any():
        counts += np.stack([at < horizon / 3, at < horizon], axis=1)
        at = at + draw(len(at))
    seen = outlook.expected_purchases([horizon / 3, horizon])[0]
    errors = counts.std(axis=0) / np.sqrt(len(counts))
    assert np.abs(seen - counts.mean(axis=0)).max() < (4 * errors + 0.01).max()


def test_a_season_that_was_seen_once_tells_nothing():
    """The same histories a month later in the year; weekdays stay."""
    now, later = [np.array([0.0, 5.0, 30.0]) + shift for shift in (0.0, 28.0)]
    outlooks = [
        fitted().outlook(bought_on(days), moment(days[-1] + 2)).survival([3.0, 20.0])
        for days in (now, later)
    ]
    assert (outlooks[0] == outlooks[1]).all()


def test_long_histories_are_read_from_their_newest_events():
    log = stocking_up(30)
    model = small(epochs=1, longest=4).fit(log, moment(120))
    whole = model.outlook(log, moment(120)).survival([5.0])
    assert np.isfinite(whole).all()
    other = small(epochs=1).fit(log, moment(120)).outlook(log, moment(120)).survival([5.0])
    assert not np.allclose(whole, other)


def test_it_learns_from_so_many_events_at_most():
    few = small(epochs=1, most_events=200).fit(stocking_up(), moment(120))
    whole = small(epochs=1).fit(stocking_up(), moment(120))
    assert few.parameters.scales != whole.parameters.scales


def test_too_few_gaps_are_refused_and_so_is_a_deadline_that_has_passed():
    log = bought_on([0, 3, 9], [1, 4])
    with pytest.raises(EmptyDataError, match=r"2 users have 3 gaps .* from 1000 at least"):
        NeuralTiming().fit(log, moment(20))
    with pytest.raises(TimeIsUpError, match="no time"):
        small().fit(stocking_up(20), moment(120), deadline=time.monotonic())


def test_damaged_weights_are_refused(tmp_path):
    fitted().save(tmp_path)
    arrays = storage.read_arrays(tmp_path / WEIGHTS)
    broken = arrays | {"outer.bias": np.full_like(arrays["outer.bias"], np.nan)}
    for damaged, why in ((broken, "not finite"), ({"outer.bias": arrays["outer.bias"]}, "holds")):
        storage.write_arrays(tmp_path / WEIGHTS, damaged)
        with pytest.raises(BundleError, match=why):
            NeuralTiming.load(tmp_path)
