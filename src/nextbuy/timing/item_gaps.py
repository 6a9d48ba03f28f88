"""How each user bought each own item so far: how often, how long between, how long ago.

The rule: purchases of an item on one calendar day (UTC), or in one basket, are one. A gap is the
number of days between two neighbouring ones.

Legend: U users, N purchases (rows), E purchases that count, P pairs of a user and an own item.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import DAY, Histories, Int32, Int64
from nextbuy.errors import ConfigError

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ItemGaps:
    """Pairs of a user and an own item, by user and then by item; each array of length P.

    Attributes:
        owners: Position of the user.
        items: Item index, 1..V.
        purchases: Rows of the item, those of one day too.
        last: Moment of the last of them, UTC microseconds.
        counts: Gaps between days.
        log_sums: Sum of the logs of the gaps in days.
        log_squares: Sum of the squares of these logs.
        days_since: Calendar days from the last purchase to the moment of asking.
        elapsed: Days without the item, to hold against gaps: a gap of n days ends between n - 1/2
            and n + 1/2 of them, so that at midnight n days after a purchase n - 1/2 have elapsed.
    """

    owners: Int64
    items: Int32
    purchases: Int64
    last: Int64
    counts: Int64
    log_sums: Float64
    log_squares: Float64
    days_since: Int64
    elapsed: Float64

    def __len__(self) -> int:
        return len(self.owners)


def item_gaps(histories: Histories, as_of: int | Int64) -> ItemGaps:
    """The own items of each user, from their purchases strictly before `as_of`.

    Args:
        histories: Purchases with dates.
        as_of: UTC microseconds: one moment for all users, or one a user (length U).

    Raises:
        ConfigError: If time is only an order.
    """
    if histories.time_kind != "dates":
        raise ConfigError(
            "When items are due was asked of purchases whose time is only an order. "
            "It needs dates: give a time column with dates."
        )
    as_of_U = np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(histories))
    owners_N = histories.owners
    rows = np.flatnonzero(histories.times < as_of_U[owners_N])
    width = int(histories.items.max(initial=0)) + 1
    keys = owners_N[rows] * width + histories.items[rows]
    order = np.argsort(keys, kind="stable")
    rows, keys = rows[order], keys[order]
    opens = np.ones(len(rows), dtype=np.bool_)
    opens[1:] = keys[1:] != keys[:-1]
    pairs_N = np.cumsum(opens) - 1
    num_pairs = int(opens.sum())
    ends = np.append(np.flatnonzero(opens)[1:], len(rows))[:num_pairs] - 1
    log_days_G, pairs_G = _log_gaps(histories, rows, opens, pairs_N)
    owners, last = owners_N[rows][ends], histories.times[rows][ends]
    since = as_of_U[owners] - last // DAY * DAY
    return ItemGaps(
        owners=owners,
        items=histories.items[rows][ends],
        purchases=np.bincount(pairs_N, minlength=num_pairs),
        last=last,
        counts=np.bincount(pairs_G, minlength=num_pairs),
        log_sums=_sums(pairs_G, log_days_G, num_pairs),
        log_squares=_sums(pairs_G, log_days_G**2, num_pairs),
        days_since=since // DAY,
        elapsed=np.maximum(since / DAY - 0.5, 0.5),
    )


def _log_gaps(
    histories: Histories, rows: Int64, opens: NDArray[np.bool_], pairs_N: Int64
) -> tuple[Float64, Int64]:
    """Logs of the gaps in days, and the pair of each; rows are in the order of pairs and time."""
    days, baskets = histories.times[rows] // DAY, histories.baskets[rows]
    counts = opens.copy()
    counts[1:] |= (days[1:] != days[:-1]) & (baskets[1:] != baskets[:-1])
    days_E, pairs_E = days[counts], pairs_N[counts]
    follows = pairs_E[1:] == pairs_E[:-1]
    return np.log(np.diff(days_E)[follows]), pairs_E[1:][follows]


def _sums(pairs_G: Int64, values_G: Float64, num_pairs: int) -> Float64:
    return np.asarray(np.bincount(pairs_G, values_G, minlength=num_pairs), dtype=np.float64)
