"""How often users bought a target in the past, asked as the question is: in how many windows of D
days before now.

Window 0 is the D days before `as_of`, window 1 the D days before that, and so on back to the user's
first purchase of anything. Recent windows count more: half as much a half-life earlier.

Legend: U users, N purchases, R purchases of the target before `as_of`.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import DAY, Histories, Int64
from nextbuy.timing.events import Float64

_WINDOWS_OF_ALL: Final = 4.0
"""Windows that the share over all users weighs, beside a user's own."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TargetPurchases:
    """When each user bought a target.

    Attributes:
        users: Of each purchase of it, length R.
        ages: Days from it to `as_of`, above 0, length R.
        known_for: Days from each user's first purchase of anything to `as_of`, length U; 0 for
            users who had not bought.
    """

    users: Int64
    ages: Float64
    known_for: Float64

    @classmethod
    def of(cls, histories: Histories, as_of: int, members: NDArray[np.bool_]) -> Self:
        """Of the item indices that are marked in `members`, length V + 1."""
        rows = np.flatnonzero(members[histories.items] & (histories.times < as_of))
        return cls(
            users=np.searchsorted(histories.offsets, rows, side="right") - 1,
            ages=(as_of - histories.times[rows]) / DAY,
            known_for=known_for(histories, as_of),
        )

    def shares(self, days: float, half_life: float) -> tuple[Float64, Float64]:
        """Weight of the windows with a purchase, and of all windows, of each user: both [U]."""
        fade = 0.5 ** (days / half_life)
        windows_R = np.ceil(self.ages / days).astype(np.int64) - 1
        width = int(windows_R.max(initial=0)) + 1
        users, windows = np.divmod(np.unique(self.users * width + windows_R), width)
        bought_U = np.bincount(users, fade**windows, len(self.known_for)).astype(np.float64)
        all_U = (1.0 - fade ** np.ceil(self.known_for / days)) / (1.0 - fade)
        return bought_U, all_U


def known_for(histories: Histories, as_of: int) -> Float64:
    """Days from each user's first purchase to `as_of`, 0 where it is not before that, [U]."""
    days_U = np.zeros(len(histories))
    bought_U = histories.lengths > 0
    first_U = histories.times[histories.offsets[:-1][bought_U]]
    days_U[bought_U] = np.maximum(as_of - first_U, 0) / DAY
    return days_U


def population_share(bought_U: Float64, all_U: Float64) -> float:
    """Share of the windows of all users in which they bought; 0 without any window."""
    total = float(all_U.sum())
    return float(bought_U.sum()) / total if total else 0.0


def shrunk(bought_U: Float64, all_U: Float64, population: float) -> Float64:
    """Share of each user's windows, drawn to that of all, [U]."""
    return (bought_U + _WINDOWS_OF_ALL * population) / (all_U + _WINDOWS_OF_ALL)
