"""Histories: what each user bought, in time order, as a few flat arrays.

Legend: U users, N purchases. User u owns the slice `offsets[u]:offsets[u + 1]` of the flat arrays.
The arrays may be memory-mapped, so a log larger than memory can be trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextbuy.errors import DamagedError

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
TimeKind = Literal["dates", "order"]

DAY: Final = 86_400_000_000
"""Microseconds of a day."""

PADDING: Final = 0
"""Item index that means "nothing"; items are 1..V."""

UNKNOWN: Final = -1
"""Item index of an item that the catalog does not know (only ever in targets)."""

_BLOCK: Final = 1 << 22
_REQUIRED_ARRAYS: Final = ("items", "times", "baskets", "offsets")
_OPTIONAL_ARRAYS: Final = ("prices", "quantities")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Histories:
    """Jagged arrays of purchases, sorted by (user, time, basket, input order).

    Attributes:
        user_ids: Text ids, one a user, length U.
        items: Catalog index of each purchase, length N, in 1..V.
        times: UTC microseconds (`time_kind == "dates"`), or positions 0, 1, ... (`"order"`).
        baskets: Number of the purchase's basket within its user: 0, 1, ..., never decreasing.
        offsets: Length U + 1, from 0 to N.
        prices: Price of one unit, `nan` where unknown; or None.
        quantities: Units bought, `nan` where unknown; or None.
        time_kind: Whether `times` are dates or only an order.
    """

    user_ids: pl.Series
    items: Int32
    times: Int64
    baskets: Int32
    offsets: Int64
    prices: Float32 | None = None
    quantities: Float32 | None = None
    time_kind: TimeKind = "dates"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_purchases(self) -> int:
        """Number of rows, N."""
        return int(self.offsets[-1] - self.offsets[0])

    @property
    def lengths(self) -> Int64:
        """Purchases of each user, length U."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Int64:
        """User position of each purchase, length N."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def item_counts(self, num_items: int, ends: Int64 | None = None) -> Int64:
        """Purchases of each item 1..V, length V; an array that is mapped is read in blocks.

        With `ends`, length U, only what each user bought before a row of their own counts.
        """
        counts = np.zeros(num_items + 1, dtype=np.int64)
        for start in range(0, len(self.items), _BLOCK):
            block = self.items[start : start + _BLOCK]
            if ends is not None:
                rows = np.arange(start, start + len(block))
                block = block[rows < ends[np.searchsorted(self.offsets, rows, side="right") - 1]]
            counts += np.bincount(block, minlength=num_items + 1)
        return counts[1:]

    def heads(self, users: NDArray[np.integer], ends: Int64) -> "Histories":
        """What some users bought before a row of their own, in the order given.

        Args:
            users: Positions, which may repeat.
            ends: Row of each, between the first of the user and the one after the last.
        """
        starts = self.offsets[users]
        lengths = ends - starts
        return self._gather(jagged_rows(starts, lengths), lengths, self.user_ids.gather(users))

    def take(self, users: NDArray[np.integer]) -> "Histories":
        """The histories of some users, in the order given (positions may repeat)."""
        users = np.asarray(users, dtype=np.int64)
        starts, lengths = self.offsets[users], self.lengths[users]
        return self._gather(jagged_rows(starts, lengths), lengths, self.user_ids.gather(users))

    def of_users(self, user_ids: Sequence[str]) -> "Histories":
        """The histories of users by their ids; empty for an id that is not here."""
        places = np.flatnonzero(self.user_ids.is_in(pl.Series(user_ids, dtype=pl.String).implode()))
        known = dict(zip(self.user_ids.gather(places), places, strict=True))
        empty = len(self.user_ids)
        places = np.array([known.get(user, empty) for user in user_ids], dtype=np.int64)
        with_empty = replace(
            self,
            user_ids=pl.concat([self.user_ids, pl.Series(self.user_ids.name, [""])]),
            offsets=np.append(self.offsets, self.offsets[-1]),
        )
        return replace(with_empty.take(places), user_ids=pl.Series(list(user_ids), dtype=pl.String))

    def keep(self, rows: NDArray[np.bool_]) -> "Histories":
        """Only the purchases marked in `rows` (length N); every user stays, some perhaps empty."""
        kept_before = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        lengths = np.diff(kept_before[self.offsets])
        return self._gather(np.flatnonzero(rows), lengths, self.user_ids)

    def before(self, as_of: Int64) -> "Histories":
        """Each user's purchases strictly before a moment of their own, `as_of` of length U."""
        return self.keep(self.times < np.repeat(as_of, self.lengths))

    def with_items(self, items: Int32) -> "Histories":
        """The same purchases under other item indices."""
        return replace(self, items=items)

    def _gather(self, rows: Int64, lengths: Int64, user_ids: pl.Series) -> "Histories":
        return replace(
            self,
            user_ids=user_ids,
            items=self.items[rows],
            times=self.times[rows],
            baskets=self.baskets[rows],
            offsets=offsets_of(lengths),
            prices=None if self.prices is None else self.prices[rows],
            quantities=None if self.quantities is None else self.quantities[rows],
        )

    def save(self, folder: Path) -> None:
        """Write one `.npy` file an array, so that `load` can map them into memory."""
        folder.mkdir(parents=True, exist_ok=True)
        self.user_ids.rename("user_id").to_frame().write_parquet(folder / "user_ids.parquet")
        for name in (*_REQUIRED_ARRAYS, *_OPTIONAL_ARRAYS):
            array = getattr(self, name)
            if array is not None:
                np.save(folder / f"{name}.npy", array, allow_pickle=False)
        (folder / "time_kind.txt").write_text(self.time_kind, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, mapped: bool = True) -> "Histories":
        """Read what `save` wrote.

        Args:
            folder: The folder that `save` was given.
            mapped: Map the arrays into memory instead of reading them.

        Raises:
            DamagedError: If a file is missing or the arrays do not fit together.
        """
        arrays = {}
        for name in (*_REQUIRED_ARRAYS, *_OPTIONAL_ARRAYS):
            path = folder / f"{name}.npy"
            if path.exists():
                arrays[name] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
            elif name in _REQUIRED_ARRAYS:
                raise DamagedError(f"Histories in {folder} lack {path.name}. Prepare them again.")
        kind = (folder / "time_kind.txt").read_text(encoding="utf-8")
        if kind not in ("dates", "order"):
            raise DamagedError(f"{folder / 'time_kind.txt'} says {kind!r}, not dates or order.")
        user_ids = pl.read_parquet(folder / "user_ids.parquet")["user_id"]
        loaded = cls(user_ids=user_ids, time_kind="dates" if kind == "dates" else "order", **arrays)
        num_rows = int(loaded.offsets[-1])
        sizes = {name: len(array) for name, array in arrays.items() if name != "offsets"}
        if len(user_ids) != len(loaded) or set(sizes.values()) != {num_rows}:
            raise DamagedError(
                f"Histories in {folder} do not fit together: {len(user_ids)} users, "
                f"offsets for {len(loaded)} users and {num_rows} purchases, arrays {sizes}."
            )
        return loaded

    @classmethod
    def from_lists(
        cls,
        items: Sequence[Sequence[int]],
        *,
        times: Sequence[Sequence[int]] | None = None,
        baskets: Sequence[Sequence[int]] | None = None,
        prices: Sequence[Sequence[float]] | None = None,
        user_ids: Sequence[str] | None = None,
    ) -> "Histories":
        """Small histories from plain lists: each row its own basket, in order, unless told."""
        ids = [f"u{row}" for row in range(len(items))] if user_ids is None else list(user_ids)
        order = [list(range(len(row))) for row in items]
        flat_prices = None if prices is None else np.array([p for row in prices for p in row], "f4")
        return cls(
            user_ids=pl.Series("user_id", ids, dtype=pl.String),
            items=np.array([i for row in items for i in row], dtype=np.int32),
            times=np.array([t for row in times or order for t in row], dtype=np.int64),
            baskets=np.array([b for row in baskets or order for b in row], dtype=np.int32),
            offsets=offsets_of(np.array([len(row) for row in items], dtype=np.int64)),
            prices=flat_prices,
            time_kind="order" if times is None else "dates",
        )


def offsets_of(lengths: NDArray[np.integer]) -> Int64:
    """Offsets 0, l0, l0 + l1, ... of jagged rows with the given lengths."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def jagged_rows(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> Int64:
    """Flat positions of the slices `starts[i] : starts[i] + lengths[i]`, one after the other."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    shift = np.asarray(starts, dtype=np.int64) - (ends - lengths)
    return np.arange(total, dtype=np.int64) + np.repeat(shift, lengths)
