"""The streaming pass: batches are understood, coded, and laid down with the rows of a bucket
together.

A piece of this work is one batch: its rows (one record batch a bucket), the ids that nobody had met
before, its rejects, and where the next batch begins. So what is finished says all that the rest
needs to know.

Legend: N rows of a batch, B buckets.
"""

import re
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from nextbuy import columns
from nextbuy.data.catalog import Level
from nextbuy.data.checking import Understood, understand
from nextbuy.data.encoding import LEVEL_COLUMNS
from nextbuy.data.histories import Int64, TimeKind
from nextbuy.data.options import ReadOptions
from nextbuy.data.prepare.batches import Batch, Place, batches
from nextbuy.data.prepare.books import CODED, Books, pair_keys
from nextbuy.data.prepare.journal import Pieces
from nextbuy.data.prepare.survey import Survey
from nextbuy.errors import ColumnError, DamagedError, TimeFormatError
from nextbuy.progress import Progress
from nextbuy.storage import read_json, write_json

_AT_ONCE: Final = 2
"""Batches that are understood, and that are written, while another one is coded."""

_COUNTED: Final = re.compile(r"(\d+) (.*)", re.DOTALL)
_ORDER: Final = "time is only an order"
_ENDS: Final = "time is only an order: its numbers end at "


@dataclass(frozen=True, slots=True, kw_only=True)
class Scattered:
    """What the streaming pass found.

    Attributes:
        num_batches: Pieces of work.
        rows_in: Rows of the source.
        rejected: Of these, rejected.
        columns: Columns of the log.
        time_kind: Whether time is dates or only an order.
        has_times: Whether times were told; else they are the order of the rows.
        guesses: What was recognised.
    """

    num_batches: int
    rows_in: int
    rejected: int
    columns: tuple[str, ...]
    time_kind: TimeKind
    has_times: bool
    guesses: tuple[str, ...]


def scatter(
    survey: Survey,
    options: ReadOptions,
    pieces: Pieces,
    *,
    level: Level,
    batch_rows: int,
    buckets: int,
    progress: Progress,
) -> tuple[Scattered, Books]:
    """Read all files and lay their rows down in buckets; goes on after the last finished batch.

    Raises:
        DataError: As reading in one piece does; and where batches are understood in different ways.
    """
    books, account = Books(), _Account()
    finished = pieces.count()
    pieces.drop_from(finished)  # two are written at a time, so that one may lack before the last
    for number in range(finished):
        books.read(pieces.path(number) / "ids.arrow")
        account.add(read_json(pieces.path(number) / "facts.json"))
    progress.start("reading", survey.units, done=account.units)
    try:
        if account.place.file < len(survey.paths):
            write = _Writing(pieces, LEVEL_COLUMNS[level], buckets)
            _read_on(
                survey, options, write, books=books, account=account, batch_rows=batch_rows,
                progress=progress,
            )  # fmt: skip
    finally:
        progress.finish()
    return account.summary(), books


def _read_on(
    survey: Survey,
    options: ReadOptions,
    write: "_Writing",
    *,
    books: Books,
    account: "_Account",
    batch_rows: int,
    progress: Progress,
) -> None:
    number = account.batches
    found = batches(list(survey.paths), options, account.place, batch_rows)
    with (
        ThreadPoolExecutor(2 * _AT_ONCE) as pool,
        closing(_understood(found, options, pool)) as all_,
    ):
        writing: deque[tuple[Future[None], int]] = deque()
        for batch, rows in all_:
            before = books.sizes()
            frame = _coded(rows, books)
            facts = {
                "end": asdict(batch.end), "units": batch.units, "rows_in": rows.num_rows,
                "rejected": rows.rejects.height, "columns": rows.frame.columns,
                "kept": rows.frame.height, "time_kind": rows.time_kind,
                "has_times": columns.TIME in frame.columns, "guesses": list(rows.guesses),
            }  # fmt: skip
            account.add(facts)
            piece = _Piece(frame, books.news(before), rows.rejects, facts)
            while len(writing) >= _AT_ONCE:
                _await(writing, progress)
            writing.append((pool.submit(write.put, number, piece), batch.units))
            number += 1
        while writing:
            _await(writing, progress)


def _await(writing: deque[tuple[Future[None], int]], progress: Progress) -> None:
    written, units = writing.popleft()
    written.result()
    progress.advance(units, {})


def _understood(
    found: Iterator[Batch], options: ReadOptions, pool: ThreadPoolExecutor
) -> Generator[tuple[Batch, Understood]]:
    """The batches in their order, with what they say; some are read and understood ahead."""
    ahead: deque[tuple[Batch, Future[Understood]]] = deque()
    for batch in found:
        ahead.append((batch, pool.submit(_understand, batch, options)))
        if len(ahead) > _AT_ONCE:
            first, rows = ahead.popleft()
            yield first, rows.result()
    while ahead:
        first, rows = ahead.popleft()
        yield first, rows.result()


def _understand(batch: Batch, options: ReadOptions) -> Understood:
    raw = batch.raw
    file = raw.parts[0].file if raw.parts else "the file"
    nested = [n for n, kind in raw.frame.schema.items() if isinstance(kind, pl.List | pl.Array)]
    if nested:
        raise ColumnError(
            f"{file}: the column {nested[0]!r} holds lists, which are not prepared piece by piece. "
            "Write one row a purchase first; what fits into memory is read by: nextbuy train"
        )
    return understand(raw, file, options)


def _coded(rows: Understood, books: Books) -> pl.DataFrame:
    """The rows with numbers instead of what is coded; without times where none were told."""
    frame = rows.frame
    ready = [
        pl.Series(name, books.of[name].code(frame[name])) if name in CODED else frame[name]
        for name in frame.columns
    ]
    coded = pl.DataFrame(ready)
    if coded.height and coded[columns.TIME].null_count() == coded.height:
        return coded.drop(columns.TIME)
    return coded.with_columns(pl.col(columns.TIME).cast(pl.Int64))


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """What a batch leaves behind."""

    frame: pl.DataFrame
    news: pl.DataFrame
    rejects: pl.DataFrame
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Writing:
    """Where it goes. `thing` is the column that says what an item is."""

    pieces: Pieces
    thing: str
    buckets: int

    def put(self, number: int, piece: _Piece) -> None:
        def write(folder: Path) -> None:
            frame = piece.frame
            write_buckets(
                folder / "rows.arrow", frame, bucket_of(frame, self.buckets), self.buckets
            )
            piece.news.write_ipc(folder / "ids.arrow", compression="lz4")
            if columns.PLATFORM in frame.columns and self.thing in frame.columns:
                pairs = pair_keys(frame[self.thing], frame[columns.PLATFORM])
                np.save(folder / "pairs.npy", pairs, allow_pickle=False)
            if piece.rejects.height:
                piece.rejects.write_ipc(folder / "rejects.arrow", compression="lz4")
            write_json(folder / "facts.json", piece.facts)

        self.pieces.put(number, write)


def bucket_of(frame: pl.DataFrame, buckets: int) -> Int64:
    """The bucket of each row: a hash of the user id, which one version of Polars never changes."""
    return (frame[columns.USER].hash(0) % buckets).cast(pl.UInt16).to_numpy()


def write_buckets(path: Path, frame: pl.DataFrame, buckets: Int64, num_buckets: int) -> None:
    """Write the rows as an Arrow file with one record batch a bucket; their order stays within."""
    order = np.argsort(buckets, kind="stable")
    ends = np.cumsum(np.bincount(buckets, minlength=num_buckets))
    table = frame[order].to_arrow(compat_level=pl.CompatLevel.oldest())
    schema = pa.schema(
        [
            field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field
            for field in table.schema
        ]
    )
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as file:
        start = 0
        for end in ends.tolist():
            rows = table.slice(start, end - start).cast(schema).combine_chunks()
            found = rows.to_batches()
            file.write_batch(found[0] if found else _nothing(schema))
            start = end


def read_bucket(path: Path, bucket: int) -> pa.RecordBatch:
    """The rows of one bucket of a file of `write_buckets`."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            return file.get_batch(bucket)
    except (OSError, pa.ArrowException) as error:
        raise DamagedError(f"{path} cannot be read: {error}. Prepare the log anew.") from error


def _nothing(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


class _Account:
    """Adds up what batches found, and sees that they understood the same."""

    def __init__(self) -> None:
        self.batches = self.units = self._rows_in = self._rejected = 0
        self.place = Place()
        self._guesses: dict[str, int] = {}
        self._first: dict[str, Any] | None = None
        self._columns: list[str] = []
        self._end = -1.0

    def add(self, facts: dict[str, Any]) -> None:
        """Take in one batch.

        Raises:
            TimeFormatError, ColumnError: If it was understood in another way than those before.
        """
        if facts["kept"]:
            self._compare(facts)
        self._columns = self._columns or facts["columns"]
        self.batches += 1
        self.units += facts["units"]
        self._rows_in += facts["rows_in"]
        self._rejected += facts["rejected"]
        self.place = Place(**facts["end"])
        for guess in facts["guesses"]:
            if guess.startswith(_ENDS):
                self._end = max(self._end, float(guess.removeprefix(_ENDS)))
                continue
            counted = _COUNTED.fullmatch(guess)
            text, count = (counted[2], int(counted[1])) if counted else (guess, 0)
            self._guesses[text] = self._guesses.get(text, 0) + count

    def _compare(self, facts: dict[str, Any]) -> None:
        first = self._first = self._first or facts
        if set(first["columns"]) != set(facts["columns"]):
            raise ColumnError(
                f"Batch {self.batches + 1} of the log has the columns {facts['columns']}, those "
                f"before have {first['columns']}. Read files of different columns one by one."
            )
        was, now = (_decisions(one) for one in (first, facts))
        if was != now:
            raise TimeFormatError(
                f"Batch {self.batches + 1} of the log was understood in another way than the first "
                f"one: {sorted(now - was) or 'nothing was recognised'} instead of "
                f"{sorted(was - now) or 'nothing'}. Say how it is to be read, for example with "
                "--time, --time-format or --tz, or bring it to one form."
            )

    def summary(self) -> Scattered:
        """Everything together."""
        facts = self._first or {"time_kind": "dates", "has_times": True}
        ends = (f"{_ENDS}{self._end:g}",) if self._end >= 0 else ()
        return Scattered(
            num_batches=self.batches, rows_in=self._rows_in, rejected=self._rejected,
            columns=tuple(self._columns), time_kind=facts["time_kind"],
            has_times=facts["has_times"],
            guesses=tuple(f"{n} {text}" if n else text for text, n in self._guesses.items()) + ends,
        )  # fmt: skip


def _decisions(facts: dict[str, Any]) -> set[str]:
    """What was recognised about the form, which no other row may contradict."""
    found = {guess for guess in facts["guesses"] if not _COUNTED.fullmatch(guess)}
    found = {_ORDER if guess.startswith(_ORDER) else guess for guess in found}
    return found | {f"time is {facts['time_kind']}, told: {facts['has_times']}"}


def pairs_of(pieces: Pieces, num_batches: int) -> Int64 | None:
    """The distinct pairs of a thing and a platform of all batches; None where there are none."""
    paths = [pieces.path(number) / "pairs.npy" for number in range(num_batches)]
    found = [np.load(path, allow_pickle=False) for path in paths if path.exists()]
    return np.unique(np.concatenate(found)) if found else None


def rejects_of(pieces: Pieces, number: int) -> pl.DataFrame | None:
    """The rejected rows of a batch; None if there are none."""
    path = pieces.path(number) / "rejects.arrow"
    return pl.read_ipc(path) if path.exists() else None
