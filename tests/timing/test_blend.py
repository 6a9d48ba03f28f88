"""The blend of timing models: weights, and what they are good for."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from nextbuy.errors import BundleError, ConfigError, EmptyDataError
from nextbuy.timing.bg_nbd import BgNbd
from nextbuy.timing.blend import TimingBlend, mixture_weights
from nextbuy.timing.mbg_nbd import MbgNbd
from nextbuy.timing.protocol import log_likelihood
from nextbuy.timing.renewal import Renewal, RenewalConfig
from nextbuy.timing.waits import waits_after
from tests.timing.purchases import bought_on, moment


def mean_log(logs, weights):
    return np.log(weights @ np.exp(logs)).mean()


def test_weights_are_those_of_highest_likelihood():
    logs = np.log([[0.9, 0.2, 0.5, 0.1], [0.3, 0.6, 0.2, 0.4]])
    best = optimize.minimize_scalar(
        lambda w: -mean_log(logs, np.array([w, 1 - w])), bounds=(0, 1), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    assert mixture_weights(logs) == pytest.approx([best.x, 1 - best.x], abs=1e-3)


@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 99))
def test_the_mixture_is_never_worse_than_its_best_member(members, users, seed):
    rng = np.random.default_rng(seed)
    logs = rng.normal(size=(members, users)) * rng.choice([0.01, 1, 30]) + rng.normal(
        size=(members, 1)
    )
    weights = mixture_weights(logs)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    with np.errstate(divide="ignore"):
        reached = np.logaddexp.reduce(logs + np.log(weights)[:, None], axis=0).mean()
    assert reached >= logs.mean(axis=1).max() - 1e-12


def test_a_member_that_denies_what_happened_alone_gets_no_say():
    assert mixture_weights(np.array([[0.0, -np.inf], [-1.0, -1.0]]))[1] > 0.4
    with pytest.raises(ConfigError, match="1 of 2 waits are impossible"):
        mixture_weights(np.array([[0.0, -np.inf]]))


def regulars_and_others():
    """Half of the users buy every 12 days, the others at random."""
    rng = np.random.default_rng(0)
    regular = [(rng.uniform(0, 12) + 12.0 * np.arange(12)).tolist() for _ in range(40)]
    others = [
        [0.5, *np.sort(rng.uniform(1, 140, rng.integers(1, 8) + 1)).tolist()] for _ in range(40)
    ]
    return bought_on(*regular, *others)


def test_weights_are_chosen_on_what_came_after(tmp_path):
    log, now = regulars_and_others(), moment(90)
    waits = waits_after(log, now, moment(130))
    blend = TimingBlend(
        {"bg": BgNbd(), "mbg": MbgNbd(), "regular": Renewal(),
         "all-alike": Renewal(RenewalConfig(personal=False))}
    ).fit(log, now).weigh(log, now, waits)  # fmt: skip
    assert sum(blend.weights.values()) == pytest.approx(1)
    assert blend.weights["regular"] > 0.5
    mixed = log_likelihood(blend.outlook(log, now), waits.days, waits.observed).mean()
    for model in blend.members.values():
        alone = log_likelihood(model.outlook(log, now), waits.days, waits.observed).mean()
        assert mixed >= alone - 1e-9
    blend.save(tmp_path)
    loaded = TimingBlend.load(tmp_path)
    assert loaded.weights == blend.weights
    days = [1.0, 40.0]
    expected = blend.outlook(log, now).expected_purchases(days)
    assert (loaded.outlook(log, now).expected_purchases(days) == expected).all()


def test_the_outlook_is_the_weighted_mean():
    log, now = regulars_and_others(), moment(90)
    members = {"one": BgNbd().fit(log, now), "two": Renewal().fit(log, now)}
    blend = TimingBlend(members)
    blend.weights = {"one": 0.25, "two": 0.75}
    one, two = (m.outlook(log, now) for m in members.values())
    seen = blend.outlook(log, now)
    days = np.array([2.0, 20.0])
    for ask in (
        lambda o: o.survival(days),
        lambda o: np.exp(o.log_density(days)),
        lambda o: o.expected_purchases(days),
        lambda o: o.p_active(),
    ):
        assert ask(seen) == pytest.approx(0.25 * ask(one) + 0.75 * ask(two), rel=1e-12)


def test_what_cannot_be_blended_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no models"):
        TimingBlend({})
    log = bought_on([5], [6])
    with pytest.raises(EmptyDataError, match="None of 2 users"):
        TimingBlend({"a": BgNbd()}).weigh(log, moment(1), waits_after(log, moment(1), moment(9)))
    fitted = regulars_and_others()
    blend = TimingBlend({"a": BgNbd().fit(fitted, moment(90))})
    blend.weights = {"a": 1.0}
    blend.save(tmp_path)
    stored = json.loads((tmp_path / "timing.json").read_text())
    for change in ({"weight": 0.5}, {"model": "os.system"}, {"weight": 2.0}):
        member = stored["blend"]["members"]["a"] | change
        changed = stored | {"blend": {"members": {"a": member}}}
        (tmp_path / "timing.json").write_text(json.dumps(changed))
        with pytest.raises(BundleError):
            TimingBlend.load(tmp_path)
