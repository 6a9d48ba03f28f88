"""Where the vectors of items start: what is bought near each other lies near each other.

How often two items are bought near each other tells most of what a network first has to learn
about them, and tells it in one pass. With C_ij the co-purchases, pairs of i and j at most five
purchases apart in one history, each counting one over the distance, and C_i their sum, strengths
are

    M_ij = max(0, log(C_ij sum_k C_k^.75 / (C_i C_j)^.875)),

positive pointwise mutual information with smoothed contexts (Levy, Goldberg and Dagan 2015), made
symmetric. With M = U S U' the vectors are U |S|^.5 for the strongest S, turned by a rotation that
is drawn, so that no coordinate carries more than others. U and S are found in a random subspace
that M was applied to some times (Halko, Martinsson and Tropp 2011).

Legend: V items, D width.
"""

from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
from scipy import sparse

from nextbuy.data.histories import Float32, Histories
from nextbuy.nn.network import Weights
from nextbuy.seeding import generator
from nextbuy.threads import in_threads, num_cores

Csr: TypeAlias = "sparse.csr_array"

_APART: Final = 5
_SMOOTHED: Final = 0.75
_MORE: Final = 8
_PASSES: Final = 8
_BLOCK: Final = 2**20
"""Users of so many purchases, about, are counted at a time."""

_MOST_PURCHASES: Final = 2**21
"""Of longer logs every second, third, ... user is counted: more say the same again."""


def spectral_vectors(histories: Histories, num_items: int, width: int, *, seed: int) -> Float32:
    """Vectors of items from what was bought near each other.

    Args:
        histories: What to learn from.
        num_items: V.
        width: D.
        seed: Of the run; names the streams of the subspace and the rotation.

    Returns:
        Shape [V + 1, D]; the mean square of all numbers of items that have neighbours is 1, all
        other items and padding are 0.
    """
    strengths = _strengths(_co_purchases(histories, num_items))
    factors = _factors(strengths, min(width, num_items), generator(seed, "spectral subspace"))
    rotation, _ = np.linalg.qr(generator(seed, "spectral rotation").normal(size=(width, width)))
    vectors: Float32 = factors @ rotation[: factors.shape[1]].astype(np.float32)
    has_neighbours = np.diff(strengths.indptr) > 0
    vectors[~has_neighbours] = 0.0
    mean_square = np.square(vectors).sum() / max(1, width * has_neighbours.sum())
    if mean_square > 0:
        vectors /= np.sqrt(mean_square, dtype=np.float32)
    return vectors


def with_spectral_items(weights: Weights, histories: Histories, *, seed: int) -> Weights:
    """The same weights, with rows of `embedding.weight` from `spectral_vectors`.

    They scatter as widely as the rows that were drawn, which items without neighbours keep.
    """
    drawn = weights["embedding.weight"]
    found = spectral_vectors(histories, len(drawn) - 1, drawn.shape[1], seed=seed)
    has_neighbours = (found != 0).any(axis=1)
    drawn = np.where(has_neighbours[:, None], found * drawn.std(), drawn)
    return weights | {"embedding.weight": drawn}


def _co_purchases(histories: Histories, num_items: int) -> Csr:
    """C, [V + 1, V + 1], symmetric."""
    every = -(-max(1, histories.num_purchases) // _MOST_PURCHASES)
    users = np.arange(0, len(histories), every)
    shape = (num_items + 1, num_items + 1)
    total = sparse.csr_array(shape, dtype=np.float32)
    sizes = np.cumsum(histories.lengths[users])
    edges = np.searchsorted(sizes, np.arange(_BLOCK, sizes[-1] if len(sizes) else 0, _BLOCK))
    for part in np.split(users, edges):
        some = histories.take(part)
        items, owners = some.items.astype(np.int64), some.owners
        for apart in range(1, _APART + 1):
            same = owners[apart:] == owners[:-apart]
            pair = items[:-apart][same], items[apart:][same]
            counts = np.full(len(pair[0]), 1.0 / apart, dtype=np.float32)
            total = total + sparse.coo_array((counts, pair), shape).tocsr()
    return (total + total.T).tocsr()


def _strengths(pairs: Csr) -> Csr:
    """M, of the same shape, without what is 0."""
    sums = np.asarray(pairs.sum(axis=1), dtype=np.float64)
    share = ((1 + _SMOOTHED) / 2 * np.log(np.maximum(sums, 1e-300))).astype(np.float32)
    found = pairs.tocoo()
    rows, columns = found.coords
    whole = max(float(np.power(sums, _SMOOTHED).sum()), 1e-300)
    strengths = np.log(found.data) + np.float32(np.log(whole))
    strengths -= share[rows]
    strengths -= share[columns]
    kept = strengths > 0
    places = rows[kept], columns[kept]
    matrix = sparse.coo_array((strengths[kept].astype(np.float32), places), pairs.shape)
    return matrix.tocsr()


def _factors(matrix: Csr, width: int, rng: np.random.Generator) -> Float32:
    """U |S|^.5 for the `width` strongest, [V + 1, `width`]."""
    size = min(width + _MORE, matrix.shape[0])
    basis = rng.normal(size=(matrix.shape[0], size)).astype(np.float32)
    for _ in range(_PASSES):
        basis, _ = np.linalg.qr(_product(matrix, basis))
    values, turned = np.linalg.eigh(basis.T @ _product(matrix, basis))
    strongest = np.argsort(-np.abs(values))[:width]
    found: Float32 = basis @ turned[:, strongest] * np.sqrt(np.abs(values[strongest]))
    return found


def _product(matrix: Csr, table: Float32) -> Float32:
    """matrix @ table, rows of it on each core."""
    edges = np.linspace(0, matrix.shape[0], 4 * num_cores() + 1).astype(np.int64)
    parts = in_threads(
        lambda rows: matrix[rows[0] : rows[1]] @ table,
        list(pairwise(edges)),
    )
    return np.concatenate(parts)
