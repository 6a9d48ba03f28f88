"""Is a delimited text regular? Asked of all bytes with NumPy, before any parser may guess.

Regular means: valid UTF-8, no line over the limit, quotes only around whole fields, and every
record with the same number of fields. Then a fast parser and a careful one cannot disagree.
"""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import Int64

_BLOCK = 1 << 22  # longer than any allowed line
_LF, _CR, _QUOTE = 10, 13, 34

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DelimitedText:
    """A delimited text whose header is known.

    Attributes:
        name: The file, for messages.
        data: UTF-8, perhaps with broken places.
        start: Where the first record begins.
        first_line: The line of that record, counted from 1.
        delimiter: One character between the fields.
        names: Of the columns, at least 2; each record must have as many fields.
        longest: Most bytes of a line.
    """

    name: str
    data: bytes
    start: int
    first_line: int
    delimiter: str
    names: Sequence[str]
    longest: int


def is_regular(text: DelimitedText) -> bool:
    """Whether every record is whole; False means no more than "look closer"."""
    data, start, num_columns = text.data, text.start, len(text.names)
    delimiter = ord(text.delimiter)
    if not _lines_are_short(data, start, text.longest) or not returns_are_paired(data):
        return False
    is_ascii = data.isascii()
    has_quotes = data.find(b'"', start) >= 0
    pattern = np.full(num_columns, delimiter, dtype=np.uint8)
    pattern[-1] = _LF
    for block in _blocks(data, start, has_quotes):
        if not (is_ascii or _is_utf8(block)) or (
            has_quotes and not _quotes_wrap_fields(block, delimiter)
        ):
            return False
        marks = _structural(block, delimiter, has_quotes)
        if len(block) and block[-1] != _LF:
            marks = np.append(marks, np.uint8(_LF))
        num_rows, left = divmod(len(marks), num_columns)
        if left or not np.array_equal(marks, np.tile(pattern, num_rows)):
            return False
    return True


def record_ends(data: bytes, start: int) -> Int64:
    """Position of the line break at the end of each record of a regular text, from `start` on."""
    has_quotes = data.find(b'"', start) >= 0
    ends, position = [], start
    for block in _blocks(data, start, has_quotes):
        is_end = block == _LF
        if has_quotes:
            is_end &= ~_inside_quotes(block)
        ends.append(np.flatnonzero(is_end) + position)
        position += len(block)
    if not data.endswith(b"\n"):
        ends.append(np.array([len(data)]))
    return np.concatenate(ends).astype(np.int64) if ends else np.zeros(0, np.int64)


def last_record_end(data: bytes) -> int:
    """The place after the last line break outside quotes of a text that begins with a record; 0
    where there is none."""
    if b'"' not in data:
        return data.rfind(b"\n") + 1
    block = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero((block == _LF) & ~_inside_quotes(block))
    return int(ends[-1]) + 1 if len(ends) else 0


def line_breaks(data: bytes) -> Int64:
    """Positions of all line feeds."""
    return np.flatnonzero(np.frombuffer(data, np.uint8) == _LF).astype(np.int64)


def _blocks(data: bytes, start: int, has_quotes: bool) -> Iterator[Bytes]:
    """Pieces of a few megabytes that end where a record ends, if the text is regular."""
    whole = np.frombuffer(data, np.uint8)
    while start < len(data):
        end = min(start + _BLOCK, len(data))
        if end < len(data):
            if has_quotes:
                piece = whole[start:end]
                ends = np.flatnonzero((piece == _LF) & ~_inside_quotes(piece))
                end = start + int(ends[-1]) + 1 if len(ends) else len(data)
            else:
                end = data.rfind(b"\n", start, end) + 1 or len(data)
        yield whole[start:end]
        start = end


def _structural(block: Bytes, delimiter: int, has_quotes: bool) -> Bytes:
    """Delimiters and line feeds outside quotes, in their order."""
    is_mark = block == _LF
    is_mark |= block == delimiter
    if has_quotes:
        is_mark &= ~_inside_quotes(block)
    return block[np.flatnonzero(is_mark)]


def _inside_quotes(block: Bytes) -> NDArray[np.bool_]:
    return (np.cumsum(block == _QUOTE, dtype=np.uint8) & 1).astype(bool)


def _quotes_wrap_fields(block: Bytes, delimiter: int) -> bool:
    """Whether quotes open at the begin of a field and close at its end; `""` closes and reopens."""
    quotes = np.flatnonzero(block == _QUOTE)
    if len(quotes) % 2:
        return False
    opening, closing = quotes[0::2], quotes[1::2]
    reopens = opening[1:] == closing[:-1] + 1
    before = block[np.maximum(opening - 1, 0)]
    begins = (opening == 0) | (before == delimiter) | (before == _LF)
    after = block[np.minimum(closing + 1, len(block) - 1)]
    ends = (closing == len(block) - 1) | np.isin(after, [delimiter, _LF, _CR])
    return bool((begins[:1]).all() and (begins[1:] | reopens).all()
                and (ends[:-1] | reopens).all() and ends[-1:].all())  # fmt: skip


def _is_utf8(block: Bytes) -> bool:
    try:
        codecs.utf_8_decode(block.tobytes(), "strict", True)
    except UnicodeDecodeError:
        return False
    return True


def _lines_are_short(data: bytes, start: int, longest: int) -> bool:
    while len(data) - start > longest:
        end = data.rfind(b"\n", start, start + longest + 1)
        if end < 0:
            return False
        start = end + 1
    return True


def returns_are_paired(data: bytes) -> bool:
    """Whether a carriage return only ever stands before a line feed."""
    return data.find(b"\r") < 0 or data.count(b"\r") == data.count(b"\r\n")
