"""Scores of outlooks: by hand, and that the truth has the best of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from nextbuy.timing.scores import in_words, pit_histogram, score
from nextbuy.timing.waits import Waits
from tests.timing.poisson import PoissonOutlook


def waits_of(days, observed):
    return Waits(days=np.array(days, dtype=np.float64), observed=np.array(observed))


def test_every_score_of_three_customers_by_hand():
    """A purchase a day is said; one came after 1 day, one after half a day, one not in 2 days."""
    outlook = PoissonOutlook([1.0, 1.0, 1.0, 1.0])
    waits = waits_of([1.0, 0.5, 2.0, math.nan], [True, True, False, False])
    found = score(outlook, waits, 2.0, [1, 7])
    values = found.values
    assert found.log_likelihood == pytest.approx([-1.0, -0.5, -2.0])
    assert values["log_likelihood"] == pytest.approx(-3.5 / 3)
    assert values["log_likelihood_per_event"] == pytest.approx(-3.5 / 2)

    low, middle = -math.log(0.9), math.log(2)  # the 90 % quantile, ln 10, is beyond the period
    p10 = 0.1 * ((1 - low) + (0.5 - low) + (2 - low)) / 3
    p50 = 0.5 * ((1 - middle) + (middle - 0.5) + (2 - middle)) / 3
    p90 = 0.1 * ((2 - 1) + (2 - 0.5) + 0) / 3
    assert values["quantile_loss_p10"] == pytest.approx(p10)
    assert values["quantile_loss_p50"] == pytest.approx(p50)
    assert values["quantile_loss_p90"] == pytest.approx(p90)
    assert values["quantile_loss"] == pytest.approx((p10 + p50 + p90) / 3)

    said = 1 - math.exp(-1)
    assert values["bought_1d"] == pytest.approx(2 / 3)
    assert values["p_buy_1d"] == pytest.approx(said)
    assert values["brier_1d"] == pytest.approx((2 * (1 - said) ** 2 + said**2) / 3)
    assert values["ece_1d"] == pytest.approx(2 / 3 - said)
    assert "brier_7d" not in values and list(found.reliability) == [1]
    assert found.reliability[1].counts.sum() == 3


def test_a_wait_that_goes_on_is_spread_over_what_is_left_of_the_distribution():
    """F = .25: a third of the second tenth... .05 of .75 lies in the bin from .2 to .3."""
    found = pit_histogram(np.array([0.05, 0.95, 0.25]), np.array([True, True, False]))
    expected = np.array([1, 0, 0.05 / 0.75, *[0.1 / 0.75] * 7])
    expected[9] += 1
    assert found == pytest.approx(expected / 3)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=20))
def test_the_tenths_hold_every_wait_once(pairs):
    reached, observed = (np.array(column) for column in zip(*pairs, strict=True))
    found = pit_histogram(reached.astype(np.float64), observed.astype(bool))
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()


def drawn(num_users, period, seed):
    """Rates of users, and how long each of them took, seen for a period."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(2.0, 0.02, num_users)
    days = rng.exponential(1 / rates)
    return rates, waits_of(np.minimum(days, period), days < period)


def test_the_truth_has_flat_tenths_and_honest_probabilities_though_half_are_not_seen_again():
    rates, waits = drawn(40_000, 20.0, seed=1)
    assert 0.4 < waits.observed.mean() < 0.6
    found = score(PoissonOutlook(rates), waits, 20.0, [7])
    assert found.pit == pytest.approx(np.full(10, 0.1), abs=0.006)
    assert found.values["coverage_80"] == pytest.approx(0.8, abs=0.01)
    assert found.values["ece_7d"] < 0.01


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_whoever_says_other_rates_than_the_true_ones_scores_worse(factor):
    rates, waits = drawn(20_000, 30.0, seed=2)
    truth, other = (
        score(PoissonOutlook(rates * f), waits, 30.0, [7]).values for f in (1.0, factor)
    )
    for name in ("log_likelihood", "log_likelihood_per_event"):
        assert other[name] < truth[name]
    for name in ("quantile_loss", "brier_7d", "ece_7d"):
        assert other[name] > truth[name]


def test_too_narrow_intervals_have_much_at_both_ends():
    """Log waits scatter twice as widely as was said: P(|2 z| > 1.28) = .52 instead of .2."""
    z = np.random.default_rng(3).standard_normal(20_000)
    found = pit_histogram(ndtr(2 * z), np.ones(20_000, dtype=bool))
    assert found[[0, 9]] == pytest.approx([0.26, 0.26], abs=0.02)
    assert (found[1:9] < 0.1).all()


FACTS = {
    "reason": None, "weights": {"bg-nbd": 0.0, "renewal": 1.0}, "left_out": {},
    "num_users": 1200, "test_days": 30.4, "horizons": [7],
    "scores": {"blend": {"log_likelihood": -2.25, "coverage_80": 0.79, "p_buy_7d": 0.2,
                         "bought_7d": 0.25, "brier_7d": 0.16, "ece_7d": 0.05}},
}  # fmt: skip


def test_a_person_reads_the_scores_beside_the_limit_and_the_members():
    new = FACTS | {
        "scores": {"blend": FACTS["scores"]["blend"] | {"quantile_loss": 3.5}},
        "limit": {"log_likelihood": -2.125, "quantile_loss": 3.25, "brier_7d": 0.15},
        "blend_minus": {"bg-nbd": {"difference": 0.125, "low": -0.01, "high": 0.26}},
    }
    assert in_words(new) == [
        "timing = 100 % renewal",
        "when, on 1,200 customers and 30 days: log-likelihood a wait -2.250 (limit -2.125), "
        "quantile loss 3.50 (limit 3.25) days, 79 % inside 80 % intervals",
        "buys within 7 days: said 20.0 %, came 25.0 %, Brier 0.160 (limit 0.150), "
        "calibration error 0.050",
        "log-likelihood a wait of the blend, minus bg-nbd +0.1250 (-0.0100 to +0.2600)",
    ]


def test_an_older_bundle_says_what_it_knows():
    assert in_words(FACTS)[1:] == [
        "when, on 1,200 customers and 30 days: log-likelihood a wait -2.250, "
        "79 % inside 80 % intervals",
        "buys within 7 days: said 20.0 %, came 25.0 %, Brier 0.160, calibration error 0.050",
    ]
