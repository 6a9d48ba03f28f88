"""Raw tables of a limited number of rows, from Parquet and delimited files, from any place on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from nextbuy.data.formats.delimited import delimited_text, parse_text
from nextbuy.data.formats.opening import SUFFIXES, Opened
from nextbuy.data.formats.parquet import frame_of, needed_columns, readable
from nextbuy.data.formats.structure import DelimitedText, last_record_end
from nextbuy.data.formats.table import Part, Places, RawTable, numbered_rows
from nextbuy.data.histories import Int64
from nextbuy.data.options import ReadOptions
from nextbuy.errors import EmptyDataError, UnreadableFileError

_HEAD_BYTES: Final = 1 << 20
_BUFFER: Final = 8 << 20
_BYTES_PER_ROW: Final = 40
"""Of a delimited file, so that its pieces are about as long as others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the next batch begins.

    Attributes:
        file: Which of the files.
        row: Row of a Parquet file.
        byte: Of a delimited file, as is the next.
        line: Counted from 1.
    """

    file: int = 0
    row: int = 0
    byte: int = 0
    line: int = 1

    def next_file(self) -> Self:
        """The begin of the file after."""
        return type(self)(file=self.file + 1)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Batch:
    """Some rows, what the work of reading them was (rows or bytes), and where the next begin."""

    raw: RawTable
    units: int
    end: Place


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its suffix or else by how it begins.

    Raises:
        UnreadableFileError: If it is of a kind that cannot be read piece by piece.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    with path.open("rb") as file:
        head = file.read(4)
    if kind == "parquet" or head == b"PAR1":
        return True
    if kind != "delimited":
        raise UnreadableFileError(
            f"{path} is not Parquet, CSV or TSV, so it cannot be read piece by piece. Unpack it or "
            "write it as Parquet first; what fits into memory is read by: nextbuy train"
        )
    return False


def batches(files: list[Path], options: ReadOptions, start: Place, rows: int) -> Iterator[Batch]:
    """The rows of all files in their order, about `rows` at a time, from a place on."""
    for number in range(start.file, len(files)):
        here = start if number == start.file else Place(file=number)
        read = _parquet_batches if is_parquet(files[number]) else _delimited_batches
        yield from read(files[number], options, here, rows)


def _parquet_batches(path: Path, options: ReadOptions, start: Place, rows: int) -> Iterator[Batch]:
    name = str(path)
    with readable(name):
        file = pq.ParquetFile(
            path, page_checksum_verification=True, buffer_size=_BUFFER, pre_buffer=False
        )
    with file:
        names = needed_columns(name, file, options)
        total, first = file.metadata.num_rows, 0
        groups: list[int] = []
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if first + size <= start.row:
                first += size
                continue
            groups.append(group)
            held = sum(file.metadata.row_group(g).num_rows for g in groups)
            following = (
                file.metadata.row_group(group + 1).num_rows
                if group + 1 < file.num_row_groups
                else 0
            )
            if held + following <= rows and following:
                continue
            for table in _tables(name, file, groups, names, rows):
                end = first + table.num_rows
                if end > start.row:
                    cut = table.slice(max(0, start.row - first))
                    place = Place(file=start.file, row=end)
                    yield _parquet_batch(
                        name, cut, end - cut.num_rows, place.next_file() if end == total else place
                    )
                first = end
            groups = []


def _tables(
    name: str, file: pq.ParquetFile, groups: list[int], names: list[str], rows: int
) -> Iterator[pa.Table]:
    """Row groups together, or one that is long in pieces."""
    with readable(name):
        if sum(file.metadata.row_group(g).num_rows for g in groups) <= rows:
            yield file.read_row_groups(groups, columns=names)
            return
        for piece in file.iter_batches(batch_size=rows, row_groups=groups, columns=names):
            yield pa.Table.from_batches([piece])


def _parquet_batch(name: str, table: pa.Table, first: int, end: Place) -> Batch:
    frame = frame_of(name, table)
    part = Part(file=name, num_rows=frame.height, places=_moved(numbered_rows(frame), first))
    return Batch(raw=RawTable(frame=frame, parts=(part,)), units=frame.height, end=end)


def _delimited_batches(
    path: Path, options: ReadOptions, start: Place, rows: int
) -> Iterator[Batch]:
    size, wanted = path.stat().st_size, rows * _BYTES_PER_ROW
    with path.open("rb") as file:
        form, guesses = _form(path, file.read(_HEAD_BYTES), options)
        byte, line = start.byte, start.line
        if byte == 0:
            file.seek(0)
            byte = _begin_of_records(form, file.read(3))
            line = form.first_line
        while byte < size:
            file.seek(byte)
            block = file.read(wanted)
            end = len(block) if byte + len(block) == size else last_record_end(block)
            if end == 0:
                raise UnreadableFileError(
                    f"{path}: no record ends within {len(block)} bytes from line {line} on; a "
                    "quote is not closed there, or lines end in a way that is not known."
                )
            block = block[:end]
            raw = _parsed(replace(form, data=block, start=0, first_line=1), line - 1, options)
            byte, line = byte + end, line + block.count(b"\n")
            place = Place(file=start.file, byte=byte, line=line)
            yield Batch(
                raw=replace(raw, guesses=guesses), units=end,
                end=place.next_file() if byte == size else place,
            )  # fmt: skip


def _form(path: Path, head: bytes, options: ReadOptions) -> tuple[DelimitedText, tuple[str, ...]]:
    """Delimiter and names of a delimited file from its first bytes."""
    cut = last_record_end(head) if len(head) == _HEAD_BYTES else len(head)
    opened = Opened(name=str(path), data=head[:cut] or head, suffix=path.suffix.lower(), stored=b"")
    form, guesses = delimited_text(opened, options)
    if any(guess.startswith("encoding") for guess in guesses) or not _is_utf8(options.encoding):
        raise UnreadableFileError(
            f"{path} is not UTF-8, so it cannot be read piece by piece. Convert it first, for "
            f"example with: iconv -f {options.encoding or 'utf-16'} -t utf-8"
        )
    if not form.data[form.start :].strip() and len(head) < _HEAD_BYTES:
        raise EmptyDataError(f"0 purchases in {path}: it has only a header line.")
    return form, guesses


def _is_utf8(encoding: str | None) -> bool:
    return encoding is None or encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")


def _begin_of_records(form: DelimitedText, head: bytes) -> int:
    """Byte of the first record; the form was told without a byte order mark."""
    return form.start + (3 if head.startswith(b"\xef\xbb\xbf") else 0)


def _parsed(text: DelimitedText, lines_before: int, options: ReadOptions) -> RawTable:
    if not text.data.strip():
        return RawTable(
            frame=pl.DataFrame(schema=dict.fromkeys(text.names, pl.String)), parts=(), is_text=True,
            is_untitled=not options.header,
        )  # fmt: skip
    raw = parse_text(text, options)
    return replace(
        raw,
        parts=tuple(replace(part, places=_moved(part.places, lines_before)) for part in raw.parts),
        rejects=raw.rejects.with_columns(pl.col("line") + lines_before),
    )


def _moved(places: Places, lines: int) -> Places:
    """The same places, so many lines further down."""

    def moved(rows: Int64) -> tuple[list[int], list[str]]:
        numbers, raws = places(rows)
        return [number + lines for number in numbers], raws

    return moved
