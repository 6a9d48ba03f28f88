"""The clocks of own items at a moment: how long their gaps are, and how much of one has elapsed.

A gap is log-normal, and after each purchase the user may be through with the item, so that

    P(not bought again within t days) = (s + (1 - s) S(e + t)) / (s + (1 - s) S(e))

with the share s of items that are never bought again, the survival S of gaps, and e days elapsed.

Legend: P pairs of a user and an own item, H horizons, Q probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtr, ndtri, ndtri_exp

from nextbuy.timing.item_gaps import Float64, ItemGaps


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ItemClocks:
    """One clock a pair, in the order of `gaps`.

    Attributes:
        gaps: What was seen of each pair.
        means: Of the log of the next gap in days.
        sds: Of the same: how gaps scatter, and how little is known.
        stops: Expected share of such items that are never bought again.
    """

    gaps: ItemGaps
    means: Float64
    sds: Float64
    stops: Float64

    def typical_days(self) -> Float64:
        """Half of the gaps are shorter, [P]."""
        return np.exp(self.means)

    def gap_days(self, probabilities: Sequence[float]) -> Float64:
        """Days within which a gap has ended with given probabilities, [P, Q]."""
        places_Q = np.asarray(ndtri(np.asarray(probabilities, dtype=np.float64)))
        return np.asarray(np.exp(self.means[:, None] + self.sds[:, None] * places_Q))

    def p_due(self) -> Float64:
        """Share of the gaps that would have ended by now, [P]."""
        return np.asarray(ndtr(self._places(self.gaps.elapsed)))

    def days_until(self, probabilities: Sequence[float]) -> Float64:
        """Days from now by which an item that is bought again has been, [P, Q]: quantiles given
        what has elapsed, never below 0."""
        log_open_P1 = log_ndtr(-self._places(self.gaps.elapsed))[:, None]
        places_PQ = -ndtri_exp(log_open_P1 + np.log1p(-np.asarray(probabilities)))
        ends_PQ = np.exp(self.means[:, None] + self.sds[:, None] * places_PQ)
        return np.asarray(np.maximum(ends_PQ - self.gaps.elapsed[:, None], 0.0))

    def probability_within(self, days: ArrayLike) -> Float64:
        """P(the item is bought again within `days` from now), [P, H]; days are [H] or [P, H]."""
        ends_PH = self.gaps.elapsed[:, None] + np.atleast_1d(np.asarray(days, dtype=np.float64))
        open_P1 = np.exp(log_ndtr(-self._places(self.gaps.elapsed)))[:, None]
        later_PH = np.exp(log_ndtr(-(np.log(ends_PH) - self.means[:, None]) / self.sds[:, None]))
        stops_P1 = self.stops[:, None]
        left_P1 = stops_P1 + (1.0 - stops_P1) * open_P1
        return np.asarray((1.0 - stops_P1) * (open_P1 - later_PH) / np.maximum(left_P1, 1e-300))

    def take(self, pairs: NDArray[np.integer]) -> "ItemClocks":
        """The clocks of some pairs, in the order given."""
        chosen = {name: getattr(self.gaps, name)[pairs] for name in ItemGaps.__slots__}
        return ItemClocks(
            gaps=ItemGaps(**chosen),
            means=self.means[pairs],
            sds=self.sds[pairs],
            stops=self.stops[pairs],
        )

    def _places(self, days_P: Float64) -> Float64:
        """Where days lie in the normal distribution of log gaps."""
        return (np.log(days_P) - self.means) / self.sds
