"""The climb: where it ends, and what it says when there is no end."""

import logging

import numpy as np
import pytest

from nextbuy.errors import TrainingError
from nextbuy.timing.maximum_likelihood import maximize


def hill(at):
    """A parabola with its top at log-parameters `at`."""
    top = np.array(at, dtype=float)
    return lambda place: (-((place - top) ** 2).sum(), -2 * (place - top))


def test_it_ends_on_the_top():
    found = maximize(hill([1.0, -2.0]), [np.zeros(2)], ["a", "b"])
    assert found.parameters == pytest.approx([np.e, np.exp(-2)], rel=1e-8)
    assert found.at_edge == () and found.mean_log_likelihood == pytest.approx(0)


def test_a_top_at_infinity_is_named(caplog):
    def slope(place):
        return float(place[0] - place[1] ** 2), np.array([1.0, -2 * place[1]])

    with caplog.at_level(logging.INFO):
        found = maximize(slope, [np.zeros(2)], ["shape", "scale"])
    assert found.at_edge == ("shape",)
    assert "do not determine shape" in caplog.text


def test_no_top_is_an_error_that_says_where_it_ended():
    def broken(place):
        return float(place.sum()), np.full(2, np.nan)

    with pytest.raises(TrainingError, match=r"from 1 starts: at a = 1, b = 1"):
        maximize(broken, [np.zeros(2)], ["a", "b"])
