"""What a preparation will take, from the sizes of its files alone, before it starts."""

import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from nextbuy.data.catalog import Level
from nextbuy.data.encoding import LONGEST_HISTORY
from nextbuy.data.formats.opening import files_of
from nextbuy.data.formats.parquet import readable
from nextbuy.data.prepare.batches import is_parquet
from nextbuy.errors import ConfigError, MemoryIsShortError
from nextbuy.memory import MIB
from nextbuy.storage import StorageError

_BASE_BYTES: Final = 600 * MIB
"""Held by the interpreter, its libraries, and a stretch of the last pass."""

_BATCH_ROW_BYTES: Final = 400
"""Of a row of a batch, with the other batches that are read, understood and written meanwhile;
265 were measured with ids of 9 characters."""

_BUCKET_ROW_BYTES: Final = 500
"""Of a row of a bucket, with the one that is encoded beside it; 320 were measured."""

_USER_BYTES: Final = 160
_ROWS_PER_USER: Final = 10
"""Users are not known before; there are hardly more than one for so many rows."""

_WORK_ROW_BYTES: Final = 44 + 24
"""Of a row on disk, in its batch and in its bucket."""

_HISTORY_ROW_BYTES: Final = 24
_BATCH_ROWS: Final = 1 << 21
_BUCKET_ROWS: Final = 1 << 22
_LEAST_ROWS: Final = 1 << 14
_MOST_BUCKETS: Final = 4096
_UNITS: Final = {"": MIB, "k": 1024, "m": MIB, "g": 1024 * MIB, "t": 1024 * 1024 * MIB}


class PrepareConfig(BaseModel):
    """How a log is prepared; unknown keys are errors.

    `memory_limit` is in bytes; without it half of the memory of the machine. `buckets` follows from
    it and from the size of the log unless it is given; the result does not depend on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_limit: int | None = Field(default=None, ge=1)
    buckets: int | None = Field(default=None, ge=1, le=_MOST_BUCKETS)
    level: Level = "item"
    max_history: int = Field(default=LONGEST_HISTORY, ge=1)
    batch_rows: int | None = Field(default=None, ge=1, description="rows that are read at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the preparation of a log will take.

    Attributes:
        rows: Of the log; of text files an estimate.
        users: The most that are reckoned with.
        source_bytes: Of the files.
        batch_rows: Rows that are read at once.
        buckets: Number of buckets.
        memory_bytes: Held at once, at most.
        memory_limit: May be held.
        disk_bytes: Written and still there at the fullest moment.
        disk_free: Free bytes there.
        result_bytes: Of the histories.
    """

    rows: int
    users: int
    source_bytes: int
    batch_rows: int
    buckets: int
    memory_bytes: int
    memory_limit: int
    disk_bytes: int
    disk_free: int
    result_bytes: int

    def as_dict(self) -> dict[str, int]:
        """Plain numbers, for JSON."""
        return asdict(self)

    def check(self, *, written: int = 0) -> Self:
        """The forecast itself, if memory and disk will do.

        Args:
            written: Bytes that an earlier run of the same preparation has left.

        Raises:
            MemoryIsShortError, StorageError: If they will not.
        """
        if self.memory_bytes > self.memory_limit:
            raise MemoryIsShortError(
                f"{self.rows:,} rows need about {_mib(self.memory_bytes)} of memory at a time with "
                f"{self.buckets} buckets, {_mib(self.memory_limit)} may be held. Raise "
                "--memory-limit, or give more --buckets."
            )
        if self.disk_bytes > self.disk_free + written:
            raise StorageError(
                f"{self.rows:,} rows need about {_mib(self.disk_bytes)} of disk at the fullest "
                f"moment, {_mib(self.disk_free + written)} are free. Free some, or give an --out "
                "on another disk. Nothing was written."
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The files of a source: paths, sizes, when they were changed, and rows (0: not known)."""

    paths: tuple[Path, ...]
    sizes: tuple[int, ...]
    changed: tuple[int, ...]
    rows: int
    counts_rows: bool

    @classmethod
    def of(cls, source: str | Path) -> Self:
        """Look at the files of a path, folder or glob without reading their rows.

        Raises:
            UnreadableFileError: If there is none, or one is neither Parquet nor delimited.
            ConfigError: If some are Parquet and some are not.
        """
        paths = files_of(source)
        kinds = [is_parquet(path) for path in paths]
        if len(set(kinds)) > 1:
            raise ConfigError(
                f"{source} holds Parquet ({paths[kinds.index(True)]}) and text "
                f"({paths[kinds.index(False)]}). Prepare one kind, or convert the other."
            )
        states = [path.stat() for path in paths]
        return cls(
            paths=tuple(paths),
            sizes=tuple(state.st_size for state in states),
            changed=tuple(state.st_mtime_ns for state in states),
            rows=sum(_parquet_rows(path) if kinds[0] else _text_rows(path) for path in paths),
            counts_rows=kinds[0],
        )

    @property
    def units(self) -> int:
        """The whole work of reading: rows where they are known, else bytes."""
        return self.rows if self.counts_rows else sum(self.sizes)

    def identity(self) -> list[list[Any]]:
        """What must be the same for a preparation to go on."""
        return [
            [str(path), size, changed]
            for path, size, changed in zip(self.paths, self.sizes, self.changed, strict=True)
        ]

    def forecast(self, config: PrepareConfig, out: Path) -> Forecast:
        """What preparing these files will take."""
        limit = config.memory_limit or _machine_bytes() // 2
        users = max(1, self.rows // _ROWS_PER_USER)
        fixed = _BASE_BYTES + users * _USER_BYTES
        room = max(0, limit - fixed)
        fitting = max(_LEAST_ROWS, min(_BATCH_ROWS, room // _BATCH_ROW_BYTES))
        batch_rows = config.batch_rows or fitting
        in_bucket = max(_LEAST_ROWS, min(_BUCKET_ROWS, room // _BUCKET_ROW_BYTES))
        buckets = config.buckets or min(_MOST_BUCKETS, max(1, -(-self.rows // in_bucket)))
        bucket_bytes = _BUCKET_ROW_BYTES * (-(-self.rows // buckets))
        batch_bytes = _BATCH_ROW_BYTES * min(batch_rows, self.rows)
        result = _HISTORY_ROW_BYTES * self.rows + _USER_BYTES * users
        return Forecast(
            rows=self.rows, users=users, source_bytes=sum(self.sizes), batch_rows=batch_rows,
            buckets=buckets, memory_bytes=fixed + max(bucket_bytes, batch_bytes),
            memory_limit=limit, disk_bytes=_WORK_ROW_BYTES * self.rows + result,
            disk_free=_free_bytes(out), result_bytes=result,
        )  # fmt: skip


def parse_bytes(text: str) -> int:
    """Bytes of a size such as `8GiB`, `500M` or `4096`, which are MiB like everywhere else.

    Raises:
        ConfigError: If it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"{text!r} is no size; write it as 8GiB or 500MiB.")
    return int(float(match[1]) * _UNITS[match[2]])


def _parquet_rows(path: Path) -> int:
    with readable(str(path)):
        return int(pq.read_metadata(path).num_rows)


def _text_rows(path: Path) -> int:
    """As many as there would be if all lines were as long as the first ones."""
    with path.open("rb") as file:
        head = file.read(1 << 20)
    lines = max(1, head.count(b"\n"))
    return max(1, round(path.stat().st_size * lines / max(1, len(head))))


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_bytes(out: Path) -> int:
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"
