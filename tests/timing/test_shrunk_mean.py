"""Means of users that are drawn towards that of all."""

from fractions import Fraction

import numpy as np
import pytest

from nextbuy.errors import EmptyDataError
from nextbuy.timing.shrunk_mean import ShrunkMean, Totals


def totals(*users):
    owners = np.array([u for u, values in enumerate(users) for _ in values], dtype=np.int64)
    values = np.array([v for values in users for v in values], dtype=np.float64)
    return Totals.of(values, owners, len(users))


def test_variances_within_and_between_users_are_those_by_hand():
    """Means 2, 6 and 8, overall (4 + 12 + 16) / 6 = 16/3. Squares within: 2, 2 and 8, 12 over 3
    degrees: 4. Between: 2 (100/9 + 4/9 + 64/9) = 112/3, less 2 * 4, over 6 - 12/6 = 4: 22/3."""
    found = ShrunkMean.of(totals([1, 3], [5, 7], [6, 10]))
    k = Fraction(4) / Fraction(22, 3)
    assert found.weight == pytest.approx(float(k))
    assert found.mean == pytest.approx(16 / 3)
    expected = [(k * Fraction(16, 3) + s) / (k + n) for s, n in ((4, 2), (30, 4), (0, 0))]
    asked = totals([1, 3], [5, 7, 8, 10], [])
    assert found.expected(asked) == pytest.approx([float(e) for e in expected])


def test_users_who_do_not_differ_get_the_mean_of_all_and_steady_ones_their_own():
    alike = ShrunkMean.of(totals([1, 9], [9, 1], [5, 5]))
    assert alike.expected(totals([9, 9], [])) == pytest.approx([5, 5], rel=1e-4)
    steady = ShrunkMean.of(totals([2, 2], [7, 7]))
    assert steady.expected(totals([3], [])).tolist() == [3.0, 4.5]


def test_rates_that_are_gamma_are_expected_as_by_their_posterior():
    """Poisson counts with rates Gamma(3, 1/2): k is 1/2, and m 6."""
    rng = np.random.default_rng(5)
    users = [rng.poisson(rate, 4).tolist() for rate in rng.gamma(3.0, 2.0, 20_000)]
    found = ShrunkMean.of(totals(*users))
    assert found.mean == pytest.approx(6, rel=0.02)
    assert found.weight == pytest.approx(0.5, rel=0.05)


def test_what_is_not_known_does_not_count_and_nothing_at_all_is_refused():
    some = totals([1.0, np.nan, 3.0], [np.nan], [4.0, 6.0])
    assert some.counts.tolist() == [2, 0, 2] and some.sums.tolist() == [4, 0, 10]
    with pytest.raises(EmptyDataError, match="nothing to take means of"):
        ShrunkMean.of(totals([np.nan], []))
