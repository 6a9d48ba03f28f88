"""Does what is said to happen with 30 % happen in 30 % of the cases?

A model answers with the probabilities of the next purchase. Where the answer is a basket of n
items, the next purchase is any one of them, and a right offer came true as one n-th: so the shares
that came true sum to 1 over the items, as the probabilities do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextbuy.metrics.ranking import Float64

NUM_BINS = 15


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reliability:
    """Confidence and accuracy of the first offer, bin by bin; bin b is (b / B, (b + 1) / B].

    Attributes:
        counts: Cases in each bin, length B.
        confidence: Mean probability of the first offer, `nan` in an empty bin.
        accuracy: Mean share of the targets that the first offer was, `nan` in an empty bin. With
            one target a case it is the share of first offers that were right.
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


def confidence_bins(
    confidence: NDArray[np.floating], num_bins: int = NUM_BINS
) -> NDArray[np.int64]:
    """Bin 0..B-1 of each confidence; a confidence of 0 is in the first."""
    upper = np.ceil(confidence.astype(np.float64) * num_bins).astype(np.int64) - 1
    return np.clip(upper, 0, num_bins - 1)


def reliability(
    confidence: NDArray[np.floating], shares: NDArray[np.generic], num_bins: int = NUM_BINS
) -> Reliability:
    """Sort cases into equal-width bins by confidence.

    Args:
        confidence: Probability of each case's first offer, in [0, 1], length C.
        shares: The share of the case's targets that it was, in [0, 1], length C.
        num_bins: B.
    """
    bins = confidence_bins(confidence, num_bins)
    counts = np.bincount(bins, minlength=num_bins).astype(np.float64)
    filled = np.where(counts > 0, counts, np.nan)
    return Reliability(
        counts=counts,
        confidence=np.bincount(bins, confidence, num_bins) / filled,
        accuracy=np.bincount(bins, shares, num_bins) / filled,
    )
