"""The careful parser of delimited text: slower, but it knows the place of everything it meets.

Used when the text is not regular. Rows that are broken are rejected one by one; a quote that is
never closed makes the rest of the file meaningless, so it stops the reading.
"""

import csv
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from nextbuy.data.formats.structure import DelimitedText
from nextbuy.data.formats.table import LONGEST_RAW, Part, Places, RawTable, reject_table
from nextbuy.data.histories import Int64
from nextbuy.data.purchases import REJECT_SCHEMA
from nextbuy.errors import UnreadableFileError

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+\Z")
_ROWS_PER_FRAME = 100_000


def parse_carefully(text: DelimitedText) -> RawTable:
    """Every record, in the frame or among the rejects.

    Raises:
        UnreadableFileError: If a quote is not closed; the line where it opens is named.
    """
    names = text.names
    lines = _Lines(text)
    kept = _Kept(names)
    rejected: list[tuple[int, str, bytes]] = []
    reader = csv.reader(lines, delimiter=text.delimiter, strict=True)
    while True:
        lines.begin_record()
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if lines.taken > 1 or "unexpected end" in str(error):
                raise lines.unclosed_quote() from error
            rejected.append((lines.first, f"malformed: {error}", lines.raw()))
            continue
        raw = lines.raw()
        if not raw.strip():
            continue
        if lines.is_broken_text:
            rejected.append((lines.first, "not UTF-8", raw))
        elif len(fields) != len(names):
            if lines.taken > 1:
                raise lines.unclosed_quote()
            reason = f"{len(fields)} fields instead of {len(names)}"
            rejected.append((lines.first, reason, raw))
        else:
            kept.add(fields, lines)
    rejected = sorted(rejected + lines.too_long, key=lambda reject: reject[0])
    return RawTable(
        frame=kept.frame(),
        parts=(Part(file=text.name, num_rows=len(kept), places=kept.places(text.data)),),
        rejects=_reject_rows(text.name, rejected),
    )


def _reject_rows(name: str, rejected: list[tuple[int, str, bytes]]) -> pl.DataFrame:
    if not rejected:
        return pl.DataFrame(schema=REJECT_SCHEMA)
    numbers, reasons, raws = zip(*rejected, strict=True)
    texts = [raw[: 4 * LONGEST_RAW].decode("utf-8", "backslashreplace") for raw in raws]
    return reject_table(name, numbers, [None] * len(numbers), reasons, texts)


class _Lines(Iterator[str]):
    """Lines for `csv.reader`, with a memory of where the current record began."""

    def __init__(self, text: DelimitedText) -> None:
        self._name, self._data, self._longest = text.name, text.data, text.longest
        self._matches = _LINE.finditer(text.data, text.start)
        self._next = text.first_line
        self.too_long: list[tuple[int, str, bytes]] = []
        self.begin_record()

    def begin_record(self) -> None:
        """The lines taken from now on belong to a new record."""
        self.taken, self.first, self.start, self.end = 0, self._next, -1, -1
        self.is_broken_text = False

    def __next__(self) -> str:
        for match in self._matches:
            number, self._next = self._next, self._next + 1
            begin = match.start() if self.start < 0 else self.start
            if len(self._data[begin : match.end()].rstrip(b"\r\n")) > self._longest:
                if self.taken:
                    raise self.unclosed_quote()
                self.too_long.append(
                    (number, f"line over {self._longest} bytes", match[0][: 4 * LONGEST_RAW])
                )
                continue
            if not self.taken:
                self.first, self.start = number, match.start()
            self.taken += 1
            self.end = match.end()
            try:
                return match[0].decode()
            except UnicodeDecodeError:
                self.is_broken_text = True
                return match[0].decode("utf-8", "surrogateescape")
        raise StopIteration

    def raw(self) -> bytes:
        """The bytes of the current record without its line break."""
        return self._data[self.start : self.end].rstrip(b"\r\n")

    def unclosed_quote(self) -> UnreadableFileError:
        """What to raise when the current record never ends well."""
        begin = self._data[self.start : self.start + 60].decode("utf-8", "backslashreplace")
        return UnreadableFileError(
            f"{self._name}: a quote that opens in line {self.first} is not closed properly "
            f"(looked up to line {self._next - 1}). The record begins {begin!r}. "
            "Close the quote, or double it where it belongs to the text."
        )


@dataclass(slots=True, eq=False)
class _Kept:
    """Rows that are whole, moved to a frame now and then so that they stay small in memory."""

    names: Sequence[str]
    _rows: list[list[str]] = field(default_factory=list)
    _frames: list[pl.DataFrame] = field(default_factory=list)
    _numbers: "array[int]" = field(default_factory=lambda: array("q"))
    _starts: "array[int]" = field(default_factory=lambda: array("q"))
    _ends: "array[int]" = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, fields: list[str], lines: _Lines) -> None:
        self._rows.append(fields)
        self._numbers.append(lines.first)
        self._starts.append(lines.start)
        self._ends.append(lines.end)
        if len(self._rows) == _ROWS_PER_FRAME:
            self._flush()

    def frame(self) -> pl.DataFrame:
        self._flush()
        return pl.concat(self._frames)

    def _flush(self) -> None:
        schema = dict.fromkeys(self.names, pl.String)
        self._frames.append(pl.DataFrame(self._rows, schema=schema, orient="row"))
        self._rows = []

    def places(self, data: bytes) -> Places:
        """Lines and raw text of the kept rows."""
        numbers, starts, ends = self._numbers, self._starts, self._ends

        def places(rows: Int64) -> tuple[list[int], list[str]]:
            raws = [data[starts[row] : ends[row]].rstrip(b"\r\n").decode() for row in rows]
            return [numbers[row] for row in rows], raws

        return places
