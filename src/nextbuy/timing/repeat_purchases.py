"""Recency and frequency: all that buy-till-you-die models need to know about a user.

Legend: U users, D distinct triples (x, t_x, T).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import DAY, Histories, Int64
from nextbuy.errors import EmptyDataError
from nextbuy.timing.events import Events, Float64, events_before


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RepeatPurchases:
    """x, t_x and T of each user, in a unit of time that the caller chose; `nan` if never bought.

    Attributes:
        repeats: x, purchase events after the first.
        last: t_x, time of the last event since the first; 0 when x is 0.
        age: T, time from the first event to `as_of`.
        weights: How many users a row stands for.
    """

    repeats: Float64
    last: Float64
    age: Float64
    weights: Float64

    def __len__(self) -> int:
        return len(self.repeats)

    def take(self, users: NDArray[np.integer]) -> "RepeatPurchases":
        """Some of the rows, in the order given (positions may repeat)."""
        return RepeatPurchases(
            repeats=self.repeats[users],
            last=self.last[users],
            age=self.age[users],
            weights=self.weights[users],
        )

    def collapsed(self) -> "RepeatPurchases":
        """The distinct rows of users who bought, with the sum of their weights.

        In order of (x, T, t_x), so that the users' order changes nothing.

        Raises:
            EmptyDataError: If nobody bought.
        """
        bought_U = ~np.isnan(self.repeats)
        if not bought_U.any():
            raise EmptyDataError(f"None of {len(self)} users bought before the moment asked about.")
        x, t_x, T = self.repeats[bought_U], self.last[bought_U], self.age[bought_U]
        order = np.lexsort((t_x, T, x))
        x, t_x, T, weights = x[order], t_x[order], T[order], self.weights[bought_U][order]
        opens = np.ones(len(x), dtype=bool)
        opens[1:] = (np.diff(x) != 0) | (np.diff(T) != 0) | (np.diff(t_x) != 0)
        starts_D = np.flatnonzero(opens)
        summed_D = np.add.reduceat(weights, starts_D)
        return RepeatPurchases(repeats=x[opens], last=t_x[opens], age=T[opens], weights=summed_D)


def repeat_purchases(
    histories: Histories, as_of: int | Int64, *, days_per_unit: float = 1.0
) -> RepeatPurchases:
    """Count repeat purchases before `as_of`; see `events` for what counts as one.

    Args:
        histories: Purchases with dates.
        as_of: UTC microseconds: one moment for all users, or one a user.
        days_per_unit: 7 counts time in weeks, as the papers do.
    """
    return of_events(events_before(histories, as_of), days_per_unit=days_per_unit)


def of_events(events: Events, *, days_per_unit: float = 1.0) -> RepeatPurchases:
    """x, t_x and T of events that are at hand already."""
    bought_U, first_U = events.counts > 0, events.first()
    unit = days_per_unit * DAY
    return RepeatPurchases(
        repeats=np.where(bought_U, events.counts - 1.0, np.nan),
        last=np.where(bought_U, (events.last() - first_U) / unit, np.nan),
        age=np.where(bought_U, (events.as_of - first_U) / unit, np.nan),
        weights=np.ones(len(events)),
    )
