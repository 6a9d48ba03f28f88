"""What came next, by hand."""

import numpy as np
import pytest

from nextbuy.errors import ConfigError
from nextbuy.timing.waits import waits_after
from tests.timing.purchases import bought_on, moment


def test_waits_are_seen_or_censored():
    log = bought_on([1, 5, 12, 13], [2], [], [11], [3, 30])
    waits = waits_after(log, moment(10), moment(20))
    assert waits.days[[0, 1, 4]].tolist() == [2, 10, 10]
    assert waits.observed.tolist() == [True, False, False, False, False]
    assert waits.known.tolist() == [True, True, False, False, True]


def test_the_day_of_the_last_purchase_ends_no_wait():
    log = bought_on([4.25, 4.75, 8.0])
    waits = waits_after(log, moment(4.5), moment(20))
    assert waits.days.tolist() == [3.5] and waits.observed.tolist() == [True]


def test_a_purchase_at_the_moment_is_a_wait_of_no_days_and_one_at_the_end_is_not_seen():
    log = bought_on([1, 10], [1, 20])
    waits = waits_after(log, moment(10), moment(20))
    assert waits.days.tolist() == [0, 10] and waits.observed.tolist() == [True, False]


def test_each_user_may_have_moments_of_their_own():
    log = bought_on([1, 10], [1, 20])
    waits = waits_after(log, np.array([moment(5), moment(15)]), np.array([moment(9), moment(30)]))
    assert waits.days.tolist() == [4, 5] and waits.observed.tolist() == [False, True]


def test_an_end_before_the_beginning_is_refused():
    with pytest.raises(ConfigError, match="Give a later end"):
        waits_after(bought_on([1]), moment(5), moment(4))
