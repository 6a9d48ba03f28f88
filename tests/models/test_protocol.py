"""The best k of a row against sorting it, and the options of a run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy.errors import ConfigError
from nextbuy.models.protocol import FitOptions, top_k

scores = st.sampled_from([-np.inf, -3.0, -1.5, -1.5000001, 0.0])
rows = st.integers(1, 7).flatmap(
    lambda width: st.lists(st.lists(scores, min_size=width, max_size=width), max_size=4).map(
        lambda found: np.array(found, dtype=np.float32).reshape(-1, width)
    )
)


@given(rows, st.integers(1, 9))
def test_the_best_k_are_those_of_a_full_sort_with_ties_by_index(values, k):
    padded = np.hstack([np.full((len(values), 1), 9.0, np.float32), values])  # padding never wins
    items, best = top_k(padded, k)
    for row in range(len(values)):
        order = sorted(range(1, padded.shape[1]), key=lambda i: (-padded[row, i], i))[:k]
        assert items[row].tolist() == order
        assert best[row].tolist() == padded[row, order].tolist()
    assert items.shape == best.shape == (len(values), min(k, values.shape[1]))


@pytest.mark.parametrize("epochs", [0, -1])
def test_less_than_one_epoch_is_refused_before_anything_is_trained(epochs):
    with pytest.raises(ConfigError, match=f"at least 1 epoch, {epochs}"):
        FitOptions(epochs=epochs)
