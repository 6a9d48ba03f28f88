from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nextbuy.data.histories import UNKNOWN, Histories
from nextbuy.errors import SplitError
from nextbuy.splitting.temporal import split_by_time
from tests.splitting.small_logs import DAY, asked, bought, catalog_of, log_of, logs, names

THREE_USERS = log_of(
    [(1, [1]), (12, [2]), (25, [3, 1]), (26, [2])],
    [(2, [1, 2]), (20, [1])],
    [(15, [1]), (30, [4])],
)


def split_of(log, validation_day=10, test_day=20, **options):
    return split_by_time(
        catalog_of(5),
        log,
        validation_start=validation_day * DAY,
        test_start=test_day * DAY,
        **options,
    )


def test_each_side_holds_what_its_days_say_and_only_the_first_basket_is_the_answer():
    split = split_of(THREE_USERS)
    assert bought(split, split.train) == {"u0": ["a"], "u1": ["a", "b"]}
    assert asked(split, split.validation) == {"u0": (["a"], ["b"])}
    assert asked(split, split.test) == {
        "u0": (["a", "b"], ["?", "a"]),  # c was never bought before day 20
        "u1": (["a", "b"], ["a"]),  # bought exactly at the cut-off
        "u2": (["a"], ["?"]),
    }
    assert split.test.as_of.tolist() == [20 * DAY] * 3
    assert split.validation.until == 20 * DAY
    assert split.test.target_times.tolist() == [25 * DAY, 20 * DAY, 30 * DAY]
    assert split.test.unknown_share == 2 / 4


def test_new_users_are_counted_and_asked_about_only_on_request():
    default = split_of(THREE_USERS)
    assert "New users (1 in validation, 0 in test) are left out" in default.description
    asked_all = split_of(THREE_USERS, include_new_users=True)
    assert asked(asked_all, asked_all.validation)["u2"] == ([], ["a"])


def test_the_catalog_counts_only_what_lies_before_the_test_period():
    split = split_of(THREE_USERS)
    assert split.catalog.table["item_id"].to_list() == ["a", "b"]
    assert split.catalog.table["num_purchases"].to_list() == [3, 2]


def test_a_basket_that_the_cutoff_cuts_is_visible_up_to_it():
    log = Histories.from_lists(
        [[1, 2, 1, 3, 2]],
        times=[[1 * DAY, 12 * DAY, 19 * DAY, 21 * DAY, 30 * DAY]],
        baskets=[[0, 1, 2, 2, 3]],
    )
    split = split_of(log)
    assert asked(split, split.test) == {"u0": (["a", "b", "a"], ["?"])}


def test_money_adds_up_within_a_basket_and_a_missing_price_is_no_zero():
    log = Histories.from_lists(
        [[1, 2, 1, 1, 1, 2]],
        times=[[1 * DAY, 12 * DAY, 21 * DAY, 21 * DAY, 21 * DAY, 21 * DAY]],
        baskets=[[0, 1, 2, 2, 2, 2]],
        prices=[[1.0, 1.0, 2.5, float("nan"), 4.0, float("nan")]],
    )
    values = split_of(log).test.target_values
    assert values[0] == 6.5
    assert np.isnan(values[1])


def test_a_quantity_multiplies_the_price_and_a_missing_one_is_one_unit():
    log = Histories.from_lists(
        [[1, 2, 1, 2, 3]],
        times=[[1 * DAY, 12 * DAY, 21 * DAY, 21 * DAY, 21 * DAY]],
        baskets=[[0, 1, 2, 2, 2]],
        prices=[[1.0, 1.0, 2.5, 3.0, 7.0]],
    )
    log = replace(log, quantities=np.array([1, 1, 4, np.nan, 2], dtype=np.float32))
    split = split_of(log)
    paid = dict(zip(names(split, split.test.target_items), split.test.target_values, strict=True))
    assert paid == {"a": 10.0, "b": 3.0, "?": 14.0}


def test_an_answer_ends_with_its_period_though_its_basket_goes_on():
    log = Histories.from_lists(
        [[1, 2, 3, 3], [3]],
        times=[[1 * DAY, 19 * DAY, 20 * DAY, 25 * DAY], [2 * DAY]],
        baskets=[[0, 1, 1, 2], [0]],
    )
    split = split_of(log)
    assert asked(split, split.validation) == {"u0": (["a"], ["b"])}
    assert asked(split, split.test) == {"u0": (["a", "b"], ["c"])}


def test_answers_are_in_the_order_of_the_known_catalog_not_of_the_whole_log():
    # Index 1 of the whole log's catalog is what sells best later; before day 20 it is item 2.
    log = log_of([(1, [2]), (2, [2]), (12, [1]), (21, [1, 2, 3])])
    split = split_of(log)
    assert split.catalog.table["item_id"].to_list() == ["b", "a"]
    assert split.test.target_items.tolist() == [UNKNOWN, 1, 2]


def test_an_order_is_refused_and_the_way_out_is_named():
    with pytest.raises(SplitError, match=r"only an order.*--split leave-last-out"):
        split_by_time(catalog_of(3), Histories.from_lists([[1, 2, 3]]))


def test_cutoffs_outside_the_log_are_refused_with_the_range():
    with pytest.raises(SplitError, match=r"1970-01-02.*1970-01-31"):
        split_of(THREE_USERS, 10, 400)


def test_validation_must_come_before_the_test():
    with pytest.raises(SplitError, match="validation before test"):
        split_of(THREE_USERS, 20, 20)


def test_a_datetime_and_its_microseconds_are_the_same_cutoff():
    told = split_by_time(
        catalog_of(5),
        THREE_USERS,
        validation_start=datetime(1970, 1, 11, tzinfo=UTC),
        test_start=datetime(1970, 1, 21),
    )
    assert told.description == split_of(THREE_USERS).description


def test_test_days_count_back_from_the_last_purchase():
    split = split_by_time(catalog_of(5), THREE_USERS, test_days=10)
    assert split.test.as_of.tolist() == [20 * DAY] * 3
    assert split.validation.as_of.tolist() == [10 * DAY]


def test_automatic_cutoffs_are_a_tenth_of_the_span_each_when_cases_abound():
    rng = np.random.default_rng(5)
    users = [
        [(d, [1 + d % 5]) for d in sorted(rng.choice(1000, 60, replace=False))] for _ in range(200)
    ]
    split = split_by_time(catalog_of(5), log_of(*users))
    assert abs(int(split.test.as_of[0]) / DAY - 900) <= 2
    assert abs(int(split.validation.as_of[0]) / DAY - 800) <= 3
    assert "chosen automatically" in split.description
    assert len(split.test) >= 100


def test_one_stray_date_does_not_move_the_automatic_cutoffs_out_of_the_log():
    users = [[(10_000 + d, [1 + (d + u) % 5]) for d in range(0, 100, 3)] for u in range(150)]
    for stray in (0, 30_000):
        stray_log = log_of(*users, [(stray, [1])])
        split = split_by_time(catalog_of(5), stray_log)
        assert (
            10_000 < int(split.validation.as_of[0]) / DAY < int(split.test.as_of[0]) / DAY < 10_100
        )
        assert len(split.test) == 150
        assert split.train.num_purchases > stray_log.num_purchases / 3


def test_a_log_of_one_moment_cannot_be_cut():
    with pytest.raises(SplitError, match="No moment between"):
        split_by_time(catalog_of(5), log_of([(1, [1])], [(1, [2])]))


def split_or_assume(log, **options):
    try:
        return split_of(log, **options)
    except SplitError:
        assume(False)


@settings(max_examples=60, deadline=None)
@given(logs, st.randoms(use_true_random=False))
def test_changing_the_future_never_changes_what_is_learned_from(users, random):
    def future_changed(user):
        changed = [
            (day, items) if day < 20 else (random.randint(20, 40), [random.randint(1, 5)])
            for day, items in user
        ]
        return sorted(changed, key=lambda b: b[0])

    split = split_or_assume(log_of(*users))
    other = split_or_assume(log_of(*[future_changed(user) for user in users]))
    for name in ("items", "times", "baskets", "offsets"):
        assert np.array_equal(getattr(split.train, name), getattr(other.train, name))
        assert np.array_equal(
            getattr(split.validation.histories, name), getattr(other.validation.histories, name)
        )
    assert split.train.user_ids.equals(other.train.user_ids)
    assert split.catalog.table.equals(other.catalog.table)
    assert np.array_equal(split.validation.target_items, other.validation.target_items)


@settings(max_examples=60, deadline=None)
@given(logs)
def test_a_slow_walk_through_the_log_finds_the_same_split(users):
    split = split_or_assume(log_of(*users))
    name = ["", *"abcde"]
    known = {i for user in users for day, items in user if day < 20 for i in items}
    train, validation, test = {}, {}, {}
    for u, user in enumerate(users):
        early = [name[i] for day, items in user if day < 10 for i in items]
        before = [name[i] for day, items in user if day < 20 for i in items]
        if early:
            train[f"u{u}"] = early
            for day, items in user:
                if 10 <= day < 20:
                    validation[f"u{u}"] = (early, sorted({name[i] for i in items}))
                    break
        if before:
            for day, items in user:
                if day >= 20:
                    answer = sorted(name[i] if i in known else "?" for i in set(items))
                    test[f"u{u}"] = (before, answer)
                    break
    assert bought(split, split.train) == train
    assert asked(split, split.validation) == validation
    assert asked(split, split.test) == test


def test_all_that_lies_before_the_test_can_be_learnt_once_choices_are_made():
    split = split_of(THREE_USERS)
    assert bought(split, split.before_test) == {"u0": ["a", "b"], "u1": ["a", "b"], "u2": ["a"]}
