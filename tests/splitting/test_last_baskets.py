import numpy as np
import pytest
from hypothesis import assume, given, settings

from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError, SplitError
from nextbuy.splitting.choice import choose_split
from nextbuy.splitting.held_out_users import hold_out_users
from nextbuy.splitting.leave_last_out import leave_last_out
from tests.splitting.small_logs import DAY, asked, bought, catalog_of, log_of, logs


def test_last_basket_is_test_second_last_validation_rest_train():
    log = log_of(
        [(1, [1]), (2, [2]), (3, [3, 1]), (9, [2, 4])],
        [(5, [3]), (6, [1])],
        [(7, [2])],
    )
    split = leave_last_out(catalog_of(5), log)
    assert bought(split, split.train) == {"u0": ["a", "b"], "u1": ["c"], "u2": ["b"]}
    assert asked(split, split.validation) == {"u0": (["a", "b"], ["a", "c"])}
    assert asked(split, split.test) == {
        "u0": (["a", "b", "c", "a"], ["?", "b"]),
        "u1": (["c"], ["a"]),
    }
    assert split.test.as_of.tolist() == [9 * DAY, 6 * DAY]
    assert split.validation.target_times.tolist() == [3 * DAY]
    assert "leaks time" in split.warning


def test_an_order_has_no_moment_of_asking():
    split = leave_last_out(catalog_of(5), Histories.from_lists([[1, 2, 3, 1]]))
    assert split.test.as_of is None
    assert split.test.target_times is None
    assert asked(split, split.test) == {"u0": (["a", "b", "c"], ["a"])}


def test_histories_too_short_for_leave_last_out_are_refused_with_their_length():
    with pytest.raises(SplitError, match=r"2 users the longest history has 2.*held-out-users"):
        leave_last_out(catalog_of(3), log_of([(1, [1]), (2, [1, 2, 3])], [(3, [1])]))


@settings(max_examples=60, deadline=None)
@given(logs)
def test_leaving_the_last_out_loses_no_row(users):
    log = log_of(*users)
    assume(any(len(user) >= 3 for user in users))
    split = leave_last_out(catalog_of(5), log)
    answered = {f"u{u}": user[-1][1] for u, user in enumerate(users) if len(user) >= 2}
    assert {u: len(set(items)) for u, items in answered.items()} == {
        u: len(targets) for u, (_, targets) in asked(split, split.test).items()
    }
    visible = bought(split, split.train) | {
        u: seen for u, (seen, _) in asked(split, split.test).items()
    }
    rows = sum(len(seen) for seen in visible.values()) + sum(map(len, answered.values()))
    assert rows == log.num_purchases


def test_held_out_users_are_nowhere_in_training_and_the_shares_hold():
    users = [[(u + d, [1 + (u + d) % 5]) for d in range(1 + u % 3)] for u in range(100)]
    log = log_of(*users)
    split = hold_out_users(catalog_of(5), log, seed=3)
    sides = [set(split.train.user_ids)] + [
        set(cases.histories.user_ids) for cases in (split.validation, split.test)
    ]
    assert [len(side) for side in sides] == [75, 5, 20]
    assert len(set.union(*sides)) == 100
    for user, items in bought(split, split.train).items():
        assert len(items) == len(users[int(user[1:])])
    for user, (seen, targets) in asked(split, split.test).items():
        baskets = users[int(user[1:])]
        assert seen == ["_abcde"[items[0]] for _, items in baskets[:-1]]
        assert targets == ["_abcde"[baskets[-1][1][0]]]
    assert any(not seen for seen, _ in asked(split, split.test).values())


def test_another_seed_draws_other_users_and_the_same_seed_the_same():
    log = log_of(*[[(u, [1]), (u + 1, [2])] for u in range(60)])
    first, again, other = (
        hold_out_users(catalog_of(2), log, seed=seed).test.histories.user_ids.to_list()
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_too_few_users_to_hold_out_are_refused():
    with pytest.raises(SplitError, match="2 users with purchases cannot be cut"):
        hold_out_users(catalog_of(2), log_of([(1, [1])], [(1, [2])]), seed=0)


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.6, 0.4), (0.2, -0.1)])
def test_shares_that_leave_nobody_are_refused(shares):
    with pytest.raises(SplitError, match="Shares"):
        hold_out_users(
            catalog_of(2),
            log_of([(1, [1])]),
            test_share=shares[0],
            validation_share=shares[1],
            seed=0,
        )


def test_a_split_is_chosen_by_its_name():
    log = log_of(*[[(u + d, [1 + d % 3]) for d in range(0, 60, 4)] for u in range(30)])
    for name in ("temporal", "leave-last-out", "held-out-users"):
        split = choose_split(name, catalog_of(3), log, seed=1)
        assert split.name == name
        assert len(split.test) > 0
        assert np.all(split.train.items > 0)


def test_an_unknown_split_and_a_cutoff_without_use_are_refused():
    log = log_of([(1, [1])])
    with pytest.raises(ConfigError, match=r"random.*temporal, leave-last-out"):
        choose_split("random", catalog_of(1), log)
    with pytest.raises(ConfigError, match="no cut-offs"):
        choose_split("leave-last-out", catalog_of(1), log, test_days=3)
