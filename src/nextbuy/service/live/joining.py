"""The purchases of one user that a bundle has and those since, as one history.

The result is what reading all of these rows as one log would give: in time order, late arrivals in
their place, an item once a basket, the newest 10,000. Where time is only an order, what is new
follows what is old.

Legend: N purchases, S stored ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from nextbuy.data.encoding import LONGEST_HISTORY
from nextbuy.data.histories import UNKNOWN, Float32, Int32, Int64, TimeKind
from nextbuy.data.merging import merge_repeats
from nextbuy.data.ordering import first_of_runs
from nextbuy.data.purchases import BasketKind
from nextbuy.service.live.lookup import ItemLookup
from nextbuy.service.purchases import LivePurchase


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the log of a bundle was read, so that live purchases are read alike.

    Attributes:
        lookup: Items of its catalog.
        time_kind: Whether times are dates.
        basket_kind: What makes a basket. A live purchase whose basket is told is in that one, all
            others of a timestamp are one, but where each purchase is its own basket (`none`).
        has_prices: Whether its histories tell prices.
        has_quantities: Whether they tell quantities.
    """

    lookup: ItemLookup
    time_kind: TimeKind
    basket_kind: BasketKind
    has_prices: bool
    has_quantities: bool


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rows:
    """Purchases of one user in the order of time and basket; see `Histories`.

    Attributes:
        items: Index 1..V, or `UNKNOWN` for what the catalog lacks; [N].
        times: [N].
        baskets: Never decreasing; numbers may be missing; [N].
        prices: [N] or None.
        quantities: [N] or None.
    """

    items: Int32
    times: Int64
    baskets: Int32
    prices: Float32 | None = None
    quantities: Float32 | None = None

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: Int64 | slice) -> Self:
        """Some rows, in the order given."""
        return type(self)(
            items=self.items[rows],
            times=self.times[rows],
            baskets=self.baskets[rows],
            prices=None if self.prices is None else self.prices[rows],
            quantities=None if self.quantities is None else self.quantities[rows],
        )

    def listed(self) -> Self:
        """Only what the catalog knows."""
        known = self.items != UNKNOWN
        return self if known.all() else self.take(np.flatnonzero(known))


def no_rows(reading: Reading) -> Rows:
    """The history of somebody who never bought."""
    nothing = np.empty(0, np.float32)
    return Rows(
        items=np.empty(0, np.int32),
        times=np.empty(0, np.int64),
        baskets=np.empty(0, np.int32),
        prices=nothing if reading.has_prices else None,
        quantities=nothing if reading.has_quantities else None,
    )


def joined(stored: Rows, purchases: Sequence[LivePurchase], reading: Reading) -> Rows:
    """Stored rows and live purchases, in any order, as one history."""
    if not purchases:
        return stored
    groups = _groups(purchases, reading.basket_kind)
    dated = reading.time_kind == "dates"
    meets = dated and reading.basket_kind == "timestamp"
    group_of, new_times = _among(groups, set(stored.times.tolist()) if meets else set())
    moved, numbers, times = _numbered(stored, np.array(new_times, dtype=np.int64), dated=dated)
    rows = [row for _, members in groups for row in members]
    places = np.array([place for place, (_, g) in enumerate(groups) for _ in g], dtype=np.int64)
    group_P = np.array(group_of, dtype=np.int64)[places]
    is_new = group_P >= 0
    time_P = np.array([time for time, _ in groups], dtype=np.int64)[places]
    number_P = np.empty(len(rows), dtype=np.int64)
    number_P[is_new] = numbers[group_P[is_new]]
    time_P[is_new] = times[group_P[is_new]]
    number_P[~is_new] = moved[np.searchsorted(stored.times, time_P[~is_new])]
    index_of = reading.lookup.index_of
    items = np.array([index_of(purchases[row]) for row in rows], dtype=np.int32)
    both = Rows(
        items=np.concatenate([stored.items, items]),
        times=np.concatenate([stored.times, time_P]),
        baskets=np.concatenate([moved, number_P]).astype(np.int32),
        prices=_with(stored.prices, [purchases[row].price for row in rows]),
        quantities=_with(stored.quantities, [purchases[row].quantity for row in rows]),
    )
    both = both.take(np.lexsort((both.items, both.baskets)))
    return _newest(_once_a_basket(both, reading))


def for_when(rows: Rows) -> Rows:
    """The same purchases for when and how much alone: an item that is not known is item 1."""
    return replace(rows, items=np.where(rows.items == UNKNOWN, np.int32(1), rows.items))


def ignored_items(purchases: Sequence[LivePurchase], lookup: ItemLookup) -> tuple[str, ...]:
    """Ids of items that the catalog lacks, each once, in their order, at most 100."""
    found = dict.fromkeys(p.item_id for p in purchases if lookup.index_of(p) == UNKNOWN)
    return tuple(found)[:100]


_Group = tuple[int, list[int]]
"""When a basket was bought, and the positions of its purchases."""


def _groups(purchases: Sequence[LivePurchase], kind: BasketKind) -> list[_Group]:
    """Baskets in the order of their first moment; of equal ones that without an id comes first."""
    if kind == "none":
        order = sorted(range(len(purchases)), key=lambda row: purchases[row].timestamp)
        return [(purchases[row].timestamp, [row]) for row in order]
    members: dict[tuple[str | None, int], list[int]] = {}
    for row, purchase in enumerate(purchases):
        basket = purchase.basket_id
        key = (basket, 0) if basket is not None else (None, purchase.timestamp)
        members.setdefault(key, []).append(row)
    keyed = [
        (min(purchases[row].timestamp for row in rows), basket is not None, basket or "", rows)
        for (basket, _), rows in members.items()
    ]
    return [(time, rows) for time, *_, rows in sorted(keyed, key=lambda each: each[:3])]


def _among(groups: Sequence[_Group], met: set[int]) -> tuple[list[int], list[int]]:
    """The number of each group among the new ones, -1 for one whose moment is that of a stored
    basket; and the times of the new ones."""
    numbers: list[int] = []
    times: list[int] = []
    for time, _ in groups:
        if time in met:
            numbers.append(-1)
        else:
            numbers.append(len(times))
            times.append(time)
    return numbers, times


def _numbered(stored: Rows, new_times: Int64, *, dated: bool) -> tuple[Int64, Int64, Int64]:
    """Numbers of the baskets of the stored rows, [S], and numbers and times of the new baskets.

    A new basket comes after stored ones of the same moment; without dates after all.
    """
    order = np.arange(len(new_times))
    if not dated:
        last_basket = int(stored.baskets[-1]) if len(stored) else -1
        last_time = int(stored.times[-1]) if len(stored) else -1
        return stored.baskets.astype(np.int64), last_basket + 1 + order, last_time + 1 + order
    before = np.searchsorted(stored.times, new_times, side="right")
    follows = np.concatenate([[-1], stored.baskets.astype(np.int64)])[before] + 1
    moved = stored.baskets + np.searchsorted(new_times, stored.times, side="left")
    return moved, follows + order, new_times


def _with(stored: Float32 | None, values: Sequence[float | None]) -> Float32 | None:
    if stored is None:
        return None
    told = np.array([np.nan if value is None else value for value in values], dtype=np.float32)
    return np.concatenate([stored, told])


def _once_a_basket(rows: Rows, reading: Reading) -> Rows:
    """An item that was bought twice in a basket is one row; what is unknown stays."""
    if reading.basket_kind == "none":
        return rows
    begins = first_of_runs(rows.baskets, rows.items) | (rows.items == UNKNOWN)
    if begins.all():
        return rows
    kept = rows.take(np.flatnonzero(begins))
    if rows.prices is None and rows.quantities is None:
        return kept
    prices, quantities = merge_repeats(begins, rows.prices, rows.quantities)
    return replace(kept, prices=prices, quantities=None if rows.quantities is None else quantities)


def _newest(rows: Rows) -> Rows:
    if len(rows) <= LONGEST_HISTORY:
        return rows
    kept = rows.take(slice(len(rows) - LONGEST_HISTORY, None))
    return replace(kept, baskets=kept.baskets - kept.baskets[0])
