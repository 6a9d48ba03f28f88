"""The mean of what a user does, drawn towards that of all: how many items, how much money.

Legend: U users, E purchase events.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from pydantic import Field

from nextbuy.data.histories import Int64
from nextbuy.errors import EmptyDataError
from nextbuy.timing import stored
from nextbuy.timing.events import Float64

_LARGEST_WEIGHT: Final = 1e6
"""Where users do not differ at all, their own mean counts for nothing."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Totals:
    """What was seen of each user.

    Attributes:
        counts: n, events with a known value, [U].
        sums: Of these values, [U].
        squares: Sum of their squares, [U].
    """

    counts: Float64
    sums: Float64
    squares: Float64

    @classmethod
    def of(cls, values_E: Float64, owners_E: Int64, num_users: int) -> Self:
        """Of the values of events; `nan` is a value that is not known."""
        known = np.isfinite(values_E)
        owners, values = owners_E[known], values_E[known]
        counts, sums, squares = (
            np.bincount(owners, weights, minlength=num_users).astype(np.float64)
            for weights in (None, values, values**2)
        )
        return cls(counts=counts, sums=sums, squares=squares)


class ShrunkMean(stored.Stored):
    """The next value of a user is expected to be (k m + sum) / (k + n).

    Best of all linear estimates if users have means of their own that scatter around m (Buehlmann
    1967, "Experience rating and credibility"), whatever the distribution; for counts that are
    Poisson with a rate that is Gamma over users it is the posterior mean.
    """

    mean: float = Field(description="m, that of all")
    weight: float = Field(ge=0, description="k, the events that m counts for")

    @classmethod
    def of(cls, seen: Totals) -> Self:
        """k is the variance within users over that between them, both estimated without bias.

        Raises:
            EmptyDataError: If nothing was seen.
        """
        bought = seen.counts > 0
        if not bought.any():
            raise EmptyDataError(
                "No purchase has a known value; there is nothing to take means of."
            )
        n, sums = seen.counts[bought], seen.sums[bought]
        means = sums / n
        weight = _weight(n, means, float(np.maximum(seen.squares[bought] - n * means**2, 0).sum()))
        trust = n / (n + weight)
        return cls(mean=float((trust * means).sum() / trust.sum()), weight=weight)

    def expected(self, seen: Totals) -> Float64:
        """Of each user, [U]; the mean of all where nothing was seen."""
        mixed = self.weight * self.mean + seen.sums
        below = self.weight + seen.counts
        return np.asarray(
            np.divide(mixed, below, out=np.full(len(mixed), self.mean), where=below > 0)
        )


def _weight(n: Float64, means: Float64, within_squares: float) -> float:
    """k, of users with n events each and these means; as if users did not differ where nobody has
    two events, or one user is all there is."""
    total, freedom = n.sum(), (n - 1).sum()
    spread = total - (n**2).sum() / total
    if freedom == 0 or spread <= 0:
        return _LARGEST_WEIGHT
    within = within_squares / freedom
    overall = (n * means).sum() / total
    between = ((n * (means - overall) ** 2).sum() - (len(n) - 1) * within) / spread
    if between <= 0:
        return _LARGEST_WEIGHT
    return float(min(within / between, _LARGEST_WEIGHT))
