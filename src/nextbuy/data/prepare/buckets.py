"""Bucket by bucket: the rows of some users become histories, in entry codes, with what the catalog
needs to know of them.

Legend: N rows of a bucket, U users of it, E entries of the whole log, T things (what an item is).
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import polars as pl
import pyarrow as pa

from nextbuy import columns
from nextbuy.data.catalog import Level
from nextbuy.data.checking import with_positions, without_duplicates
from nextbuy.data.coding import MISSING, code
from nextbuy.data.encoding import LEVEL_COLUMNS, gather_or_null, in_order, shorten
from nextbuy.data.histories import Int32, Int64
from nextbuy.data.options import ReadOptions
from nextbuy.data.prepare.books import CODED, Books, ranked
from nextbuy.data.prepare.journal import Pieces
from nextbuy.data.prepare.scatter import Scattered, read_bucket, write_buckets
from nextbuy.data.purchases import BasketKind
from nextbuy.progress import Progress
from nextbuy.storage import read_json, write_json

PRICE_PARTS: Final = 64
"""Parts of the entries, whose prices are looked at together."""

_DENSE: Final = 1 << 27
_AT_ONCE: Final = 2
_ENTRY: Final = "entry"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Entries:
    """The entries of a log, in the order of their items and platforms.

    Attributes:
        level: What an item is.
        ids: Item of each, [E].
        platforms: Of each, null where there is none; None where nothing has one.
        categories: All of them, in order.
        ranks: Of the codes in the rows, by column; `MISSING` at the end.
        keys: Of each, rank of the thing times `width` plus rank of the platform + 1, ascending;
            None where a thing is an entry.
        width: Number of platforms + 1.
    """

    level: Level
    ids: pl.Series
    platforms: pl.Series | None
    categories: pl.Series
    ranks: dict[str, Int32]
    keys: Int64 | None
    width: int

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, books: Books, pairs: Int64 | None, level: Level) -> Self:
        """Entries of the ids of a log.

        Args:
            books: With all ids.
            pairs: Distinct pairs of a thing and a platform, as `pair_keys` gives them; None where
                there are no platforms.
            level: What an item is.
        """
        found = {name: ranked(books.of[name]) for name in CODED}
        ranks = {name: rank for name, (_, rank) in found.items()}
        things, _ = found[LEVEL_COLUMNS[level]]
        platforms, _ = found[columns.PLATFORM]
        width = len(platforms) + 1
        if pairs is None or not len(platforms):
            keys, ids, of_entries = None, things, None
        else:
            keys = np.unique(_ranked_pairs(pairs, ranks, level, width))
            ids = things.gather(keys // width)
            of_entries = gather_or_null(platforms, (keys % width - 1).astype(np.int32))
        return cls(
            level=level, ids=ids, platforms=of_entries, categories=found[columns.CATEGORY][0],
            ranks=ranks, keys=keys, width=width,
        )  # fmt: skip

    def of_rows(self, frame: pl.DataFrame) -> Int32:
        """The entry of each row, `MISSING` where it has no value at the level."""
        column = LEVEL_COLUMNS[self.level]
        things: Int32 = self.ranks[column][frame[column].to_numpy()]
        if self.keys is None or not len(self.keys):
            return things
        platforms = self.ranks[columns.PLATFORM][frame[columns.PLATFORM].to_numpy()]
        wanted = things.astype(np.int64) * self.width + platforms + 1
        top = int(self.keys[-1]) + 1
        if top <= _DENSE:
            table = np.zeros(top, dtype=np.int32)
            table[self.keys] = np.arange(len(self.keys), dtype=np.int32)
            found = table[np.maximum(wanted, 0)]
        else:
            found = np.searchsorted(self.keys, wanted).astype(np.int32)
        return np.where(things == MISSING, np.int32(MISSING), found)


def _ranked_pairs(pairs: Int64, ranks: dict[str, Int32], level: Level, width: int) -> Int64:
    things = ranks[LEVEL_COLUMNS[level]][pairs >> 32].astype(np.int64)
    platforms = ranks[columns.PLATFORM][(pairs & 0xFFFFFFFF) - 1]
    keys: Int64 = things * width + platforms + 1
    return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How buckets become histories: the same for all of them."""

    scattered: Scattered
    entries: Entries
    options: ReadOptions
    basket_kind: BasketKind
    max_history: int


EncodesBuckets = Callable[[Callable[[int], None], Sequence[int]], Iterator[tuple[int, None]]]
"""Does some work for each of these buckets, in any order, and tells which are done."""


def encode_buckets(
    batches: Pieces,
    encoded: Pieces,
    encoding: Encoding,
    *,
    buckets: int,
    progress: Progress,
    where: EncodesBuckets | None = None,
) -> None:
    """Encode every bucket that is not encoded yet; without `where`, in this process."""
    left = [number for number in range(buckets) if not encoded.has(number)]
    progress.start("encoding", buckets, done=buckets - len(left))
    work = partial(_encode_one, batches=batches, encoded=encoded, encoding=encoding)
    try:
        for _ in (where or encode_here)(work, left):
            progress.advance(1, {})
    finally:
        progress.finish()


def encode_here(work: Callable[[int], None], numbers: Sequence[int]) -> Iterator[tuple[int, None]]:
    """Two buckets at a time; never more, since each holds memory."""
    running: deque[tuple[int, Future[None]]] = deque()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for number in numbers:
            if len(running) >= _AT_ONCE:
                done, result = running.popleft()
                yield done, result.result()
            running.append((number, pool.submit(work, number)))
        while running:
            done, result = running.popleft()
            yield done, result.result()


def _encode_one(number: int, *, batches: Pieces, encoded: Pieces, encoding: Encoding) -> None:
    frame = _rows_of(number, batches, encoding)
    encoded.put(number, lambda folder: _encode(frame, folder, encoding))


def _rows_of(number: int, batches: Pieces, encoding: Encoding) -> pl.DataFrame:
    """All rows of a bucket in the order of the log."""
    parts = [
        read_bucket(batches.path(batch) / "rows.arrow", number)
        for batch in range(encoding.scattered.num_batches)
    ]
    some = [part for part in parts if part.num_rows] or parts[:1]
    return pl.DataFrame(pa.Table.from_batches(some))


def _encode(frame: pl.DataFrame, folder: Path, encoding: Encoding) -> None:
    """Write everything that is known of a bucket."""
    rows_in = frame.height
    if not encoding.scattered.has_times:
        frame = frame.with_columns(pl.lit(None, dtype=pl.Int64).alias(columns.TIME))
    frame, num_duplicates = without_duplicates(frame, encoding.options)
    frame = with_positions(frame)
    entries = encoding.entries.of_rows(frame)
    is_left_out = entries == MISSING
    if is_left_out.any():
        frame, entries = frame.filter(~is_left_out), entries[~is_left_out]
    facts: dict[str, Any] = {
        "rows": rows_in, "duplicates": num_duplicates, "left_out": int(is_left_out.sum()),
        "users": 0, "purchases": 0, "merged": 0, "capped": 0, "capped_users": 0,
    }  # fmt: skip
    if frame.height:
        _facts_of_entries(frame, entries, folder, encoding.entries)
        facts |= _histories(frame, entries, folder, encoding)
    write_json(folder / "facts.json", facts)


def _facts_of_entries(frame: pl.DataFrame, entries: Int32, folder: Path, known: Entries) -> None:
    """How often an entry has a category, and its prices, sorted into parts of entries."""
    if columns.CATEGORY in frame.columns:
        categories = known.ranks[columns.CATEGORY][frame[columns.CATEGORY].to_numpy()]
        pl.DataFrame({_ENTRY: entries, "value": categories}).group_by(_ENTRY, "value").len().sort(
            _ENTRY, "value"
        ).write_ipc(folder / "categories.arrow", compression="lz4")
    if columns.PRICE in frame.columns:
        prices = pl.DataFrame({_ENTRY: entries, "price": frame[columns.PRICE]}).drop_nulls()
        parts = (prices[_ENTRY] % PRICE_PARTS).cast(pl.UInt16).to_numpy()
        write_buckets(folder / "prices.arrow", prices, parts, PRICE_PARTS)


def _histories(
    frame: pl.DataFrame, entries: Int32, folder: Path, encoding: Encoding
) -> dict[str, int]:
    users = code(frame[columns.USER])
    rows = in_order(frame, encoding.basket_kind, users.codes, entries)
    kept, num_merged, num_capped, num_capped_users = shorten(
        rows, encoding.basket_kind, encoding.max_history
    )
    pl.DataFrame(
        {
            columns.USER: users.ids,
            "length": np.bincount(kept.users, minlength=len(users.ids)).astype(np.int64),
        }
    ).write_ipc(folder / "users.arrow", compression="lz4")
    arrays = {
        "items": kept.entries, "times": kept.times, "baskets": kept.baskets,
        "prices": kept.prices, "quantities": kept.quantities,
    }  # fmt: skip
    for name, array in arrays.items():
        if array is not None:
            np.ascontiguousarray(array).tofile(folder / f"{name}.bin")
    counts = np.bincount(kept.entries, minlength=len(encoding.entries))
    counts.astype(np.int64).tofile(folder / "counts.bin")
    return {
        "users": len(users.ids), "purchases": len(kept.entries), "merged": num_merged,
        "capped": num_capped, "capped_users": num_capped_users,
    }  # fmt: skip


def facts_of(encoded: Pieces, bucket: int) -> dict[str, int]:
    """The counts of an encoded bucket."""
    found: dict[str, int] = read_json(encoded.path(bucket) / "facts.json")
    return found
