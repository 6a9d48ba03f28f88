"""How far a score could move with other cases: bootstrap percentile intervals.

Legend: C cases, B resamples, M statistics. A resample draws C cases with replacement; it is held as
a weight a case (how often it was drawn), so that a statistic is computed from sums.
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nextbuy.metrics.ranking import Float64

NUM_RESAMPLES: Final = 1_000
LEVEL: Final = 0.95

_BYTES: Final = 2**25


def resamples(num_cases: int, num_resamples: int, rng: np.random.Generator) -> Iterator[Float64]:
    """Weights of B resamples in chunks of shape [b, C]; each row sums to C."""
    rows = max(1, min(num_resamples, _BYTES // (8 * max(num_cases, 1))))
    for start in range(0, num_resamples, rows):
        size = min(rows, num_resamples - start)
        drawn = rng.integers(0, num_cases, size=(size, num_cases), dtype=np.int64)
        drawn += np.arange(size)[:, None] * num_cases
        counts = np.bincount(drawn.ravel(), minlength=size * num_cases)
        yield counts.reshape(size, num_cases).astype(np.float64)


def weighted_means(
    weights: Float64, values: Float64, sizes: Mapping[int, Float64] | None = None
) -> Float64:
    """Mean of each column of `values` under each resample.

    Args:
        weights: How often each case was drawn, shape [b, C].
        values: Shape [C, M]. A case that is `nan` in a column is left out of that column.
        sizes: How much each case counts, length C, by column; in other columns each counts once.

    Returns:
        Shape [b, M]. A column with nothing left is `nan`, one with an infinite value that was drawn
        is infinite.
    """
    missing, infinite = np.isnan(values), np.isinf(values)
    filled = np.where(missing | infinite, 0.0, values)
    counts = np.repeat(weights.sum(axis=1)[:, None], values.shape[1], axis=1)
    gaps = missing.any(axis=0)
    if gaps.any():
        counts[:, gaps] -= weights @ missing[:, gaps].astype(np.float64)
    for column, size in (sizes or {}).items():
        filled[:, column] *= size
        counts[:, column] = weights @ np.where(missing[:, column], 0.0, size)
    means = (weights @ filled) / np.where(counts > 0.5, counts, np.nan)
    broken = infinite.any(axis=0)
    if broken.any():
        drawn = weights @ infinite[:, broken].astype(np.float64) > 0
        means[:, broken] = np.where(drawn, np.inf, means[:, broken])
    return means


def percentile_interval(samples: NDArray[np.floating], level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of the samples; `nan` samples are left out.

    Args:
        samples: One value of a statistic a resample.
        level: Share of the samples inside, such as 0.95.

    Returns:
        Low and high end; `(nan, nan)` if no sample is a number.
    """
    found = np.sort(samples[~np.isnan(samples)])
    if not len(found):
        return float("nan"), float("nan")
    if np.isinf(found[-1]):  # interpolation between a number and infinity is nan
        low, high = (found[round(q * (len(found) - 1))] for q in ((1 - level) / 2, (1 + level) / 2))
    else:
        low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
