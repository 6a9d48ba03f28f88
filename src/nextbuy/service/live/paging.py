"""Long histories a page at a time, newest page first."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from nextbuy.service.store.protocol import StoredPurchase


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page begins, so that the page before it can be asked for.

    It names a moment, not a number of rows: what is bought or told meanwhile moves nothing from one
    page to another.

    Attributes:
        is_after: Whether it lies among live purchases of a bundle whose time is only an order.
        timestamp: Of the oldest purchase on the page.
        count: How many purchases of this very moment are not on it.
    """

    is_after: bool
    timestamp: int
    count: int

    @classmethod
    def of(cls, text: str) -> Self:
        """From its text: three whole numbers with dots between."""
        after, timestamp, count = text.split(".")
        return cls(is_after=after == "1", timestamp=int(timestamp), count=int(count))

    def __str__(self) -> str:
        return f"{self.is_after:d}.{self.timestamp}.{self.count}"


Moment = tuple[bool, int]
"""See `Place`: `is_after` and `timestamp`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """Some purchases of a user.

    Attributes:
        purchases: Oldest first; those of the bundle have sequence 0.
        total: How many are known, on all pages.
        older: Where this page begins, to ask for the one before it; None if there is none.
        version: Of the bundle whose purchases are among them; None if no bundle is loaded, and all
            of them are of the store.
    """

    purchases: Sequence[StoredPurchase]
    total: int
    older: Place | None
    version: str | None


def bounds(moments: Sequence[Moment], most: int, before: Place | None) -> tuple[int, int]:
    """First row of a page, and the row after its last.

    Args:
        moments: Of all rows, in order.
        most: Rows of a page, at least 1.
        before: Only what is older than this page; None is the newest page.
    """
    end = len(moments)
    if before is not None:
        moment = (before.is_after, before.timestamp)
        first, last = bisect_left(moments, moment), bisect_right(moments, moment)
        end = min(first + before.count, last)
    return max(0, end - most), end


def place_of(moments: Sequence[Moment], row: int) -> Place | None:
    """Where the page that begins with a row begins; None if nothing is older."""
    if row == 0:
        return None
    is_after, timestamp = moments[row]
    count = row - bisect_left(moments, moments[row])
    return Place(is_after=is_after, timestamp=timestamp, count=count)
