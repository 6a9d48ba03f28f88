"""P(buy within D days) beside simulation, limits and plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy.audience.calibration import Calibration, Views, log_hazard
from nextbuy.audience.chances import basket_sizes, buying_chances, day_chances
from nextbuy.audience.own_shares import TargetPurchases, population_share, shrunk
from nextbuy.data.histories import DAY, Histories

NOW = 100 * DAY
probabilities = st.floats(0.0, 1.0)


def one(function, *values):
    return float(function(*(np.array([float(v)]) for v in values))[0])


@pytest.mark.parametrize(
    ("within", "expected", "next_chance", "size"),
    [(0.6, 1.5, 0.2, 1), (0.9, 4.0, 0.05, 6), (0.3, 0.3, 0.5, 2), (1.0, 1.0, 0.1, 3)],
)
def test_the_closed_form_is_what_simulated_customers_do(within, expected, next_chance, size):
    """Draw the days, then each item of each day."""
    rng = np.random.default_rng(5)
    n = 200_000
    buys = rng.random(n) < within
    days = np.where(buys, rng.geometric(within / expected, n), 0)
    assert days.mean() == pytest.approx(expected, rel=0.02)
    target_items = rng.binomial(days * size, next_chance)
    told = one(buying_chances, within, expected, one(day_chances, next_chance, size))
    assert told == pytest.approx((target_items > 0).mean(), abs=0.004)


def test_a_single_day_of_a_single_item_is_a_product():
    assert one(buying_chances, 0.4, 0.4, one(day_chances, 0.25, 1)) == pytest.approx(0.1)


def test_by_hand_with_two_days_expected():
    """w = 1/2, m = 1, so half stop after each day: r = 1/2 gives (1/4) / (1/2 + 1/4) = 1/3."""
    assert one(buying_chances, 0.5, 1.0, 0.5) == pytest.approx(1 / 3)


@given(probabilities, st.floats(1.0, 50.0), probabilities)
def test_nobody_buys_a_thing_more_surely_than_anything(within, more, day):
    told = one(buying_chances, within, within * more, day)
    assert 0.0 <= told <= within + 1e-12
    assert told >= within * day - 1e-12  # more days only help


@given(probabilities, st.floats(1.0, 20.0), probabilities, probabilities)
def test_a_likelier_target_is_bought_more_surely(within, more, one_day, other_day):
    low, high = sorted([one_day, other_day])
    assert one(buying_chances, within, within * more, low) <= one(
        buying_chances, within, within * more, high
    ) + 1e-12  # fmt: skip


def test_who_never_bought_has_no_chance_told():
    assert np.isnan(one(buying_chances, np.nan, np.nan, 0.5))


def test_basket_sizes_are_shrunk_to_the_mean_over_all():
    """u0: 4 rows on 2 days; u1: 2 rows on 1 day, of which one after the moment does not count."""
    histories = Histories.from_lists(
        [[1, 2, 1, 2], [1, 2]],
        times=[[0, 0, 2 * DAY, 2 * DAY], [0, 200 * DAY]],
        baskets=[[0, 0, 1, 1], [0, 1]],
    )
    mean = 5 / 3
    expected = [(4 + 5 * mean) / (2 + 5), (1 + 5 * mean) / (1 + 5)]
    assert basket_sizes(histories, NOW) == pytest.approx(expected)


def plain_shares(times, days, half_life, first):
    """Windows one by one, the newest first."""
    bought = total = 0.0
    age = 0.0
    while age < NOW / DAY - first:
        weight = 0.5 ** (age / half_life)
        total += weight
        bought += weight * any(age < (NOW / DAY - t) <= age + days for t in times)
        age += days
    return bought, total


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=8, unique=True),
    st.sampled_from([1, 7, 14, 30, 200]),
    st.sampled_from([10.0, 60.0]),
)
def test_windows_counted_one_by_one_give_the_same_share(times, days, half_life):
    times = sorted(times)
    items = [1 + place % 2 for place in range(len(times))]
    histories = Histories.from_lists([items], times=[[t * DAY for t in times]])
    found = TargetPurchases.of(histories, NOW, np.array([False, True, False]))
    bought, total = found.shares(days, half_life)
    mine = [t for t, item in zip(times, items, strict=True) if item == 1]
    assert (bought[0], total[0]) == pytest.approx(plain_shares(mine, days, half_life, times[0]))


def test_what_comes_after_the_moment_is_not_seen():
    histories = Histories.from_lists([[1, 1], [1]], times=[[90 * DAY, NOW], [NOW + DAY]])
    found = TargetPurchases.of(histories, NOW, np.array([False, True]))
    assert found.ages.tolist() == [10.0]
    assert found.known_for.tolist() == [10.0, 0.0]


def test_a_user_without_windows_has_the_share_of_all():
    bought, windows = np.array([1.0, 0.0]), np.array([4.0, 0.0])
    share = population_share(bought, windows)
    assert share == 1 / 4
    assert shrunk(bought, windows, share).tolist() == [(1 + 4 / 4) / (4 + 4), 1 / 4]
    assert population_share(np.zeros(2), np.zeros(2)) == 0.0


def views_of(formula, own, days=14.0):
    n = len(formula)
    return Views(
        formula=np.asarray(formula, dtype=np.float64),
        own=np.asarray(own, dtype=np.float64),
        population=np.full(n, 0.2),
        days=np.full(n, days),
    )


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 0.99)), min_size=1, max_size=5))
def test_where_nothing_was_learnt_the_formula_is_the_answer(formula):
    told = Calibration().probabilities(views_of(formula, [0.3] * len(formula)))
    assert told == pytest.approx(formula, rel=1e-6, abs=1e-9)


def test_what_is_said_comes_true_once_it_was_learnt():
    """The formula says half of the true hazard, and nothing of half of what users differ in."""
    rng = np.random.default_rng(3)
    n = 40_000
    formula, own = rng.uniform(0.02, 0.4, n), rng.uniform(0.02, 0.6, n)
    truth = -np.expm1(-np.exp(0.7 + 0.6 * log_hazard(formula) + 0.4 * log_hazard(own)))
    bought = rng.random(n) < truth
    seen = views_of(formula, own)
    noise = views_of(formula, rng.uniform(0.02, 0.6, n))
    found = Calibration.learnt({30.0: noise, 120.0: seen}, bought, (14,))
    assert found.half_life == 120.0
    assert found.weights[1] == pytest.approx(0.6, abs=0.06)
    assert found.weights[2] == pytest.approx(0.4, abs=0.06)
    assert np.abs(found.probabilities(seen) - truth).max() < 0.03


def test_a_handful_of_cases_teaches_little():
    formula = [0.1, 0.2, 0.3]
    found = Calibration.learnt({60.0: views_of(formula, formula)}, np.array([True] * 3), (14,))
    told = found.probabilities(views_of(formula, formula))
    assert (told > formula).all() and (told < 0.95).all()


def test_a_chance_that_is_not_known_stays_unknown():
    assert np.isnan(Calibration().probabilities(views_of([np.nan], [0.3])))[0]
