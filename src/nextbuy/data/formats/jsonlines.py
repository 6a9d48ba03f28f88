"""JSON Lines of purchases, and the nested form: one line a user with a list of purchases.

Numbers stay the text that they were, so that no id loses a digit. A line that is broken, or says a
thing twice, is rejected; the others are read.
"""

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from nextbuy.data.formats.delimited import to_utf8
from nextbuy.data.formats.opening import Opened
from nextbuy.data.formats.table import LONGEST_RAW, Part, Places, RawTable, reject_table
from nextbuy.data.histories import Int64
from nextbuy.data.options import ReadOptions
from nextbuy.data.purchases import REJECT_SCHEMA
from nextbuy.data.recognition import recognise
from nextbuy.errors import EmptyDataError, UnreadableFileError

DEEPEST: Final = 32
"""Objects and lists inside each other; a purchase needs three."""

_LINE = re.compile(rb"[^\r\n]+")
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')

# Any: what JSON holds is only known when it is looked at.
Record = dict[str, Any]


class _RefusedError(ValueError):
    """A line that is JSON for the standard library, but not for us."""


@dataclass(slots=True, eq=False)
class _Found:
    """What was read so far: rows with their places, and rejects."""

    rows: list[Record] = field(default_factory=list)
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    starts: "array[int]" = field(default_factory=lambda: array("q"))
    ends: "array[int]" = field(default_factory=lambda: array("q"))
    rejected: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, rows: Sequence[Record], number: int, start: int, end: int) -> None:
        self.rows += rows
        self.numbers.extend([number] * len(rows))
        self.starts.extend([start] * len(rows))
        self.ends.extend([end] * len(rows))


def read_jsonlines(opened: Opened, options: ReadOptions) -> RawTable:
    """The needed columns as text; one row an item where the items are lists.

    Raises:
        EmptyDataError: If the file holds nothing.
        UnreadableFileError: If a `.json` file is no JSON from begin to end.
    """
    data, guesses = to_utf8(opened, options.encoding)
    if not data.strip():
        raise EmptyDataError(f"0 purchases in {opened.name}: the file is empty.")
    document = _document(opened, data) if opened.suffix == ".json" else None
    found = _from_lines(data, options) if document is None else _from_document(document, data)
    if not found.rows:
        raise EmptyDataError(_nothing(opened.name, found))
    names = list(dict.fromkeys(name for row in found.rows for name in row))
    mapping, _ = recognise(opened.name, names, options)
    frame, owners = _frame(found.rows, list(mapping.values()))
    part = Part(file=opened.name, num_rows=frame.height, places=_places(data, found, owners))
    rejects = pl.DataFrame(schema=REJECT_SCHEMA)
    if found.rejected:
        numbers, reasons, raws = zip(*found.rejected, strict=True)
        rejects = reject_table(opened.name, numbers, [None] * len(numbers), reasons, raws)
    return RawTable(
        frame=frame, parts=(part,), rejects=rejects, guesses=guesses,
        is_nested=len(owners) > 0 and _has_lists(found.rows, list(mapping.values())),
    )  # fmt: skip


def _document(opened: Opened, data: bytes) -> list[object] | None:
    """The whole file as one JSON value; None if it is one value a line.

    Raises:
        UnreadableFileError: If it is a list that breaks off or is malformed.
    """
    text = data.decode("utf-8", "replace")
    try:
        value = _decode(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise UnreadableFileError(
                f"{opened.name} is no JSON list: {_reason(error)}{_place(error)}. Nothing was kept."
            ) from error
        return None
    return value if isinstance(value, list) else [value]


def _from_document(document: list[object], data: bytes) -> _Found:
    found = _Found()
    for number, value in enumerate(document, start=1):
        try:
            rows = _rows_of(value)
        except _RefusedError as error:
            found.rejected.append((number, str(error), json.dumps(value)[: LONGEST_RAW + 1]))
        else:
            found.add(rows, number, 0, len(data))
    return found


def _from_lines(data: bytes, options: ReadOptions) -> _Found:
    found = _Found()
    number, counted = 1, 0
    for match in _LINE.finditer(data):
        number += _num_breaks(data, counted, match.start())
        counted = match.start()
        raw = match[0]
        if not raw.strip():
            continue
        try:
            if len(raw) > options.limits.line_bytes:
                raise _RefusedError(f"line over {options.limits.line_bytes} bytes")
            rows = _rows_of(_decode(raw.decode()))
        except (ValueError, RecursionError) as error:
            shown = raw[: 4 * LONGEST_RAW].decode("utf-8", "backslashreplace")
            found.rejected.append((number, _reason(error), shown))
        else:
            found.add(rows, number, match.start(), match.end())
    return found


def _num_breaks(data: bytes, start: int, end: int) -> int:
    breaks = data.count(b"\n", start, end) + data.count(b"\r", start, end)
    return breaks - data.count(b"\r\n", start, end)


def _unique_keys(pairs: list[tuple[str, object]]) -> Record:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"the key {doubled!r} occurs twice")
    return record


def _refuse_constant(name: str) -> object:
    raise _RefusedError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_int=str, parse_float=str, parse_constant=_refuse_constant
)


def _decode(text: str) -> object:
    """JSON with numbers as text; no doubled keys, no NaN, not deep, no half characters."""
    if text.count("[") + text.count("{") > DEEPEST and _depth(text) > DEEPEST:
        raise _RefusedError(f"nested deeper than {DEEPEST}")
    value: object = _DECODER.decode(text)
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise _RefusedError("holds half of a surrogate pair") from error
    return value


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in re.findall(r"[\[\]{}]", _STRINGS.sub("", text)):
        depth += 1 if mark in "[{" else -1
        deepest = max(deepest, depth)
        if deepest > DEEPEST:
            break
    return deepest


def _rows_of(value: object) -> list[Record]:
    """The purchases of one JSON value: itself, or each object of the list that it holds."""
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise _RefusedError(f"is {kind}, not an object")
    for name, inner in value.items():
        if isinstance(inner, list) and inner and all(isinstance(each, dict) for each in inner):
            outer = {key: other for key, other in value.items() if key != name}
            return [{**outer, **each} for each in inner]
    return [value]


def _place(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f" in line {error.lineno}, character {error.colno}"
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"malformed JSON: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, RecursionError):
        return f"nested deeper than {DEEPEST}"
    return str(error)


def _has_lists(rows: Sequence[Record], names: Sequence[str]) -> bool:
    return any(isinstance(row.get(name), list) for row in rows for name in names)


def _frame(rows: Sequence[Record], names: Sequence[str]) -> tuple[pl.DataFrame, "array[int]"]:
    """Text columns, lists spread over rows; and which record each row came from."""
    columns: dict[str, list[str | None]] = {name: [] for name in names}
    owners = array("q")
    for owner, row in enumerate(rows):
        lists = [value for name in names if isinstance(value := row.get(name), list)]
        length = max((len(value) for value in lists), default=1) or 1
        for name, column in columns.items():
            column.extend(_spread(row.get(name), length))
        owners.extend([owner] * length)
    schema = dict.fromkeys(names, pl.String)
    return pl.DataFrame(columns, schema=schema), owners


def _spread(value: object, length: int) -> Iterator[str | None]:
    """A list fills up with null; anything else is the same for each row."""
    if isinstance(value, list):
        yield from (_text(each) for each in value)
        yield from (None for _ in range(length - len(value)))
    else:
        text = _text(value)
        yield from (text for _ in range(length))


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)


def _places(data: bytes, found: _Found, owners: "array[int]") -> Places:
    def places(rows: Int64) -> tuple[list[int], list[str]]:
        records = [owners[row] for row in rows]
        raws = [data[found.starts[r] : found.ends[r]] for r in records]
        return [found.numbers[r] for r in records], [
            raw[: 4 * LONGEST_RAW].decode("utf-8", "backslashreplace") for raw in raws
        ]

    return places


def _nothing(name: str, found: _Found) -> str:
    message = f"0 purchases in {name}: {len(found.rejected)} lines were read, none is an object."
    if found.rejected:
        number, reason, raw = found.rejected[0]
        message += f" Line {number}: {reason}: {raw[:100]!r}."
        if raw.lstrip().startswith("["):
            message += " If the file is one JSON list, name it .json."
    return message
