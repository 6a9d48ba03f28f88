import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError
from nextbuy.splitting.repeat import RepeatPolicy, apply_repeat_policy
from tests.splitting.small_logs import DAY, log_of

HALVES = np.array([[-np.inf, *np.log([1 / 2, 1 / 4, 1 / 4])]], dtype=np.float32)


@pytest.mark.parametrize(
    "text", ["allow", "exclude", "cooldown:30", "cooldown:0.5", "cooldown:own"]
)
def test_a_policy_reads_what_it_writes(text):
    assert str(RepeatPolicy.parse(text)) == text


@pytest.mark.parametrize("text", ["", "never", "cooldown", "cooldown:", "cooldown:x", "Allow"])
def test_another_word_is_refused_and_the_words_are_named(text):
    with pytest.raises(ConfigError, match=r"allow, exclude, cooldown:DAYS .* or cooldown:own"):
        RepeatPolicy.parse(text)


@pytest.mark.parametrize("text", ["cooldown:0", "cooldown:-3", "cooldown:nan", "cooldown:inf"])
def test_a_cooldown_lasts(text):
    with pytest.raises(ConfigError, match="more than 0"):
        RepeatPolicy.parse(text)


def test_excluding_what_was_bought_shares_its_probability_among_the_rest():
    out = apply_repeat_policy(
        HALVES, Histories.from_lists([[1, 1]]), None, RepeatPolicy.parse("exclude")
    )
    assert np.exp(out[0]).tolist() == pytest.approx([0, 0, 1 / 2, 1 / 2])


def test_a_cooldown_ends_exactly_after_its_days():
    log = log_of([(10, [1]), (11, [2])])
    out = apply_repeat_policy(HALVES, log, np.array([40 * DAY]), RepeatPolicy.parse("cooldown:30"))
    assert np.exp(out[0]).tolist() == pytest.approx([0, 2 / 3, 0, 1 / 3])


def test_who_bought_everything_is_offered_nothing():
    out = apply_repeat_policy(
        HALVES, Histories.from_lists([[1, 2, 3]]), None, RepeatPolicy.parse("exclude")
    )
    assert np.all(np.isneginf(out))


def test_allow_changes_nothing():
    assert (
        apply_repeat_policy(HALVES, Histories.from_lists([[1]]), None, RepeatPolicy.ALLOW) is HALVES
    )


def test_a_cooldown_without_dates_is_refused():
    with pytest.raises(ConfigError, match="cooldown:7 needs dates"):
        apply_repeat_policy(
            HALVES, Histories.from_lists([[1]]), None, RepeatPolicy.parse("cooldown:7")
        )


@given(
    st.lists(st.floats(-30, 0), min_size=5, max_size=5),
    st.lists(st.integers(1, 5), max_size=8),
)
def test_what_is_left_is_again_a_distribution_in_the_old_proportions(scores, items):
    weights = [math.exp(s) for s in scores]
    log_p = np.array([[-np.inf, *(math.log(w / sum(weights)) for w in weights)]], dtype=np.float32)
    out = np.exp(
        apply_repeat_policy(
            log_p, Histories.from_lists([items]), None, RepeatPolicy.parse("exclude")
        )
    )
    rest = sum(w for i, w in enumerate(weights, 1) if i not in items)
    expected = [0.0] + [0.0 if i in items else w / rest for i, w in enumerate(weights, 1)]
    assert out[0].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-7)
