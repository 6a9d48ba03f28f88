"""CSV, TSV and their relatives: encoding, delimiter, header, then the fast or the careful way."""

import codecs
import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl

from nextbuy import columns
from nextbuy.data.formats.careful import parse_carefully
from nextbuy.data.formats.opening import Opened
from nextbuy.data.formats.structure import (
    DelimitedText,
    is_regular,
    line_breaks,
    record_ends,
    returns_are_paired,
)
from nextbuy.data.formats.table import Part, Places, RawTable
from nextbuy.data.histories import Int64
from nextbuy.data.options import ReadOptions
from nextbuy.data.recognition import recognise
from nextbuy.errors import ColumnError, EmptyDataError, UnreadableFileError

_DELIMITERS = (",", ";", "\t", "|")
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_HEAD = 1 << 16
_AMOUNTS = (columns.PRICE, columns.QUANTITY)
_MULTIBYTE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_OVERLONG = re.compile(
    rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xed[\xa0-\xbf][\x80-\xbf]"
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_delimited(opened: Opened, options: ReadOptions) -> RawTable:
    """Every field as text, exactly as it stands in the file; empty fields are null.

    Raises:
        EmptyDataError: If there is nothing in the file but white space or a header.
        UnreadableFileError: If it is in another encoding, or a quote is not closed.
        ColumnError: If there is only one column, or two have one name.
    """
    text, guesses = delimited_text(opened, options)
    if (
        not text.data[text.start : text.start + _HEAD].strip()
        and not text.data[text.start :].strip()
    ):
        raise EmptyDataError(f"0 purchases in {opened.name}: it has only a header line.")
    return replace(parse_text(text, options), guesses=guesses)


def delimited_text(opened: Opened, options: ReadOptions) -> tuple[DelimitedText, tuple[str, ...]]:
    """The text with its form, and what was recognised about that.

    Raises:
        EmptyDataError, UnreadableFileError, ColumnError: As `read_delimited` does.
    """
    data, guesses = to_utf8(opened, options.encoding)
    start = _first_text(opened.name, data)
    delimiter, delimiter_guess = _delimiter(opened, data[start : start + _HEAD], options)
    guesses += delimiter_guess
    header, body = _header(opened.name, data, start, delimiter)
    names = header if options.header else [f"column_{i + 1}" for i in range(len(header))]
    if not options.header:
        body = start
    _check_names(opened.name, names, delimiter)
    text = DelimitedText(
        name=opened.name,
        data=data,
        start=body,
        first_line=_line_of(data, body),
        delimiter=delimiter,
        names=names,
        longest=options.limits.line_bytes,
    )
    return text, guesses


def to_utf8(opened: Opened, encoding: str | None) -> tuple[bytes, tuple[str, ...]]:
    """The text as UTF-8 without a byte order mark, and what was recognised about it.

    Raises:
        UnreadableFileError: If bytes do not belong to the encoding; the first place is named. Of a
            text that is UTF-8 elsewhere, single broken rows are left for the parser to reject.
    """
    data, marked = opened.data, None
    for mark, name in _MARKS:
        if data.startswith(mark):
            marked = name
            break
    asked = marked if encoding is None else codecs.lookup(encoding).name
    if asked not in (None, "utf-8", "utf-8-sig", "ascii"):
        try:
            text = data.decode(asked)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise UnreadableFileError(
                f"{opened.name} is not {asked}: line {line}, byte {error.start}: {error.reason}."
            ) from error
        guesses = (f"encoding {asked} (byte order mark)",) if encoding is None else ()
        return text.removeprefix("\ufeff").encode("utf-8", "surrogatepass"), guesses
    if marked == "utf-8":
        data = data[len(codecs.BOM_UTF8) :]
    if not data.isascii():
        _refuse_other_encodings(opened.name, data)
    return data, ()


def _refuse_other_encodings(name: str, data: bytes) -> None:
    """Bytes that are not UTF-8 in a text without any UTF-8 beyond ASCII: it is another encoding."""
    try:
        codecs.utf_8_decode(data, "strict", True)
    except UnicodeDecodeError as error:
        if _MULTIBYTE.search(data) or _OVERLONG.match(data, error.start):
            return
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableFileError(
            f"{name} is not UTF-8: line {line}, byte {error.start} is 0x{data[error.start]:02x}. "
            "Say its encoding, for example --encoding cp1252."
        ) from error


def _first_text(name: str, data: bytes) -> int:
    """Where the first line that is not blank begins."""
    if not data:
        raise EmptyDataError(f"0 purchases in {name}: the file is empty.")
    match = re.search(rb"[^\s]", data)
    if match is None:
        raise EmptyDataError(f"0 purchases in {name}: it holds only white space.")
    head = data[match.start() : match.start() + 200]
    if head.count(b"\0") > len(head) // 4:
        raise UnreadableFileError(
            f"{name} is no UTF-8 text: {head.count(bytes(1))} of its first {len(head)} bytes are "
            "NUL. If it is UTF-16 without a byte order mark, say --encoding utf-16-le."
        )
    return max(data.rfind(b"\n", 0, match.start()), data.rfind(b"\r", 0, match.start())) + 1


def _delimiter(opened: Opened, head: bytes, options: ReadOptions) -> tuple[str, tuple[str, ...]]:
    """The delimiter that occurs in the first line and equally often in most that follow."""
    if options.delimiter is not None:
        return options.delimiter, ()
    lines = re.split(r"\r\n|\n|\r", re.sub(r'"[^"]*"', "", head.decode("utf-8", "replace")))
    lines = [line for line in lines[:100] if line.strip()] or [""]
    scores = {}
    for candidate in _DELIMITERS:
        first = lines[0].count(candidate)
        alike = sum(line.count(candidate) == first for line in lines[:-1] or lines)
        scores[candidate] = (first > 0, alike / len(lines), first)
    best = max(_DELIMITERS, key=lambda candidate: scores[candidate])
    usual = "\t" if opened.suffix in (".tsv", ".tab") else ","
    if not scores[best][0]:
        return usual, ()
    return best, () if best == usual else (f"delimiter {_NAMES[best]}",)


def _header(name: str, data: bytes, start: int, delimiter: str) -> tuple[list[str], int]:
    """The fields of the first record and where the second begins."""
    lines = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)").finditer(data, start)
    end = start

    def texts() -> Iterator[str]:
        nonlocal end
        for match in lines:
            end = match.end()
            if end - start > _HEAD:
                raise UnreadableFileError(
                    f"{name}: the header is longer than {_HEAD} bytes or has an unclosed quote "
                    "in line 1."
                )
            yield match[0].decode("utf-8", "replace")

    try:
        header = next(csv.reader(texts(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UnreadableFileError(f"{name}: line 1, the header, is malformed: {error}.") from error
    return [field.strip() for field in header], end


def _check_names(name: str, names: list[str], delimiter: str) -> None:
    if len(names) < 2:
        raise ColumnError(
            f"{name} has one column, {names[0]!r}, when split at "
            f"{_NAMES.get(delimiter, delimiter)!r}. Say the delimiter, for example --delimiter ';'."
        )
    for position, column in enumerate(names):
        if not column:
            names[position] = f"column_{position + 1}"
        elif column in names[:position]:
            raise ColumnError(
                f"{name} has the column {column!r} twice: positions {names.index(column) + 1} and "
                f"{position + 1} of {names}. Rename one."
            )


def parse_text(text: DelimitedText, options: ReadOptions) -> RawTable:
    """The records of a text whose form is known; every field as it stands there."""
    mapping, _ = recognise(text.name, text.names, options, is_untitled=not options.header)
    table = _parse(text, mapping, options)
    return replace(table, is_untitled=not options.header, is_text=True)


def _parse(text: DelimitedText, mapping: Mapping[str, str], options: ReadOptions) -> RawTable:
    data, start = text.data, text.start
    if b'"' not in data and not returns_are_paired(data):
        start -= data.count(b"\r\n", 0, start)
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if data.endswith((b"\n\n", b"\n\r\n")):
        data = data.rstrip(b"\r\n")
    text = replace(text, data=data, start=start)
    if not is_regular(text):
        return parse_carefully(text)
    frame = _parse_fast(text, mapping, options)
    places = _regular_places(data, start)
    part = Part(file=text.name, num_rows=frame.height, places=places)
    return RawTable(frame=frame, parts=(part,))


def _parse_fast(
    text: DelimitedText, mapping: Mapping[str, str], options: ReadOptions
) -> pl.DataFrame:
    """Let Polars parse a regular text; amounts and epochs at once as numbers, if they all are."""
    has_time = columns.TIME in mapping  # without it all names are needed, for the message
    places = [place for place, name in enumerate(text.names) if name in mapping.values()]
    read = partial(
        pl.read_csv,
        text.data,
        has_header=False,
        skip_lines=text.first_line - 1,
        separator=text.delimiter,
        columns=places if has_time else None,
    )
    schema: dict[str, pl.DataType] = dict.fromkeys(text.names, pl.String())
    numbers = _number_columns(text, mapping, options)
    if numbers:
        try:
            return read(schema={**schema, **numbers})
        except pl.exceptions.ComputeError:
            pass  # a value that is no number: it gets its verdict as text
    return read(schema=schema)


def _number_columns(
    text: DelimitedText, mapping: Mapping[str, str], options: ReadOptions
) -> dict[str, pl.DataType]:
    """Columns of numbers, as far as the first rows show."""
    head = text.data[text.start : text.start + _HEAD]
    head = head[: head.rfind(b"\n") + 1]
    lines = csv.reader(head.decode().splitlines(keepends=True), delimiter=text.delimiter)
    rows = [row for row in lines if len(row) == len(text.names)][:100]  # the last may be cut
    wanted: list[tuple[str, str, pl.DataType]] = [(columns.TIME, r"\d{9,19}", pl.Int64())]
    if options.decimal != ",":
        wanted += [(name, r"-?\d+(\.\d+)?|", pl.Float64()) for name in _AMOUNTS]
    found = {}
    for column, pattern, kind in wanted:
        if column in mapping:
            place = text.names.index(mapping[column])
            if rows and all(re.fullmatch(pattern, row[place]) for row in rows):
                found[mapping[column]] = kind
    return found


def _line_of(data: bytes, position: int) -> int:
    head = data[:position]
    return head.count(b"\n") + head.count(b"\r") - head.count(b"\r\n") + 1


def _regular_places(data: bytes, body: int) -> Places:
    def places(rows: Int64) -> tuple[list[int], list[str]]:
        ends = record_ends(data, body)
        starts = np.concatenate([[body], ends[:-1] + 1])
        numbers = np.searchsorted(line_breaks(data), starts[rows]) + 1
        raws = [data[starts[row] : ends[row]].rstrip(b"\r").decode() for row in rows]
        return numbers.tolist(), raws

    return places
