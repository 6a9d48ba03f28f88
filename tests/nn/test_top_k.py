"""The best items of large catalogs against a stable sort of all scores."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy.nn import top_k, top_k_on_cpu
from nextbuy.nn.top_k import top_items, top_items_and_totals


@contextmanager
def small_blocks():
    """Blocks of about 30 items, three states at once, rows converted four at a time."""
    sizes = {"_MOST_STATES": 3, "_FEWEST_ITEMS": 24, "_BLOCK_SCORES": 30, "_CONVERTED": 20}
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(top_k, name, size)
        for name, size in {"_MOST_STATES": 3, "_SLAB_SCORES": 60, "_PIECE_SCORES": 20}.items():
            patch.setattr(top_k_on_cpu, name, size)
        yield


def by_sorting(scores_MV, k, excluded=()):
    """Items and scores after a stable sort of each row; what cannot be had is -1."""
    scores_MV = torch.as_tensor(scores_MV).numpy().astype(np.float64)
    for owner, item in excluded:
        scores_MV[owner, item] = -np.inf
    items = np.argsort(-scores_MV, axis=1, kind="stable")[:, :k]
    scores = np.take_along_axis(scores_MV, items, axis=1)
    return np.where(scores == -np.inf, -1, items), scores


def whole_numbers(seed, *shape, most=2):
    """Sums of their products are exact in any order, and many are equal."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-most, most + 1, shape)).float()


def assert_same(found, expected):
    np.testing.assert_array_equal(found[0].numpy(), expected[0])
    np.testing.assert_array_equal(found[1].numpy(), expected[1])


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 9999), num_states=st.integers(0, 8), num_items=st.integers(1, 200),
    k=st.integers(1, 220), dtype=st.sampled_from([torch.float32, torch.float16]),
    with_bias=st.booleans(), data=st.data(),
)  # fmt: skip
def test_the_best_items_are_those_of_a_stable_sort(
    seed, num_states, num_items, k, dtype, with_bias, data
):
    states, table = whole_numbers(seed, num_states, 5), whole_numbers(seed + 1, num_items, 5)
    bias = whole_numbers(seed + 2, num_items) if with_bias else None
    pair = st.tuples(st.integers(0, max(0, num_states - 1)), st.integers(0, num_items - 1))
    pairs = data.draw(st.lists(pair, max_size=60)) if num_states else []
    excluded = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(1)
    with small_blocks():
        found = top_items(states, table.to(dtype), k, bias_V=bias, excluded=excluded)
    scores = states @ table.T + (0 if bias is None else bias)
    assert_same(found, by_sorting(scores, k, pairs))


@settings(deadline=None, max_examples=100)
@given(
    scores=st.lists(st.floats(width=32, allow_nan=False, allow_subnormal=False), min_size=1),
    k=st.integers(1, 40), num_states=st.integers(1, 2),
)  # fmt: skip
def test_scores_of_any_size_keep_their_order_and_their_bits(scores, k, num_states):
    states, table = torch.ones(num_states, 1), torch.tensor(scores)[:, None]
    with small_blocks():
        found = top_items(states, table, k)
    assert_same(found, by_sorting([scores] * num_states, k))


@pytest.mark.parametrize("order", ["as drawn", "best last", "all equal"])
@pytest.mark.parametrize(("num_states", "k"), [(1, 100), (40, 100), (3, 7000)])
def test_blocks_of_the_usual_size_lose_nothing(order, num_states, k):
    states, table = whole_numbers(0, num_states, 16, most=9), whole_numbers(1, 40_000, 16, most=9)
    if order == "best last":
        table = table[(table @ states[0]).argsort()]
    elif order == "all equal":
        states = torch.zeros_like(states)
    assert_same(top_items(states, table, k), by_sorting(states @ table.T, k))


def test_of_equal_scores_the_lower_item_wins():
    states, table = torch.tensor([[1.0]]), torch.tensor([[0.0], [2.0], [-0.0], [2.0], [0.0]])
    items, scores = top_items(states, table, 4)
    assert items.tolist() == [[1, 3, 0, 2]]
    assert scores.tolist() == [[2.0, 2.0, 0.0, 0.0]]


def test_a_negative_product_that_rounds_to_zero_is_zero():
    states, table = torch.full((2, 1), 1e-30), torch.tensor([[-1e-30], [1e-30]])
    assert top_items(states, table, 2)[0].tolist() == [[0, 1], [0, 1]]


def test_excluded_items_leave_their_places_to_others_and_the_last_places_empty():
    states, table = torch.ones(2, 1), torch.tensor([[3.0], [2.0], [1.0]])
    excluded = torch.tensor([0, 1, 1, 1, 1]), torch.tensor([0, 2, 0, 1, 1])
    items, scores = top_items(states, table, 3, excluded=excluded)
    assert items.tolist() == [[1, 2, -1], [-1, -1, -1]]
    assert scores.tolist() == [[2.0, 1.0, -torch.inf], [-torch.inf] * 3]


def test_an_item_of_minus_infinity_is_not_offered():
    bias = torch.tensor([0.0, -torch.inf, 5.0])
    items, _ = top_items(torch.ones(1, 2), torch.ones(3, 2), 3, bias_V=bias)
    assert items.tolist() == [[2, 0, -1]]


def test_a_table_of_16_bits_is_not_summed_in_16_bits():
    items, scores = top_items(torch.ones(1, 2), torch.tensor([[2048.0, 1.0]]).half(), 1)
    assert items.tolist() == [[0]]
    assert scores.tolist() == [[2049.0]]  # 16 bits have no 2049


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 9999), num_states=st.integers(0, 8), num_items=st.integers(1, 200),
    k=st.integers(1, 220), scale=st.sampled_from([1.0, 60.0]), with_bias=st.booleans(),
    data=st.data(),
)  # fmt: skip
def test_totals_are_the_logs_of_sums_over_what_is_not_excluded(
    seed, num_states, num_items, k, scale, with_bias, data
):
    states, table = scale * whole_numbers(seed, num_states, 5), whole_numbers(seed, num_items, 5)
    bias = whole_numbers(seed + 2, num_items) if with_bias else None
    pair = st.tuples(st.integers(0, max(0, num_states - 1)), st.integers(0, num_items - 1))
    pairs = data.draw(st.lists(pair, max_size=60)) if num_states else []
    excluded = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(1)
    with small_blocks():
        items, scores, totals = top_items_and_totals(
            states, table, k, bias_V=bias, excluded=excluded
        )
    whole = (states @ table.T + (0 if bias is None else bias)).double()
    expected = by_sorting(whole, k, pairs)
    whole[excluded] = -torch.inf
    torch.testing.assert_close(totals, whole.logsumexp(1), rtol=1e-6, atol=1e-6)
    assert_same((items, scores), expected)


@pytest.mark.parametrize("order", ["as drawn", "best last", "all equal"])
@pytest.mark.parametrize(("num_states", "k"), [(2, 100), (40, 100), (200, 10), (3, 7000)])
def test_slabs_of_the_usual_size_lose_nothing(order, num_states, k):
    states, table = whole_numbers(0, num_states, 16, most=9), whole_numbers(1, 40_000, 16, most=9)
    if order == "best last":
        table = table[(table @ states[0]).argsort()]
    elif order == "all equal":
        states = torch.zeros_like(states)
    items, scores, totals = top_items_and_totals(states, table, k)
    assert_same((items, scores), by_sorting(states @ table.T, k))
    torch.testing.assert_close(totals, (states @ table.T).double().logsumexp(1))


def test_where_everything_is_excluded_the_total_is_that_of_nothing():
    table, excluded = torch.ones(2, 1), (torch.tensor([0, 0]), torch.tensor([0, 1]))
    _, _, totals = top_items_and_totals(torch.ones(2, 1), table, 1, excluded=excluded)
    assert totals.tolist() == [-torch.inf, pytest.approx(1 + np.log(2))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_one_state_finds_what_sorting_finds_beyond_whole_blocks(dtype, monkeypatch):
    monkeypatch.setattr(top_k, "_BLOCK_SCORES", 2**14)
    state, table = whole_numbers(0, 1, 16, most=9), whole_numbers(1, 40_001, 16, most=9)
    assert_same(top_items(state, table.to(dtype), 100), by_sorting(state @ table.T, 100))
