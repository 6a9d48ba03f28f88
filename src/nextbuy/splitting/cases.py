"""What every split returns: histories to learn from, and cases to be right about."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import (
    UNKNOWN,
    Float32,
    Histories,
    Int32,
    Int64,
    jagged_rows,
    offsets_of,
)
from nextbuy.data.recoding import in_catalog, index_map


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Cases:
    """Questions with their answers: given this history at this moment, what was bought next?

    Case c has the visible history `histories[c]` (perhaps empty), is asked at `as_of[c]`, and was
    answered by the basket `target_items[target_offsets[c]:target_offsets[c + 1]]`.

    Attributes:
        histories: One a case; everything in it lies before the answer.
        as_of: UTC microseconds, length C; None when time is only an order.
        target_items: Distinct items of the next basket; `UNKNOWN` where the catalog lacks the item.
        target_offsets: Length C + 1.
        target_values: Money paid for each target (price times quantity), `nan` unknown; or None.
        target_times: When the next basket was bought, length C, UTC microseconds; or None.
        until: End of the period in which targets count, UTC microseconds; or None.
    """

    histories: Histories
    as_of: Int64 | None
    target_items: Int32
    target_offsets: Int64
    target_values: Float32 | None = None
    target_times: Int64 | None = None
    until: int | None = None

    def __len__(self) -> int:
        return len(self.target_offsets) - 1

    @property
    def since(self) -> int | None:
        """First moment that a case is asked at, UTC microseconds; None without moments."""
        return None if self.as_of is None or not len(self.as_of) else int(self.as_of.min())

    @property
    def unknown_share(self) -> float:
        """Share of target items that the catalog does not know; `nan` without targets."""
        known = self.target_items != UNKNOWN
        return float(1 - known.mean()) if len(known) else float("nan")

    def take(self, cases: NDArray[np.integer]) -> "Cases":
        """Some of the cases, in the order given."""
        cases = np.asarray(cases, dtype=np.int64)
        lengths = np.diff(self.target_offsets)[cases]
        rows = jagged_rows(self.target_offsets[cases], lengths)
        return Cases(
            histories=self.histories.take(cases),
            as_of=None if self.as_of is None else self.as_of[cases],
            target_items=self.target_items[rows],
            target_offsets=offsets_of(lengths),
            target_values=None if self.target_values is None else self.target_values[rows],
            target_times=None if self.target_times is None else self.target_times[cases],
            until=self.until,
        )

    def thinned(self, most: int) -> "Cases":
        """At most so many of the cases, evenly spread."""
        if len(self) <= most:
            return self
        return self.take(np.linspace(0, len(self) - 1, most).astype(np.int64))

    def in_catalog(self, old: Catalog, new: Catalog) -> "Cases":
        """The same cases under the indices of another catalog; items it lacks are `UNKNOWN`."""
        known = np.append(index_map(old, new), UNKNOWN)  # so that UNKNOWN, -1, stays what it is
        return replace(
            self,
            histories=in_catalog(self.histories, old, new),
            target_items=known[self.target_items],
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Split:
    """One way to learn, choose and test on a log, with the words that describe it.

    Attributes:
        name: `temporal`, `leave-last-out` or `held-out-users`.
        description: One sentence for people: cut-offs, counts, and what leaks if something does.
        catalog: The catalog that is known at the test cut-off; all indices refer to it.
        train: What models learn from.
        validation: Cases on which every choice is made.
        test: Cases that are looked at once, at the end.
        warning: What a reader of the scores must know (leave-last-out leaks time), or None.
        before_test: Everything before the test period, `train` and what validation was asked about,
            for a second fit once all choices are made; None where the protocol has none.
    """

    name: str
    description: str
    catalog: Catalog
    train: Histories
    validation: Cases
    test: Cases
    warning: str | None = None
    before_test: Histories | None = None
