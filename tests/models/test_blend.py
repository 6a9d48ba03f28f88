"""The blend: by hand, a distribution, never below its best member on validation, and in words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nextbuy.data.histories import UNKNOWN, Histories
from nextbuy.models.blend import Blend, BlendWeights, mixture_weights, target_likelihoods
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
BOTH = {"one": ONE, "two": TWO}


def weights(repeat, explore, choice, share=0.5):
    names = ("one", "two")
    parts = {
        name: dict(zip(names, (part, 1.0 - part), strict=True))
        for name, part in (("repeat", repeat), ("explore", explore), ("choice", choice))
    }
    return BlendWeights(**parts, repeat_share=share)


def asked(*targets, history=(1,)):
    histories = Histories.from_lists([list(history)] * len(targets))
    return cases_of(histories, list(targets), as_of=None)


def answers(blend, *histories):
    return np.exp(blend.log_probabilities(Histories.from_lists(list(histories)), None))


def test_the_mixture_by_hand():
    """Own items 1 and 2: member one gives them .9, member two .2."""
    blend = Blend(BOTH, weights(repeat=0.25, explore=1.0, choice=0.5))
    again = 0.5 * 0.9 + 0.5 * 0.2
    one = 0.25 * 0.8 / 0.9 + 0.75 * 0.1 / 0.2
    expected = [0, again * one, again * (1 - one), 1 - again]
    np.testing.assert_allclose(answers(blend, [1, 2, 1])[0], expected, rtol=1e-5)


def test_who_bought_nothing_is_offered_new_items_and_who_bought_all_gets_them_again():
    blend = Blend(BOTH, weights(repeat=1.0, explore=0.0, choice=0.5))
    nothing, everything = answers(blend, [], [3, 2, 1])
    np.testing.assert_allclose(nothing, TWO.p, rtol=1e-5)
    np.testing.assert_allclose(everything, ONE.p, rtol=1e-5)


def test_weights_by_hand():
    """History 1. Item 1 returns in 3 of 4 cases; of the new, item 3 is bought once."""
    blend = Blend.of(BOTH, asked([1], [1], [1], [3]))
    grid = np.linspace(0, 1, 10_001)
    best = grid[np.argmax(3 * np.log(0.1 + 0.7 * grid) + np.log(0.9 - 0.7 * grid))]
    assert blend.weights.choice["one"] == pytest.approx(best, abs=1e-3)
    assert blend.weights.explore["two"] == pytest.approx(1.0, abs=1e-3)
    assert blend.weights.repeat_share == 0.75
    for part in (blend.weights.repeat, blend.weights.explore, blend.weights.overall()):
        assert sum(part.values()) == pytest.approx(1)


def test_one_is_asked_what_returns_and_the_other_what_is_new():
    """Member one knows what returns, member two what is new; together they beat both."""
    knows_old = Constant("old", [0.45, 0.05, 0.25, 0.25])
    knows_new = Constant("new", [0.25, 0.25, 0.45, 0.05])
    cases = asked([1], [1], [1], [2], [3], [3], [3], [4], history=(1, 2))
    blend = Blend.of({"old": knows_old, "new": knows_new}, cases)
    assert blend.weights.repeat["old"] > 0.6
    assert blend.weights.explore["new"] > 0.6
    loss = {m.name: validation_loss(m, cases) for m in (knows_old, knows_new, blend)}
    assert loss["blend"] < min(loss["old"], loss["new"]) - 0.1


def validation_loss(model, cases):
    log_p = model.log_probabilities(cases.histories, None)
    return -np.mean([log_p[case, item] for case, item in enumerate(cases.target_items)])


def test_each_target_is_asked_once_and_unknown_ones_are_not():
    found = target_likelihoods([ONE, TWO], asked([1, 2], [3, UNKNOWN], [UNKNOWN]))
    assert found.is_own.tolist() == [True, False, False]
    np.testing.assert_allclose(found.whether, [[0.8, 0.1], [0.2, 0.9], [0.2, 0.9]], rtol=1e-6)
    np.testing.assert_allclose(found.which, [[1, 1], [1 / 2, 1 / 9], [1 / 2, 8 / 9]], rtol=1e-6)


@given(data=st.data())
def test_weights_are_never_below_the_best_member_on_validation(data):
    num_targets, num_members = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    cell = st.floats(1e-6, 1.0)
    rows = st.lists(cell, min_size=num_members, max_size=num_members)
    p = np.array(data.draw(st.lists(rows, min_size=num_targets, max_size=num_targets)))
    found = mixture_weights(p)
    assert found.sum() == pytest.approx(1)
    assert np.log(p @ found).mean() >= np.log(p).mean(axis=0).max() - 0.005


ITEMS = 5
tables = st.lists(st.floats(1e-4, 1.0), min_size=ITEMS, max_size=ITEMS)
logs = st.lists(
    st.tuples(st.lists(st.integers(1, ITEMS), max_size=6), st.integers(1, ITEMS)),
    min_size=1,
    max_size=8,
)


@given(st.lists(tables, min_size=1, max_size=3), logs)
def test_the_blend_is_a_distribution_and_never_below_its_best_member(found, log):
    members = {f"m{n}": Constant(f"m{n}", np.array(p) / np.sum(p)) for n, p in enumerate(found)}
    histories = Histories.from_lists([row for row, _ in log])
    cases = cases_of(histories, [[item] for _, item in log], as_of=None)
    blend = Blend.of(members, cases)
    p = np.exp(blend.log_probabilities(histories, None).astype(np.float64))
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-5)
    best = min(validation_loss(member, cases) for member in members.values())
    assert validation_loss(blend, cases) <= best + 0.01


def test_a_bar_leaves_out_what_is_below_it():
    """Member one is often right, member two never far off; the bar is what a list of ten asks."""
    p = np.array([[0.2, 1e-3]] * 2 + [[1e-9, 1e-3]] * 8)
    likely = mixture_weights(p)
    assert likely[1] == pytest.approx(0.8, abs=0.01)  # 2 log(.2 w) + 8 log(.001 (1 - w))
    ranked = mixture_weights(p, bars=np.full(10, 0.02))
    grid = np.linspace(0, 1, 10_001)
    score = 2 * np.log(0.02 + 0.2 * grid + 1e-3 * (1 - grid)) + 8 * np.log(0.02 + 1e-3 * (1 - grid))
    assert ranked[0] == pytest.approx(grid[np.argmax(score)], abs=2e-3)
    assert ranked[0] > 0.9


def test_new_offers_are_weighed_by_who_comes_into_a_list_of_ten():
    """20 new items. The sharp member names the right one first in half of the cases and is nearly
    certain against it in the others; the flat one gives all the same and wins on likelihood.
    """
    sharp = np.r_[0.0, 0.4, np.full(9, 0.055), np.full(10, 0.0105)]
    flat = np.r_[0.0, np.full(20, 0.05)]
    members = {"sharp": Constant("sharp", sharp), "flat": Constant("flat", flat)}
    cases = asked(*[[2]] * 5, *[[20]] * 5)
    found = target_likelihoods(list(members.values()), cases)
    np.testing.assert_allclose(found.bars, [[0.055, 0.05]] * 10, rtol=1e-5)
    likely = mixture_weights(found.which)
    blend = Blend.of(members, cases)
    assert blend.weights.explore["sharp"] > likely[0] + 0.05
    best = min(validation_loss(member, cases) for member in members.values())
    assert validation_loss(blend, cases) <= best + 1e-6


def test_a_member_that_adds_nothing_is_not_asked():
    class Expensive(Constant):
        def log_probabilities(self, histories, as_of):
            raise AssertionError("was asked")

    blend = Blend({"one": ONE, "two": Expensive("two", [1])}, weights(1.0, 1.0, 1.0))
    np.testing.assert_allclose(answers(blend, [1])[0], ONE.p, rtol=1e-6)


def test_without_targets_all_weigh_the_same():
    found = Blend.of(BOTH, asked([UNKNOWN])).weights
    assert dict(found.repeat) == dict(found.explore) == dict(found.choice)
    assert dict(found.choice) == {"one": 0.5, "two": 0.5}


@pytest.mark.parametrize("history", [(1, 2, 3), ()], ids=["only repeats", "nothing repeats"])
def test_a_part_that_was_never_asked_takes_the_weights_of_the_other(history):
    found = Blend.of(BOTH, asked([1], [1], history=history)).weights
    assert dict(found.repeat) == dict(found.explore) == {"one": 1.0, "two": 0.0}
    assert found.repeat_share == (1.0 if history else 0.0)


def test_words_name_the_largest_first_and_leave_out_nothing_that_is_asked():
    assert weights(0.3, 1.0, 0.5).in_words() == "bought again: 70 % two, 30 % one; new: 100 % one"


def test_the_overall_weight_counts_each_part_as_often_as_it_was_asked_for():
    assert weights(0.2, 0.6, 0.5, share=0.75).overall()["one"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"repeat": {"one": 0.5, "two": 0.4}},
        {"explore": {"one": 1.5, "two": -0.5}},
        {"choice": {"one": 1.0}},
        {"repeat": {}, "explore": {}, "choice": {}},
        {"repeat_share": 1.5},
        {"surplus": 1},
    ],
)
def test_weights_that_are_none_are_refused(wrong):
    whole = weights(0.5, 0.5, 0.5).model_dump()
    with pytest.raises(ValidationError):
        BlendWeights.model_validate(whole | wrong)
