"""The blend: by hand, never below its best member on validation, and in words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy.data.histories import UNKNOWN, Histories
from nextbuy.models.blend import Blend, mixture_weights, target_likelihoods
from nextbuy.testing.contract import cases_of


class Constant:
    """Says the same to everybody."""

    def __init__(self, name, probabilities):
        self.name = name
        self.p = np.array([0.0, *probabilities], np.float32)

    def log_probabilities(self, histories, as_of):
        with np.errstate(divide="ignore"):
            return np.repeat(np.log(self.p)[None], len(histories), axis=0)


ONE, TWO = Constant("one", [0.8, 0.1, 0.1]), Constant("two", [0.1, 0.1, 0.8])


def asked(*targets):
    return cases_of(Histories.from_lists([[1]] * len(targets)), list(targets), as_of=None)


def test_the_mixture_is_the_weighted_sum():
    blend = Blend({"one": ONE, "two": TWO}, {"one": 0.25, "two": 0.75})
    p = np.exp(blend.log_probabilities(Histories.from_lists([[1], []]), None))
    expected = [0, 0.25 * 0.8 + 0.75 * 0.1, 0.1, 0.25 * 0.1 + 0.75 * 0.8]
    np.testing.assert_allclose(p, [expected] * 2, rtol=1e-6)


def test_weights_by_hand():
    """Item 1 three times, item 3 once: w maximises 3 log(.1 + .7 w) + log(.8 - .7 w)."""
    blend = Blend.of({"one": ONE, "two": TWO}, asked([1], [1], [1], [3]))
    grid = np.linspace(0, 1, 10_001)
    best = grid[np.argmax(3 * np.log(0.1 + 0.7 * grid) + np.log(0.8 - 0.7 * grid))]
    assert blend.weights["one"] == pytest.approx(best, abs=1e-3)
    assert sum(blend.weights.values()) == pytest.approx(1)


def test_a_case_counts_once_however_many_targets_it_has_and_unknown_ones_do_not():
    found, weights = target_likelihoods([ONE, TWO], asked([1, 2], [3, UNKNOWN], [UNKNOWN]))
    np.testing.assert_allclose(found, [[0.8, 0.1], [0.1, 0.1], [0.1, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(weights, [0.5, 0.5, 1.0])


@given(data=st.data())
def test_the_blend_is_never_below_its_best_member_on_validation(data):
    num_targets, num_members = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    cell = st.floats(1e-6, 1.0)
    rows = st.lists(cell, min_size=num_members, max_size=num_members)
    p = np.array(data.draw(st.lists(rows, min_size=num_targets, max_size=num_targets)))
    case_weights = np.ones(num_targets)
    weights = mixture_weights(p, case_weights)
    assert weights.sum() == pytest.approx(1)
    blended = np.log(p @ weights).mean()
    assert blended >= np.log(p).mean(axis=0).max() - 0.005


def test_a_member_that_adds_nothing_is_not_asked():
    class Expensive(Constant):
        def log_probabilities(self, histories, as_of):
            raise AssertionError("was asked")

    blend = Blend({"one": ONE, "costly": Expensive("costly", [1])}, {"one": 1.0, "costly": 0.0})
    assert blend.log_probabilities(Histories.from_lists([[1]]), None).shape == (1, 4)


def test_without_targets_all_weigh_the_same():
    blend = Blend.of({"one": ONE, "two": TWO}, asked([UNKNOWN]))
    assert blend.weights == {"one": 0.5, "two": 0.5}


def test_words_name_the_largest_first_and_leave_out_nothing_that_is_asked():
    blend = Blend({"a": ONE, "b": TWO, "c": ONE}, {"a": 0.3, "b": 0.7, "c": 0.0})
    assert blend.in_words() == "70 % b, 30 % a"
