"""Deciles by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy.metrics.targeting import targeting


def test_ten_users_in_two_halves_by_hand():
    """Buyers are the first, second and eighth of ten."""
    bought = np.array([True, True, False, False, False, False, False, True, False, False])
    money = np.array([10.0, 20.0, 0, 0, 0, 0, 0, 70.0, 0, np.nan])
    found = targeting(-np.arange(10.0), bought, money, num_parts=2)
    assert found.precision.tolist() == [2 / 5, 3 / 10]
    assert found.lift == pytest.approx([(2 / 5) / (3 / 10), 1.0])
    assert found.gain == pytest.approx([2 / 3, 1.0])
    assert found.revenue == pytest.approx([30 / 100, 1.0])


def test_ties_are_broken_by_position():
    found = targeting(np.zeros(4), np.array([True, False, False, True]), num_parts=4)
    assert found.gain.tolist() == [0.5, 0.5, 0.5, 1.0]


def test_where_nobody_bought_there_is_nothing_to_find():
    found = targeting(np.arange(5.0), np.zeros(5, dtype=bool), np.zeros(5))
    assert found.precision.tolist() == [0.0] * 10
    assert (
        np.isnan(found.lift).all() and np.isnan(found.gain).all() and np.isnan(found.revenue).all()
    )


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 99))
def test_everybody_holds_all_buyers_and_no_order_beats_the_truth(bought, seed):
    came = np.array(bought)
    scores = np.random.default_rng(seed).random(len(came))
    found, best = targeting(scores, came), targeting(came.astype(float), came)
    assert found.precision[-1] == pytest.approx(came.mean())
    if came.any():
        assert found.gain[-1] == 1.0 and found.lift[-1] == pytest.approx(1.0)
        assert (found.gain <= best.gain + 1e-12).all()
        assert (np.diff(found.gain) >= 0).all()
