"""Every purchase is a target once an epoch, in the right place, whatever the shapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError, TrainingError
from nextbuy.training import batches
from nextbuy.training.batches import (
    Asking,
    cut_into_windows,
    epoch_batches,
    has_baskets,
    num_batches,
)
from nextbuy.training.engine import TrainingConfig

item_lists = st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=8).filter(any)


def batches_of(histories, *, longest=5, tokens=8, seed=0, epoch=0, start=0):
    windows = cut_into_windows(histories, longest)
    return list(
        epoch_batches(histories, windows, tokens=tokens, seed=seed, epoch=epoch, start=start)
    )


def transitions(batches):
    """All (purchase before, target) pairs of some batches, sorted."""
    return sorted(
        (int(i), int(t))
        for b in batches
        for i, t in zip(b.inputs.ravel(), b.targets.ravel(), strict=True)
        if t
    )


@given(item_lists, st.integers(2, 6), st.integers(1, 30))
def test_every_transition_is_learned_once_an_epoch(rows, longest, tokens):
    histories = Histories.from_lists(rows)
    expected = sorted(pair for row in rows for pair in zip([0, *row], row, strict=False))
    assert transitions(batches_of(histories, longest=longest, tokens=tokens)) == expected


@given(item_lists, st.integers(1, 30))
def test_the_number_of_batches_is_known_beforehand(rows, tokens):
    histories = Histories.from_lists(rows)
    windows = cut_into_windows(histories, 5)
    assert num_batches(windows, tokens) == len(batches_of(histories, tokens=tokens))


@given(item_lists, st.data())
def test_an_epoch_can_be_entered_in_its_middle(rows, data):
    histories = Histories.from_lists(rows)
    whole = batches_of(histories, epoch=3)
    start = data.draw(st.integers(0, len(whole)))
    rest = batches_of(histories, epoch=3, start=start)
    assert [b.targets.tolist() for b in rest] == [b.targets.tolist() for b in whole[start:]]


def test_a_long_history_is_cut_with_its_newest_window_full():
    windows = cut_into_windows(Histories.from_lists([[1] * 7, [2] * 3]), 3)
    assert windows.starts.tolist() == [0, 1, 4, 7]
    assert windows.lengths.tolist() == [1, 3, 3, 3]
    assert windows.opens_history.tolist() == [True, False, False, True]


def test_windows_begin_where_baskets_do():
    baskets = [[0, 0, 1, 1, 1, 2, 3], [0, 0, 0, 0, 0, 1]]
    windows = cut_into_windows(Histories.from_lists([[1] * 7, [2] * 6], baskets=baskets), 4)
    assert windows.starts.tolist() == [0, 2, 5, 7, 8, 12]  # the basket of five is cut itself
    assert windows.lengths.tolist() == [2, 3, 2, 1, 4, 1]
    assert windows.opens_history.tolist() == [True, False, False, True, False, False]


@given(
    st.lists(st.lists(st.booleans(), max_size=20), min_size=1, max_size=6).filter(any),
    st.integers(2, 6),
    st.integers(1, 5),
)
def test_windows_and_baskets_are_found_whatever_the_baskets(opens, longest, block):
    numbers = [np.cumsum(row).tolist() for row in opens]
    histories = Histories.from_lists([[1] * len(row) for row in opens], baskets=numbers)
    windows = cut_into_windows(histories, longest)
    expected = []  # from the newest purchase of each history back, one window after the other
    for first, row in zip(histories.offsets.tolist(), numbers, strict=False):
        end, found = len(row), []
        while end:
            reach = max(0, end - longest)
            begins = [at for at in range(reach, end) if at == 0 or row[at] != row[at - 1]]
            start = begins[0] if begins else reach
            found.append((first + start, end - start, start == 0))
            end = start
        expected += reversed(found)
    assert expected == list(
        zip(windows.starts, windows.lengths, windows.opens_history, strict=True)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_BLOCK", block)
        assert has_baskets(histories) == any(len(set(row)) < len(row) for row in numbers)


def test_a_batch_stays_near_its_token_budget():
    rng = np.random.default_rng(0)
    histories = Histories.from_lists([[1] * int(n) for n in rng.integers(1, 60, 500)])
    batches = batches_of(histories, longest=100, tokens=300)
    assert max(b.targets.size for b in batches) <= 300
    filled = sum(b.num_targets for b in batches) / sum(b.targets.size for b in batches)
    assert filled > 0.9


def test_a_basket_is_shuffled_and_stays_together():
    rows, baskets = [[1, 2, 3, 4, 5, 9]], [[0, 0, 0, 0, 0, 1]]
    histories = Histories.from_lists(rows, baskets=baskets)
    seen = {tuple(batches_of(histories, longest=9, epoch=e)[0].targets[0]) for e in range(40)}
    assert len(seen) > 10
    assert all(sorted(t[:5]) == [1, 2, 3, 4, 5] and t[5] == 9 for t in seen)
    (batch,) = batches_of(histories, longest=9)
    assert batch.marks.tolist() == [[1, 0, 0, 0, 0, 1]]


def test_a_purchase_is_asked_of_the_state_before_its_basket():
    """Baskets [1 2] [3]; then a window that begins in the middle of a basket."""
    histories = Histories.from_lists([[1, 2, 3]], baskets=[[0, 0, 1]])
    (batch,) = batches_of(histories)
    asked = batch.questions()
    assert batch.openings.tolist() == [[0, 0, 2]]
    assert (asked.states.tolist(), asked.owners.tolist()) == ([0, 2], [0, 0, 1])
    assert sorted(asked.targets[:2].tolist()) == [0, 1]
    assert asked.targets[2] == 2
    cut = Histories.from_lists([[1, 2, 3]], baskets=[[0, 0, 0]])
    rest = next(b for b in batches_of(cut, longest=2, tokens=2) if b.targets.shape[1] == 2)
    assert rest.marks.tolist() == [[0, 0]]
    assert rest.questions().states.tolist() == [0]


@given(item_lists, st.integers(2, 6), st.integers(1, 30))
def test_every_purchase_is_asked_for_once_an_epoch(rows, longest, tokens):
    """Of a state that knows no purchase of its basket."""
    baskets = [[place // 2 for place in range(len(row))] for row in rows]
    batches = batches_of(
        Histories.from_lists(rows, baskets=baskets), longest=longest, tokens=tokens
    )
    asked = [b.questions() for b in batches]
    assert sorted(int(t) + 1 for q in asked for t in q.targets) == sorted(
        item for row in rows for item in row
    )
    for batch, questions in zip(batches, asked, strict=True):
        real = batch.targets.ravel() > 0
        assert real[questions.states].all()
        assert (batch.marks.ravel()[questions.states] == 1).all()


def test_a_mark_at_the_head_of_a_window_looks_at_the_purchase_before_it():
    """A basket of three, cut in two."""
    histories = Histories.from_lists([[1, 2, 3, 4]], baskets=[[0, 1, 1, 1]])
    batches = batches_of(histories, longest=2, tokens=1)
    marks = {b.inputs[0, 0]: b.marks[0].tolist() for b in batches}
    assert marks == {0: [1, 1], 2: [0, 0]}


DAY = 86_400_000_000


def test_a_wait_counts_by_the_root_of_what_can_be_asked_of_it():
    """Waits of 4, 1 and 30 days under a period of 9: of the last only its last 9 days."""
    times = [[0, 4 * DAY, 5 * DAY], [5 * DAY, 5 * DAY, 35 * DAY]]
    baskets = [[0, 1, 2], [0, 0, 1]]
    histories = Histories.from_lists([[1, 2, 3], [4, 5, 6]], times=times, baskets=baskets)
    mean = (2 + 1 + 3) / 3
    windows = cut_into_windows(histories, 5)
    waited = []
    for epoch in range(50):
        (batch,) = epoch_batches(
            histories, windows, tokens=99, seed=0, epoch=epoch, period_days=9.0
        )
        asked = batch.questions()
        by_item = dict(zip((asked.targets + 1).tolist(), asked.weights.tolist(), strict=True))
        # Nobody waits for a first basket: it counts once, each of its items.
        expected = {1: 1, 2: 2 / mean, 3: 1 / mean, 4: 1, 5: 1, 6: 3 / mean}
        assert by_item == pytest.approx(expected)
        waited.append(batch.days[tuple(np.argwhere(batch.targets == 6)[0])])
    assert 21 <= min(waited) < 22
    assert 29 < max(waited) <= 30


def test_without_dates_or_waits_nothing_is_weighed():
    assert Asking.of(Histories.from_lists([[1, 2]]), 10.0) is None
    assert Asking.of(Histories.from_lists([[1], [2]], times=[[DAY], [DAY]]), 10.0) is None
    at_once = Asking.of(Histories.from_lists([[1, 2, 3]], times=[[0, 0, DAY]]), 10.0)
    weights = at_once.weights(np.array([0, DAY // 24, DAY]))
    assert weights[0] == weights[1] == pytest.approx(weights[2] / 24**0.5)


def test_epochs_and_seeds_differ():
    histories = Histories.from_lists([[i % 9 + 1] * 3 for i in range(50)])
    first, second = batches_of(histories), batches_of(histories, epoch=1)
    other = batches_of(histories, seed=1)
    assert [b.targets.tolist() for b in first] != [b.targets.tolist() for b in second]
    assert [b.targets.tolist() for b in first] != [b.targets.tolist() for b in other]


def test_T22_nothing_to_train_on_is_said():
    with pytest.raises(TrainingError, match="2 users, all with empty"):
        batches_of(Histories.from_lists([[], []]))


def test_T22_a_batch_larger_than_the_data_is_the_data():
    (batch,) = batches_of(Histories.from_lists([[1, 2], [3, 4]]), tokens=10_000)
    assert batch.num_targets == 4


@given(item_lists)
def test_shuffled_histories_keep_their_purchases_and_lose_their_order(rows):
    histories = Histories.from_lists(rows)
    windows = cut_into_windows(histories, 20)
    batches = list(
        epoch_batches(histories, windows, tokens=8, seed=0, epoch=0, shuffle_histories=True)
    )
    seen = sorted(sorted(t for t in row if t) for b in batches for row in b.targets.tolist())
    assert seen == sorted(sorted(row) for row in rows if row)


def test_shuffling_histories_changes_their_order():
    histories = Histories.from_lists([list(range(1, 40))])
    windows = cut_into_windows(histories, 50)
    (batch,) = epoch_batches(histories, windows, tokens=50, seed=0, epoch=0, shuffle_histories=True)
    assert batch.targets[0].tolist() != list(range(1, 40))
    assert batch.inputs[0].tolist() == [0, *batch.targets[0, :-1].tolist()]


def test_the_learning_rate_follows_from_the_size_of_the_catalog_unless_it_is_told():
    rates = [TrainingConfig().decided(size).peak_rate for size in (47, 5000, 90_000)]
    assert rates[0] > rates[1] > rates[2]
    assert TrainingConfig(learning_rate=0.5).decided(5000).peak_rate == 0.5
    with pytest.raises(ConfigError, match="not decided"):
        _ = TrainingConfig().peak_rate
