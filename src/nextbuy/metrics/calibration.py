"""Does what is said to happen with 30 % happen in 30 % of the purchases?

A model answers with the probabilities of the next purchase. Where the answer is a basket of n
items, it was asked n times: a first offer that is in the basket was right once and wrong n - 1
times. So the shares that came true sum to 1 over the items, as the probabilities do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextbuy.metrics.ranking import Float64

NUM_BINS = 15


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reliability:
    """Confidence and accuracy of the first offer, bin by bin; bin b is (b / B, (b + 1) / B].

    Attributes:
        counts: Purchases in each bin, length B.
        confidence: Mean probability of the first offer, `nan` in an empty bin.
        accuracy: Share of the purchases that the first offer named, `nan` in an empty bin.
    """

    counts: Float64
    confidence: Float64
    accuracy: Float64

    @property
    def ece(self) -> float:
        """Expected calibration error: sum over bins of n_b / n * |accuracy_b - confidence_b|.

        Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, 2017, equation 5.
        `nan` without cases.
        """
        filled = self.counts > 0
        if not filled.any():
            return float("nan")
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((self.counts[filled] * gaps).sum() / self.counts.sum())

    @classmethod
    def of(cls, found: Mapping[str, Sequence[float | None]]) -> "Reliability":
        """What `as_dict` gave, of which JSON keeps `nan` as null."""
        named = {
            name: np.array([np.nan if value is None else value for value in found[name]])
            for name in ("counts", "confidence", "accuracy")
        }
        return cls(**named)

    def as_dict(self) -> dict[str, list[float]]:
        """Plain lists, for JSON."""
        return {
            "counts": self.counts.tolist(),
            "confidence": self.confidence.tolist(),
            "accuracy": self.accuracy.tolist(),
        }


def confidence_bins(
    confidence: NDArray[np.floating], num_bins: int = NUM_BINS
) -> NDArray[np.int64]:
    """Bin 0..B-1 of each confidence; a confidence of 0 is in the first."""
    upper = np.ceil(confidence.astype(np.float64) * num_bins).astype(np.int64) - 1
    return np.clip(upper, 0, num_bins - 1)


def reliability(
    confidence: NDArray[np.floating],
    right: NDArray[np.generic],
    num_purchases: Float64 | None = None,
    num_bins: int = NUM_BINS,
) -> Reliability:
    """Sort purchases into equal-width bins by confidence.

    Args:
        confidence: Probability of each case's first offer, in [0, 1], length C.
        right: How many of the case's purchases it named, length C.
        num_purchases: How many there were, length C; None is one each.
        num_bins: B.
    """
    n = np.ones(len(confidence)) if num_purchases is None else num_purchases
    bins = confidence_bins(confidence, num_bins)
    counts = np.bincount(bins, n, num_bins).astype(np.float64)
    filled = np.where(counts > 0, counts, np.nan)
    return Reliability(
        counts=counts,
        confidence=np.bincount(bins, n * confidence, num_bins) / filled,
        accuracy=np.bincount(bins, right, num_bins) / filled,
    )


def ece_by_chance(
    confidence: NDArray[np.floating],
    num_purchases: Float64 | None = None,
    num_bins: int = NUM_BINS,
) -> float:
    """The calibration error that is to be expected where every probability is right.

    A bin of few cases misses its mean by luck, and the error adds up what bins miss, whatever the
    sign; so that of a finite test is never 0. The n_c purchases of case c name its first offer, of
    probability p_c, once or not at all: m_c = min(n_c p_c, 1) times on average. Their sum in bin b
    is near normal, so that the expected error is

        sum over bins of sqrt(2 / pi * sum over c in b of m_c (1 - m_c)) / sum over c of n_c

    Args:
        confidence: As in `reliability`, p_c, length C.
        num_purchases: As in `reliability`, n_c.
        num_bins: B.

    Returns:
        The error; `nan` without cases.
    """
    n = np.ones(len(confidence)) if num_purchases is None else num_purchases
    if not n.sum():
        return float("nan")
    named = np.minimum(n * confidence, 1.0)
    variances = np.bincount(confidence_bins(confidence, num_bins), named * (1 - named), num_bins)
    return float(np.sqrt(2 / np.pi * variances).sum() / n.sum())
