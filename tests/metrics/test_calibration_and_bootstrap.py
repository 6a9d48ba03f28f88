import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy.metrics.bootstrap import percentile_interval, resamples, weighted_means
from nextbuy.metrics.calibration import ece_by_chance, reliability
from nextbuy.seeding import generator


def test_ece_by_hand():
    found = reliability(np.array([0.9, 0.9, 0.25, 0.25]), np.array([1, 0, 0, 0]), num_bins=2)
    assert found.counts.tolist() == [2, 2]
    assert found.accuracy.tolist() == [0, 1 / 2]
    assert found.ece == pytest.approx(1 / 2 * 0.25 + 1 / 2 * 0.4)


def test_a_bin_holds_its_upper_end_and_certainty_has_a_place():
    found = reliability(np.array([0.0, 0.5, 0.500001, 1.0]), np.ones(4), num_bins=2)
    assert found.counts.tolist() == [2, 2]


def test_no_cases_have_no_calibration():
    assert math.isnan(reliability(np.zeros(0), np.zeros(0)).ece)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_ece_of_a_slow_walk_over_the_bins(rows):
    total = 0.0
    for b in range(15):
        inside = [(c, y) for c, y in rows if b == min(max(math.ceil(c * 15) - 1, 0), 14)]
        if inside:
            accuracy = sum(y for _, y in inside) / len(inside)
            confidence = sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(rows) * abs(accuracy - confidence)
    confidence, correct = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    assert reliability(confidence, correct).ece == pytest.approx(total)


def test_ece_by_chance_is_what_right_probabilities_show_on_average():
    """Baskets of one to four, whose first offer is in them as often as it says."""
    rng = generator(0, "test of chance")
    confidence, sizes = rng.uniform(0, 0.25, 600), rng.integers(1, 5, 600).astype(float)
    seen = [
        reliability(confidence, rng.random(600) < sizes * confidence, sizes).ece
        for _ in range(2000)
    ]
    assert ece_by_chance(confidence, sizes) == pytest.approx(np.mean(seen), rel=0.03)


def test_ece_by_chance_by_hand():
    """One bin, four coins: the gap has variance 4 * 1/4; nothing is left to luck in the other."""
    said = np.array([0.5, 0.5, 0.5, 0.5, 1.0])
    assert ece_by_chance(said, num_bins=2) == pytest.approx(math.sqrt(2 / math.pi) / 5)
    assert math.isnan(ece_by_chance(np.zeros(0)))


def test_every_resample_draws_as_many_cases_and_the_seed_decides_which():
    first, again, other = (
        np.concatenate(list(resamples(7, 500, generator(seed, "x")))) for seed in (1, 1, 2)
    )
    assert first.shape == (500, 7)
    assert (first.sum(axis=1) == 7).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    # How often a case is drawn is binomial(7, 1/7): mean 1, variance 6/7.
    assert first.mean(axis=0) == pytest.approx(np.ones(7), abs=0.2)
    assert first.var() == pytest.approx(6 / 7, rel=0.1)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.one_of(st.floats(-5, 5), st.just(math.nan)),
            st.one_of(st.floats(-5, 5), st.just(math.inf)),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_a_weighted_mean_is_the_mean_of_the_repeated_cases(rows):
    weights = np.array([[w for w, _, _ in rows]], dtype=float)
    means = weighted_means(weights, np.array([row[1:] for row in rows], dtype=float))[0]
    for column, got in zip((1, 2), means, strict=True):
        drawn = [row[column] for row in rows for _ in range(row[0]) if not math.isnan(row[column])]
        expected = sum(drawn) / len(drawn) if drawn else math.nan
        assert got == pytest.approx(expected, nan_ok=True, abs=1e-9)


def test_a_case_can_stand_for_many_purchases():
    """Two cases with losses 1 and 4, means over one and three purchases; the third has none."""
    values = np.array([[1.0, 1.0], [4.0, 4.0], [math.nan, 9.0]])
    weights = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    means = weighted_means(weights, values, {0: np.array([1.0, 3.0, 0.0])})
    np.testing.assert_allclose(means[:, 0], [13 / 4, 14 / 5, math.nan])
    np.testing.assert_allclose(means[:, 1], [14 / 3, 2, 9])


def test_an_interval_holds_the_middle_and_leaves_nan_out():
    samples = np.array([*range(1001), math.nan])
    assert percentile_interval(samples, 0.9) == pytest.approx((50, 950))
    assert percentile_interval(np.array([1.0, math.inf, math.inf]))[1] == math.inf
    assert all(map(math.isnan, percentile_interval(np.array([math.nan]))))


def test_the_interval_of_a_mean_is_about_two_standard_errors():
    values = np.random.default_rng(3).random((400, 1))
    weights = np.concatenate(list(resamples(400, 1_000, generator(0, "x"))))
    low, high = percentile_interval(weighted_means(weights, values)[:, 0])
    error = values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.4 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.4 * error)
