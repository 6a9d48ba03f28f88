"""Purchase events: the moments at which a user bought, as timing models count them.

The rule: baskets count, not rows, and baskets on the same calendar day (UTC) are one event, at the
moment of the first of them. A basket that runs past midnight is one event too.

Legend: U users, E events, N purchases (rows).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import DAY, Histories, Int64, offsets_of
from nextbuy.errors import ConfigError, DataError

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Events:
    """Moments of purchase in time order, seen from a moment `as_of` of each user.

    Attributes:
        times: UTC microseconds, rising within a user.
        offsets: Length U + 1; user u owns `times[offsets[u]:offsets[u + 1]]`.
        as_of: The moments from which we look; every event lies before its user's.
    """

    times: Int64
    offsets: Int64
    as_of: Int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Int64:
        """Events of each user."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Int64:
        """User of each event."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    def first(self) -> Int64:
        """Moment of the first event of each user; of a user without one, `as_of`."""
        return self._moments(self.offsets[:-1])

    def last(self) -> Int64:
        """Moment of the last event of each user; of a user without one, `as_of`."""
        return self._moments(self.offsets[1:] - 1)

    def elapsed_days(self) -> Float64:
        """Days from each user's last event to `as_of`; `nan` without an event."""
        return np.where(self.counts > 0, (self.as_of - self.last()) / DAY, np.nan)

    def gaps(self) -> tuple[Float64, Int64]:
        """Days between neighbouring events, and the user of each gap."""
        owners_E = self.owners
        follows = owners_E[1:] == owners_E[:-1]
        return np.diff(self.times)[follows] / DAY, owners_E[1:][follows]

    def _moments(self, rows_U: Int64) -> Int64:
        moments_U = self.as_of.copy()
        bought_U = self.counts > 0
        moments_U[bought_U] = self.times[rows_U[bought_U]]
        return moments_U


def events_before(histories: Histories, as_of: int | Int64) -> Events:
    """The purchase events strictly before `as_of`.

    Args:
        histories: Purchases with dates.
        as_of: UTC microseconds: one moment for all users, or one a user (length U).

    Raises:
        ConfigError: If time is only an order, or the moments are not one a user.
    """
    if histories.time_kind != "dates":
        raise ConfigError(
            "Timing models were asked of purchases whose time is only an order. "
            "They need dates: give a time column with dates."
        )
    moments = np.asarray(as_of, dtype=np.int64)
    if moments.ndim and moments.shape != (len(histories),):
        raise ConfigError(
            f"as_of has shape {moments.shape} for {len(histories)} users; "
            "give one moment for all, or one a user."
        )
    as_of_U = np.array(np.broadcast_to(moments, len(histories)))
    rows_N, opens_N = _seen(histories, as_of_U)
    first_rows_E = rows_N[opens_N]
    counts_U = np.bincount(histories.owners[first_rows_E], minlength=len(histories))
    return Events(times=histories.times[first_rows_E], offsets=offsets_of(counts_U), as_of=as_of_U)


def observed_until(histories: Histories) -> int:
    """When observation ends: the second after the last purchase, or the end of its day if the log
    knows days only."""
    only_days = not (histories.times % DAY).any()
    return int(histories.times.max()) + (DAY if only_days else 1_000_000)


def event_of_each_purchase(histories: Histories, events: Events) -> tuple[Int64, Int64]:
    """The rows of `histories` that lie before the events' `as_of`, and each one's event."""
    rows_N, opens_N = _seen(histories, events.as_of)
    return rows_N, np.cumsum(opens_N) - 1


def value_of_each_event(histories: Histories, events: Events) -> Float64:
    """Sum of price times quantity over the rows of each event, [E]; a quantity that is not known
    is 1, and a price that is not known makes the value `nan`.

    Raises:
        DataError: If there are no prices.
    """
    rows_N, event_N = event_of_each_purchase(histories, events)
    values_N = value_of_each_purchase(histories)[rows_N]
    return np.bincount(event_N, values_N, minlength=len(events.times)).astype(np.float64)


def value_of_each_purchase(histories: Histories) -> Float64:
    """Price times quantity of each row, [N]; as for an event.

    Raises:
        DataError: If there are no prices.
    """
    if histories.prices is None:
        raise DataError("Amounts were asked of purchases without prices. Give a price column.")
    values_N = histories.prices.astype(np.float64)
    if histories.quantities is not None:
        units_N = histories.quantities.astype(np.float64)
        values_N *= np.where(np.isnan(units_N), 1.0, units_N)
    return values_N


def _seen(histories: Histories, as_of_U: Int64) -> tuple[Int64, NDArray[np.bool_]]:
    """Rows strictly before the moments, and which of them open an event."""
    rows_N = np.flatnonzero(histories.times < np.repeat(as_of_U, histories.lengths))
    owners_N, baskets_N = histories.owners[rows_N], histories.baskets[rows_N]
    days_N = histories.times[rows_N] // DAY
    opens_N = np.ones(len(rows_N), dtype=bool)
    opens_N[1:] = (owners_N[1:] != owners_N[:-1]) | (
        (baskets_N[1:] != baskets_N[:-1]) & (days_N[1:] != days_N[:-1])
    )
    return rows_N, opens_N
