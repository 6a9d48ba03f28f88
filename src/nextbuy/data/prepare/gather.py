"""The last pass: encoded buckets become one, in the order of all user ids.

The users of a bucket are in order, so the users of any stretch of the whole order lie together in
each bucket: everything is read and written from front to back, a stretch at a time.

Legend: U users, B buckets, N purchases of a stretch.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextbuy import columns
from nextbuy.data.histories import Int32, Int64, TimeKind, jagged_rows, offsets_of
from nextbuy.data.prepare.journal import Pieces
from nextbuy.progress import Progress
from nextbuy.storage import failpoint, read_json, sync, write_json
from nextbuy.threads import in_threads

_STRETCH: Final = 1 << 22
"""Purchases of a stretch, about."""

_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "items": np.dtype(np.int32),
    "times": np.dtype(np.int64),
    "baskets": np.dtype(np.int32),
    "prices": np.dtype(np.float32),
    "quantities": np.dtype(np.float32),
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Order:
    """All users in the order of their ids.

    Attributes:
        ids: [U].
        buckets: Bucket of each, [U].
        lengths: Purchases of each, [U].
        arrays: Names of the arrays that the histories have.
    """

    ids: pl.Series
    buckets: Int32
    lengths: Int64
    arrays: tuple[str, ...]


def order_users(encoded: Pieces, *, buckets: int) -> Order:
    """Bring the users of all buckets into one order."""
    frames = []
    for bucket in range(buckets):
        path = encoded.path(bucket) / "users.arrow"
        if path.exists():
            users = pl.read_ipc(path)
            frames.append(users.with_columns(bucket=pl.lit(bucket, dtype=pl.Int32)))
    whole = pl.concat(frames, rechunk=True)
    whole = whole[whole[columns.USER].arg_sort()]
    return Order(
        ids=whole[columns.USER],
        buckets=whole["bucket"].to_numpy(),
        lengths=whole["length"].to_numpy(),
        arrays=tuple(
            name
            for name in _TYPES
            if any((encoded.path(bucket) / f"{name}.bin").exists() for bucket in range(buckets))
        ),
    )


def gather(
    encoded: Pieces,
    order: Order,
    indices: Int32,
    folder: Path,
    *,
    buckets: int,
    time_kind: TimeKind,
    journal: Path,
    progress: Progress,
) -> None:
    """Write the histories as `Histories.load` maps them; goes on after the last whole stretch.

    Args:
        encoded: The buckets.
        order: Of the users.
        indices: Catalog index of each entry.
        folder: For the arrays.
        buckets: How many there are.
        time_kind: Of the log.
        journal: File that says how far it got.
        progress: Told about the purchases.
    """
    folder.mkdir(parents=True, exist_ok=True)
    offsets = offsets_of(order.lengths)
    total = int(offsets[-1])
    done = _done(journal)
    files = {name: _opened(folder / f"{name}.npy", _TYPES[name], total, int(offsets[done]))
             for name in order.arrays}  # fmt: skip
    progress.start("writing", total, done=int(offsets[done]))
    try:
        starts = _starts(order, done, buckets)
        for first, last in _stretches(offsets, done):
            arrays, ends = _stretch(encoded, order, slice(first, last), starts)
            arrays["items"] = indices[arrays["items"]]
            for name, file in files.items():
                arrays[name].tofile(file)
            starts = ends
            _note(journal, last, files)
            failpoint("after_stretch")
            progress.advance(int(offsets[last] - offsets[first]), {})
    finally:
        progress.finish()
        for file in files.values():
            file.close()
    np.save(folder / "offsets.npy", offsets, allow_pickle=False)
    order.ids.rename("user_id").to_frame().write_parquet(folder / "user_ids.parquet")
    (folder / "time_kind.txt").write_text(time_kind, encoding="utf-8")
    for file in folder.iterdir():
        sync(file)


def _starts(order: Order, done: int, buckets: int) -> Int64:
    """First row of the stretch from user `done` on, in each bucket."""
    before = np.bincount(
        order.buckets[:done], weights=order.lengths[:done].astype(np.float64), minlength=buckets
    )
    return before.astype(np.int64)


def _stretches(offsets: Int64, done: int) -> list[tuple[int, int]]:
    """Users from one place to another, about `_STRETCH` purchases each."""
    num_users, found = len(offsets) - 1, []
    while done < num_users:
        reach = int(np.searchsorted(offsets, offsets[done] + _STRETCH, side="right")) - 1
        last = min(num_users, max(done + 1, reach))
        found.append((done, last))
        done = last
    return found


def _stretch(
    encoded: Pieces, order: Order, users: slice, starts: Int64
) -> tuple[dict[str, NDArray[Any]], Int64]:
    """The arrays of some users that follow each other, and where the next begin in each bucket."""
    buckets, lengths = order.buckets[users], order.lengths[users]
    by_bucket = np.argsort(buckets, kind="stable")
    sizes = np.bincount(buckets, weights=lengths.astype(np.float64), minlength=len(starts))
    ends = starts + sizes.astype(np.int64)
    places = np.empty(len(buckets), dtype=np.int64)  # where each user's rows lie, bucket by bucket
    places[by_bucket] = np.cumsum(lengths[by_bucket]) - lengths[by_bucket]
    rows = jagged_rows(places, lengths)

    def read(name: str) -> NDArray[Any]:
        kind = _TYPES[name]
        parts = [
            _part(encoded.path(bucket) / f"{name}.bin", kind, int(starts[bucket]), int(size))
            for bucket, size in enumerate(sizes)
            if size
        ]
        return np.concatenate(parts)[rows]

    return dict(zip(order.arrays, in_threads(read, order.arrays), strict=True)), ends


def _part(path: Path, kind: np.dtype[Any], start: int, size: int) -> NDArray[Any]:
    """Some numbers of a bucket. One unit each where a bucket, unlike others, has no quantities."""
    if not path.exists():
        return np.ones(size, dtype=kind)
    return np.fromfile(path, dtype=kind, count=size, offset=start * kind.itemsize)


def _opened(path: Path, kind: np.dtype[Any], total: int, rows: int) -> Any:
    """A .npy file of `total` numbers, of which `rows` are there, to write the next one."""
    if not rows:
        with path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False,
                      "shape": (total,)}  # fmt: skip
            np.lib.format.write_array_header_1_0(file, header)
    there = path.open("r+b")
    np.lib.format.read_magic(there)
    np.lib.format.read_array_header_1_0(there)
    there.truncate(there.tell() + rows * kind.itemsize)
    there.seek(0, os.SEEK_END)
    return there


def _done(journal: Path) -> int:
    """Users whose purchases are written and on disk."""
    return int(read_json(journal)["users"]) if journal.exists() else 0


def _note(journal: Path, users: int, files: dict[str, Any]) -> None:
    for file in files.values():
        file.flush()
        os.fsync(file.fileno())
    temporary = journal.with_name("tmp-" + journal.name)
    write_json(temporary, {"users": users})
    temporary.rename(journal)
