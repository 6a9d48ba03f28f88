"""What counts as a repeat purchase, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError, EmptyDataError
from nextbuy.timing.events import events_before
from nextbuy.timing.repeat_purchases import repeat_purchases
from tests.timing.purchases import bought_on, counts_of, moment


def triples(counts):
    return list(zip(counts.repeats, counts.last, counts.age, strict=True))


def test_x_t_x_and_T_by_hand():
    log = bought_on([0, 7, 21], [14])
    assert triples(repeat_purchases(log, moment(28))) == [(2, 21, 28), (0, 0, 14)]
    assert triples(repeat_purchases(log, moment(28), days_per_unit=7)) == [(2, 3, 4), (0, 0, 2)]


def test_baskets_of_one_day_are_one_purchase_at_the_first_of_them():
    log = bought_on([0.25, 0.75, 3.5, 3.75])
    assert triples(repeat_purchases(log, moment(10))) == [(1, 3.25, 9.75)]


def test_rows_of_a_basket_count_once_even_past_midnight():
    days = [0, 0, 4.999, 5.001, 5.5, 9]
    log = Histories.from_lists(
        [[1] * 6], times=[[moment(d) for d in days]], baskets=[[0, 0, 1, 1, 2, 3]]
    )
    assert triples(repeat_purchases(log, moment(10)))[0] == (2, 9, 10)


def test_a_purchase_at_the_moment_itself_is_not_seen():
    log = bought_on([0, 5])
    assert triples(repeat_purchases(log, moment(5))) == [(0, 0, 5)]
    assert triples(repeat_purchases(log, moment(5) + 1))[0][0] == 1


def test_each_user_may_have_a_moment_of_their_own():
    log = bought_on([0, 5], [0, 5])
    counts = repeat_purchases(log, np.array([moment(3), moment(8)]))
    assert triples(counts) == [(0, 0, 3), (1, 5, 8)]


def test_a_user_without_a_purchase_is_unknown():
    counts = repeat_purchases(bought_on([], [9], [1]), moment(4))
    assert np.isnan([counts.repeats[:2], counts.last[:2], counts.age[:2]]).all()
    assert triples(counts)[2] == (0, 0, 3)
    assert triples(counts.collapsed()) == [(0, 0, 3)]


def test_gaps_and_elapsed_days():
    events = events_before(bought_on([0, 2, 5], [], [4], [1, 2]), moment(8))
    gaps, owners = events.gaps()
    assert gaps.tolist() == [2, 3, 1] and owners.tolist() == [0, 0, 3]
    assert events.elapsed_days()[[0, 2, 3]].tolist() == [3, 4, 6]
    assert np.isnan(events.elapsed_days()[1])


def test_collapsed_rows_carry_the_sum_of_their_weights():
    rows = [(1, 2, 9), (0, 0, 9), (1, 2, 9), (1, 3, 9)]
    collapsed = counts_of(rows, [1, 2, 4, 8]).collapsed()
    assert triples(collapsed) == [(0, 0, 9), (1, 2, 9), (1, 3, 9)]
    assert collapsed.weights.tolist() == [2, 5, 8]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(2, 3)), min_size=1),
       st.randoms())  # fmt: skip
def test_the_order_of_users_does_not_matter_to_collapsing(rows, random):
    once = counts_of(rows).collapsed()
    random.shuffle(rows)
    again = counts_of(rows).collapsed()
    assert triples(once) == triples(again)
    assert set(triples(once)) == set(rows)
    assert once.weights.tolist() == again.weights.tolist()
    assert once.weights.sum() == len(rows)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ConfigError, match="only an order"):
        repeat_purchases(Histories.from_lists([[1, 1]]), 5)
    with pytest.raises(ConfigError, match=r"shape \(3,\) for 2 users"):
        repeat_purchases(bought_on([1], [2]), np.zeros(3, dtype=np.int64))
    with pytest.raises(EmptyDataError, match="None of 2 users"):
        repeat_purchases(bought_on([1], []), moment(0)).collapsed()
