"""Precision and recall of the first offer, as scikit-learn and Keras count them.

Legend: C cases, T targets, L classes. A class is an item that is a target or a first offer; all
targets that the catalog lacks are one more class, which is never offered and so never hit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import PADDING
from nextbuy.metrics.ranking import Float64, Offsets, case_of_target, sum_per_case


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Outcomes:
    """First offers and targets as classes 0..L-1.

    Attributes:
        offered: Class of each case's first offer, length C; -1 where nothing was offered.
        hits: Whether the first offer is a target of its case, length C.
        targets: Class of each target, length T.
        cases: Case of each target, length T.
        num_classes: L.
    """

    offered: NDArray[np.int64]
    hits: NDArray[np.bool_]
    targets: NDArray[np.int64]
    cases: NDArray[np.int64]
    num_classes: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Confusion:
    """What precision and recall need of each class, length L.

    Attributes:
        hits: Times that the class was offered and right.
        offered: Times that it was offered.
        support: Times that it was a target.
    """

    hits: Float64
    offered: Float64
    support: Float64


def outcomes(
    offered: NDArray[np.integer], target_items: NDArray[np.integer], offsets: Offsets
) -> Outcomes:
    """Number the classes.

    Args:
        offered: First offer of each case, item index 1..V, `PADDING` for none; length C.
        target_items: Item index of each target, `UNKNOWN` where the catalog lacks it; length T.
        offsets: Case c has the targets `offsets[c]:offsets[c + 1]`.
    """
    cases = case_of_target(offsets)
    right = target_items == offered[cases]
    real = offered != PADDING
    classes = np.unique(np.concatenate([offered[real], target_items]))
    return Outcomes(
        offered=np.where(real, np.searchsorted(classes, offered), -1),
        hits=sum_per_case(right, offsets) > 0,
        targets=np.searchsorted(classes, target_items).astype(np.int64),
        cases=cases,
        num_classes=len(classes),
    )


def confusion(found: Outcomes, weights: Float64 | None = None) -> Confusion:
    """Count, each case `weights[c]` times (once by default)."""
    weights = np.ones(len(found.offered)) if weights is None else weights
    real = found.offered >= 0
    offered, given = found.offered[real], weights[real]
    return Confusion(
        hits=_count(offered, given * found.hits[real], found.num_classes),
        offered=_count(offered, given, found.num_classes),
        support=_count(found.targets, weights[found.cases], found.num_classes),
    )


def _count(classes: NDArray[np.int64], weights: Float64, num_classes: int) -> Float64:
    return np.bincount(classes, weights, num_classes).astype(np.float64)


def macro_precision(counts: Confusion) -> float:
    """Mean over classes of hits / offered; a class that was never offered counts as 0.

    With one target a case this is `precision_score(average="macro", zero_division=0)` of
    scikit-learn; with several its multilabel form, where the prediction is the one first offer.
    `nan` without any class.
    """
    return _macro(counts.hits, counts.offered, counts)


def macro_recall(counts: Confusion) -> float:
    """Mean over classes of hits / support; a class that was never a target counts as 0."""
    return _macro(counts.hits, counts.support, counts)


def weighted_precision(counts: Confusion) -> float:
    """As `macro_precision`, each class weighted by its support; `nan` without targets."""
    total = counts.support.sum()
    ratios = counts.support * counts.hits / np.where(counts.offered > 0, counts.offered, 1.0)
    return float(ratios.sum() / total) if total > 0 else float("nan")


def weighted_recall(counts: Confusion) -> float:
    """As `macro_recall`, each class weighted by its support: sum of hits / number of targets."""
    total = counts.support.sum()
    return float(counts.hits.sum() / total) if total > 0 else float("nan")


def _macro(hits: Float64, out_of: Float64, counts: Confusion) -> float:
    present = (counts.offered > 0) | (counts.support > 0)
    if not present.any():
        return float("nan")
    return float((hits / np.where(out_of > 0, out_of, 1.0))[present].mean())


def thresholded(
    found: Outcomes, confidence: NDArray[np.floating], threshold: float = 0.5
) -> tuple[Float64, Float64, Float64]:
    """What precision and recall over all outputs above a threshold count, one value a case.

    Keras' `Precision()` and `Recall()` on one-hot targets compare each of the C x V outputs with
    0.5. From a threshold of 0.5 on only the first offer can lie above it, so it is enough to look
    there. Precision is sum(hits) / sum(offered), recall is sum(hits) / sum(targets).

    Args:
        found: Offers and targets.
        confidence: Probability of each first offer, length C.
        threshold: Not below 0.5; an output exactly at it is not above it, as in Keras.

    Returns:
        Hits above the threshold, offers above it, and number of targets, each of length C.
    """
    if threshold < 0.5:
        raise ValueError(f"Below 0.5 several outputs can lie above the threshold {threshold}.")
    above = (confidence > threshold) & (found.offered >= 0)
    targets = np.bincount(found.cases, minlength=len(found.offered)).astype(np.float64)
    return (above & found.hits).astype(np.float64), above.astype(np.float64), targets


def ratios(numerators: Float64, denominators: Float64) -> Float64:
    """Numerators / denominators, `nan` for nothing out of nothing."""
    return numerators / np.where(denominators > 0, denominators, np.nan)
