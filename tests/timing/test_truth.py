"""The truth of world:market about when users come back: plain Python, and what then happens."""

import numpy as np
import pytest

from nextbuy.data.encoding import encode
from nextbuy.data.worlds import MarketConfig, MarketWorld, UniformWorld
from nextbuy.data.worlds.market_parameters import DAY_US, START_US
from nextbuy.timing.scores import score
from nextbuy.timing.truth import true_outlook
from nextbuy.timing.waits import waits_after
from tests.data import market_twin as twin

CUT = START_US + 640 * DAY_US


@pytest.fixture(scope="module")
def market():
    world = MarketWorld(MarketConfig(num_users=1_500), seed=4)
    return world, encode(world.purchases())


def in_the_worlds_numbers(world, encoded):
    """A history as the twin wants it: [(day, the world's number of the item), ...]."""
    number = {item: place for place, item in enumerate(world.parameters.items["item_id"])}
    of_index = [number.get(item, -1) for item in encoded.catalog.table["item_id"]]

    def history(user):
        one = encoded.histories.take(np.array([user])).before(np.array([CUT]))
        days = (one.times - START_US) / DAY_US
        return [(d, of_index[i - 1]) for d, i in zip(days, one.items, strict=True)]

    return history


def test_the_probability_to_come_back_is_that_of_plain_python(market):
    world, encoded = market
    outlook = true_outlook(world.gap_laws(encoded.histories, encoded.catalog, CUT))
    history_of = in_the_worlds_numbers(world, encoded)
    laws, asked = world.parameters, [1.0, 7.0, 30.0]
    for user in (0, 3, 8, 40, 77):
        history = history_of(user)
        elapsed = 640 - history[-1][0]
        gaps = [twin.gap_law(laws, z) for z in range(len(laws.prior))]
        belief = twin.posterior(laws, history)
        open_now = [
            b * (1 - g.cdf(np.log(elapsed))) for b, g in zip(belief, gaps, strict=True)
        ]  # fmt: skip
        for days in asked:
            still = sum(
                b * (1 - g.cdf(np.log(elapsed + days))) for b, g in zip(belief, gaps, strict=True)
            )
            expected = 1 - still / sum(open_now)
            assert outlook.probability_within(days)[user, 0] == pytest.approx(expected, rel=1e-5)


def test_the_density_and_the_quantiles_are_those_of_the_survival(market):
    world, encoded = market
    outlook = true_outlook(world.gap_laws(encoded.histories, encoded.catalog, CUT))
    some = outlook.take(np.array([5, 2, 5]))
    edges = np.linspace(3.0, 20.0, 2_001)
    lost = some.survival([3.0]) - some.survival([20.0])
    area = np.trapezoid(np.exp(some.log_density(edges)), edges, axis=1)
    assert area == pytest.approx(lost[:, 0], rel=1e-5)
    median = some.days_to_next([0.5])
    assert some.probability_within(median)[:, 0] == pytest.approx([0.5] * 3)


def test_what_the_truth_says_comes_true_and_what_it_expects_is_bought(market):
    world, encoded = market
    histories = encoded.histories
    outlook = true_outlook(world.gap_laws(histories, encoded.catalog, CUT))
    waits = waits_after(histories, CUT, world.end)
    found = score(outlook, waits, 90.0, [7, 30])
    assert found.pit == pytest.approx(np.full(10, 0.1), abs=0.03)  # 4 standard errors
    assert found.values["ece_7d"] < 0.05
    later = (histories.times >= CUT) & (histories.times < CUT + 30 * DAY_US)
    assert np.nansum(outlook.expected_purchases([30.0])) == pytest.approx(later.sum(), rel=0.03)


def test_the_future_is_not_looked_at_and_who_never_bought_is_unknown(market):
    world, encoded = market
    early = START_US + 100 * DAY_US
    moments = np.full(len(encoded.histories), early)
    cut = encoded.histories.before(moments)
    whole, seen = (
        world.gap_laws(histories, encoded.catalog, early) for histories in (encoded.histories, cut)
    )
    assert (whole.weights == seen.weights).all()
    never = cut.lengths == 0
    assert never.any()
    assert (np.isnan(whole.elapsed_days) == never).all()
    assert np.isnan(true_outlook(whole).survival([5.0])[never]).all()


def test_a_world_without_time_has_no_such_truth():
    world = UniformWorld()
    encoded = encode(world.purchases())
    assert world.gap_laws(encoded.histories, encoded.catalog, CUT) is None
