"""How much is in a user's next basket: items, and units where quantities are known.

As in all forecasts, baskets of one calendar day are one purchase event. A basket that is not over
yet cannot be seen, so nothing is censored here.

Legend: U users, E purchase events.
"""

from pathlib import Path
from typing import Final, Self

import numpy as np

from nextbuy.data.histories import Histories, Int64
from nextbuy.timing import stored
from nextbuy.timing.events import Events, Float64, event_of_each_purchase, events_before
from nextbuy.timing.shrunk_mean import ShrunkMean, Totals

NAME: Final = "basket-size"


class BasketSize(stored.Stored):
    """Expected size of the next basket: each user's mean, drawn towards that of all.

    `units` is None where there are no quantities.
    """

    items: ShrunkMean
    units: ShrunkMean | None = None

    @classmethod
    def fitted(cls, train: Histories, as_of: int | Int64) -> Self:
        """From the purchases before `as_of`.

        Raises:
            EmptyDataError: If there is none.
        """
        events = events_before(train, as_of)
        units_E = units_of_each_event(train, events)
        return cls(
            items=ShrunkMean.of(_totals(items_of_each_event(train, events), events)),
            units=None if units_E is None else ShrunkMean.of(_totals(units_E, events)),
        )

    def expected_items(self, histories: Histories, as_of: int | Int64) -> Float64:
        """Items in the next basket, [U]: each counts once, however many units of it are bought."""
        events = events_before(histories, as_of)
        return self.items.expected(_totals(items_of_each_event(histories, events), events))

    def expected_units(self, histories: Histories, as_of: int | Int64) -> Float64 | None:
        """Units in the next basket, [U]; a quantity that is not known is 1. None without
        quantities."""
        events = events_before(histories, as_of)
        units_E = units_of_each_event(histories, events)
        if units_E is None or self.units is None:
            return None
        return self.units.expected(_totals(units_E, events))

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        stored.save(folder, NAME, sizes=self)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            BundleError: If a key is unknown or missing, or a value out of its range.
        """
        return stored.load(folder, NAME, sizes=cls)["sizes"]


def items_of_each_event(histories: Histories, events: Events) -> Float64:
    """Purchases (rows) of each event, [E]; a basket names each of its items once."""
    _, event_N = event_of_each_purchase(histories, events)
    return np.bincount(event_N, minlength=len(events.times)).astype(np.float64)


def units_of_each_event(histories: Histories, events: Events) -> Float64 | None:
    """Sum of the quantities of each event, [E], one that is not known being 1; None without."""
    if histories.quantities is None:
        return None
    rows_N, event_N = event_of_each_purchase(histories, events)
    units_N = histories.quantities[rows_N].astype(np.float64)
    units_N = np.where(np.isnan(units_N), 1.0, units_N)
    return np.bincount(event_N, units_N, minlength=len(events.times)).astype(np.float64)


def _totals(values_E: Float64, events: Events) -> Totals:
    return Totals.of(values_E, events.owners, len(events))
