"""Where vectors of items start: like items near each other, whatever the rest of the log."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy.data.histories import Histories
from nextbuy.nn import spectral
from nextbuy.nn.spectral import spectral_vectors, with_spectral_items


def likeness(vectors, one, other):
    """The cosine of two vectors."""
    a, b = vectors[one], vectors[other]
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def two_kinds(num_users=60, seed=0):
    """Users buy from 1..6 or from 7..12, never from both."""
    rng = np.random.default_rng(seed)
    rows = [(rng.permutation(6)[:4] + 1 + 6 * (u % 2)).tolist() for u in range(num_users)]
    return Histories.from_lists(rows)


def test_what_is_bought_together_lies_together():
    vectors = spectral_vectors(two_kinds(), 12, 2, seed=0)
    within = [likeness(vectors, i, j) for i in range(1, 7) for j in range(i + 1, 7)]
    across = [likeness(vectors, i, j) for i in range(1, 7) for j in range(7, 13)]
    assert min(within) > 0.9
    assert max(across) < 0.1


def test_strengths_are_those_that_a_hand_computes():
    """1 and 2 are neighbours three times, 1 and 3 once at a distance of two."""
    pairs = spectral._co_purchases(Histories.from_lists([[1, 2, 3], [2, 1], [1, 2]]), 3)
    counts = np.array([[0, 3, 0.5], [3, 0, 1], [0.5, 1, 0]])
    np.testing.assert_allclose(pairs.toarray()[1:, 1:], counts)
    sums = counts.sum(axis=1)
    expected = np.log(
        np.maximum(counts, 1e-99) * (sums**0.75).sum() / np.outer(sums, sums) ** 0.875
    )
    found = spectral._strengths(pairs).toarray()[1:, 1:]
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-5)


def test_the_factors_are_those_of_a_whole_decomposition():
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 41, size=8).tolist() for _ in range(200)]
    matrix = spectral._strengths(spectral._co_purchases(Histories.from_lists(rows), 40))
    found = spectral._factors(matrix, 41, np.random.default_rng(1))
    values, turned = np.linalg.eigh(matrix.toarray().astype(np.float64))
    expected = turned * np.abs(values) @ turned.T
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-4)


def test_items_without_neighbours_keep_what_was_drawn():
    drawn = np.random.default_rng(0).normal(0, 0.02, (15, 4)).astype(np.float32)
    weights = {"embedding.weight": drawn, "bias": np.zeros(14, np.float32)}
    found = with_spectral_items(weights, two_kinds(), seed=0)
    rows = found["embedding.weight"]
    np.testing.assert_array_equal(rows[[0, 13, 14]], drawn[[0, 13, 14]])
    assert np.square(rows[1:13]).mean() ** 0.5 == pytest.approx(drawn.std(), rel=1e-3)
    assert found["bias"] is weights["bias"]
    assert rows.dtype == np.float32


def test_the_seed_turns_the_vectors_and_changes_no_likeness():
    first, again, other = (spectral_vectors(two_kinds(), 12, 12, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    np.testing.assert_allclose(first @ first.T, other @ other.T, atol=1e-3)


def test_of_a_long_log_some_users_are_counted_and_blocks_change_nothing(monkeypatch):
    histories = two_kinds(40)
    whole = spectral._co_purchases(histories, 12).toarray()
    monkeypatch.setattr(spectral, "_BLOCK", 7)
    np.testing.assert_allclose(spectral._co_purchases(histories, 12).toarray(), whole, rtol=1e-6)
    monkeypatch.setattr(spectral, "_MOST_PURCHASES", 80)
    every_second = spectral._co_purchases(histories, 12).toarray()
    first = [slice(0, 7), slice(7, 13)]  # what users of the first kind buy, and of the second
    np.testing.assert_allclose(
        every_second[first[0], first[0]], whole[first[0], first[0]], rtol=1e-6
    )
    assert not every_second[first[1], first[1]].any()


@given(rows=st.lists(st.lists(st.integers(1, 5), max_size=6), max_size=6), width=st.integers(1, 9))
def test_whatever_was_bought_the_vectors_are_finite(rows, width):
    vectors = spectral_vectors(Histories.from_lists(rows), 5, width, seed=0)
    assert vectors.shape == (6, width)
    assert np.isfinite(vectors).all()
    assert not vectors[0].any()
