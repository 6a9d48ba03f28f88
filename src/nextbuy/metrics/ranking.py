"""Where the targets stand: hit rate, recall, NDCG, reciprocal rank, revenue, coverage.

Legend: C cases, T targets. Case c has the targets `offsets[c]:offsets[c + 1]` of the flat arrays;
`ranks[t]` is 1 for the item that was offered first, `MISSED` for one that was not ranked. Every
function gives one value a case, `nan` where the case has nothing to find; `mean` averages the rest.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Ranks = NDArray[np.int64]
Offsets = NDArray[np.int64]

MISSED: Final = 2**62
"""Rank of a target that no list contains: the catalog lacks it, or the policy excludes it."""


def mean(values: Float64, sizes: Float64 | None = None) -> float:
    """The mean of the values that are not `nan`, each counting by its size; `nan` if none are."""
    is_there = ~np.isnan(values)
    if sizes is not None:
        is_there &= sizes > 0
    if not is_there.any():
        return float("nan")
    weights = None if sizes is None else sizes[is_there]
    return float(np.average(values[is_there], weights=weights))


def case_of_target(offsets: Offsets) -> NDArray[np.int64]:
    """The case of each target, length T."""
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))


def sum_per_case(values: NDArray[np.generic], offsets: Offsets) -> Float64:
    """The sum of each case's values, 0 for a case without any."""
    sums = np.bincount(case_of_target(offsets), weights=values, minlength=len(offsets) - 1)
    return sums.astype(np.float64)


def hit_rate(ranks: Ranks, offsets: Offsets, k: int) -> Float64:
    """1 if any target is in the first k, else 0. At k = 1 this is the accuracy."""
    return np.minimum(sum_per_case(ranks <= k, offsets), 1.0) + _nothing_to_find(offsets)


def recall(ranks: Ranks, offsets: Offsets, k: int) -> Float64:
    """|targets in the first k| / |targets|."""
    counts = np.maximum(np.diff(offsets), 1)
    shares = sum_per_case(ranks <= k, offsets) / counts.astype(np.float64)
    return shares + _nothing_to_find(offsets)


def ndcg(ranks: Ranks, offsets: Offsets, k: int) -> Float64:
    """DCG / ideal DCG, with gain 1 for a target and discount log2(1 + rank).

    DCG = sum over targets with rank <= k of 1 / log2(1 + rank); the ideal has the targets at the
    ranks 1, 2, ..., min(k, |targets|). Järvelin and Kekäläinen, 2002, with binary gains.
    """
    gains = np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)
    ideal: Float64 = np.concatenate([[1.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    counts = np.minimum(np.diff(offsets), k)
    return sum_per_case(gains, offsets) / ideal[counts] + _nothing_to_find(offsets)


def reciprocal_rank(ranks: Ranks, offsets: Offsets, k: int) -> Float64:
    """1 / rank of the best target, 0 if none is in the first k. The mean over cases is MRR@k."""
    best = np.full(len(offsets) - 1, MISSED, dtype=np.int64)
    np.minimum.at(best, case_of_target(offsets), ranks)
    return np.where(best <= k, 1.0 / best, 0.0) + _nothing_to_find(offsets)


def revenue(values: NDArray[np.floating], ranks: Ranks, offsets: Offsets, k: int) -> Float64:
    """Money of the targets in the first k, in the currency of the log.

    Targets of unknown value (`nan`) are left out; a case with no other is `nan`.
    """
    known = ~np.isnan(values)
    earned = sum_per_case(np.where(known & (ranks <= k), values, 0.0), offsets)
    return np.where(sum_per_case(known, offsets) > 0, earned, np.nan)


def gains(ranks: Ranks, num_items: int) -> dict[int, float]:
    """Share of all targets that are among the first k offers, for k = 1, 2, 5, 10, 20, .. up to V.

    A target that the catalog lacks is in no list. Empty without targets.

    Args:
        ranks: From 1, `MISSED` where there is none.
        num_items: V.
    """
    if len(ranks) == 0:
        return {}
    steps = [m * 10**e for e in range(10) for m in (1, 2, 5) if m * 10**e < num_items]
    return {k: float((ranks <= k).mean()) for k in [*steps, num_items]}


def coverage(top_items: NDArray[np.integer], num_items: int) -> float:
    """Share of the catalog that is offered to anybody; `nan` for an empty catalog.

    Args:
        top_items: Offered item indices 1..V, any shape; 0 offers nothing.
        num_items: V.
    """
    offered = np.unique(top_items)
    return float((offered > 0).sum() / num_items) if num_items else float("nan")


def _nothing_to_find(offsets: Offsets) -> Float64:
    """`nan` for a case without targets, else 0: added to a value it marks the case."""
    return np.where(np.diff(offsets) > 0, 0.0, np.nan)
