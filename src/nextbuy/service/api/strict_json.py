"""JSON as RFC 8259 means it, and a little stricter: what two parsers could read in two ways is
refused, with the place of the first offence.

Refused are: other encodings than UTF-8 and a byte order mark; deep nesting, before anything is
parsed; NaN and Infinity; numbers beyond float and whole numbers beyond 64 bits; lone surrogates;
and a key that an object has twice.
"""

import json
import math
import re
from typing import Any, Final, NoReturn

import numpy as np

from nextbuy.service.problems import ProblemError

_STRINGS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKETS: Final = b"[]{}"
_OTHERS: Final = bytes(set(range(256)) - set(_BRACKETS))
_NOT_OF_STRINGS: Final = bytes(set(_OTHERS) - set(b'"'))
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_LONGEST_INTEGER: Final = 20  # characters of the lowest


def parse(raw: bytes, *, most_depth: int, name: str = "body") -> Any:
    """The value of a document.

    Args:
        raw: The whole document.
        most_depth: How deep arrays and objects may lie in each other; a bare array has depth 1.
        name: What the document is called in messages.

    Raises:
        ProblemError: 400 if it is no JSON; 422, with the field, if it is JSON that is refused.
    """
    if not raw or raw.isspace():
        raise ProblemError(422, f"The {name} is empty; send a JSON object.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError(400, f"The {name} is not UTF-8: byte {error.start} is wrong.") from error
    if text.startswith("\ufeff"):
        raise ProblemError(400, f"The {name} begins with a byte order mark; send plain UTF-8.")
    if raw.count(b"[") + raw.count(b"{") > most_depth and depth_of(raw) > most_depth:
        raise ProblemError(400, f"The {name} is nested deeper than {most_depth} levels.")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ProblemError(
            400, f"The {name} is no JSON: {error.msg}, at character {error.pos}."
        ) from error
    except _RefusedError:
        _tell_where(text, name)
    if "\\u" in text:
        _refuse_lone_surrogates(value, name)
    return value


def depth_of(raw: bytes) -> int:
    """How deep brackets lie in each other, outside of strings; a lower bound if it is no JSON."""
    most = raw.count(b"[") + raw.count(b"{")
    if most <= 1:
        return most
    brackets = b'"'
    if b"\\" not in raw:
        # Of a string without brackets nothing stays but its two quotes, next to each other.
        brackets = raw.translate(None, _NOT_OF_STRINGS).replace(b'""', b"")
    if b'"' in brackets:
        brackets = _STRINGS.sub(b"", raw).translate(None, _OTHERS)
    codes = np.frombuffer(brackets, dtype=np.uint8)
    opens = (codes == ord("[")) | (codes == ord("{"))
    return int(np.where(opens, 1, -1).cumsum().max(initial=0))


class _RefusedError(Exception):
    """Something in the document is refused; where is found by reading it again."""


def _refuse(_: str) -> NoReturn:
    raise _RefusedError


def _whole(text: str) -> int:
    if len(text) > _LONGEST_INTEGER or not _LOWEST <= (number := int(text)) <= _HIGHEST:
        raise _RefusedError
    return number


def _fractional(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _RefusedError
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RefusedError
    return found


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole, parse_float=_fractional, parse_constant=_refuse
)


class _Offence:
    """Stands in the value where something is refused."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _tell_where(text: str, name: str) -> NoReturn:
    """Read a refused document again, to name the place and the reason."""

    def whole(number: str) -> Any:
        try:
            return _whole(number)
        except _RefusedError:
            return _Offence("whole numbers have at most 64 bits")

    def fractional(number: str) -> Any:
        try:
            return _fractional(number)
        except _RefusedError:
            return _Offence("the number is beyond the range of a float")

    def one_object(pairs: list[tuple[str, Any]]) -> Any:
        seen = set()
        for key, _ in pairs:
            if key in seen:
                return _Offence(f"the key {shown(key)} is there twice")
            seen.add(key)
        return dict(pairs)

    decoder = json.JSONDecoder(
        object_pairs_hook=one_object, parse_int=whole, parse_float=fractional,
        parse_constant=lambda name: _Offence(f"{name} is no JSON number"),
    )  # fmt: skip
    found = _first(decoder.decode(text), name, _reason_of_offence)
    place, reason = found or (name, "something in it is refused")
    _refuse_at(place, reason)


def _refuse_lone_surrogates(value: Any, name: str) -> None:
    found = _first(value, name, _reason_of_surrogate)
    if found is not None:
        _refuse_at(*found)


def _refuse_at(place: str, reason: str) -> NoReturn:
    raise ProblemError(422, f"{place}: {reason}.", errors=[{"field": place, "message": reason}])


def _reason_of_offence(value: Any) -> str | None:
    return value.reason if isinstance(value, _Offence) else None


def _reason_of_surrogate(value: Any) -> str | None:
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        return "half of a surrogate pair is no character"
    return None


def _first(value: Any, place: str, reason_of: Any) -> tuple[str, str] | None:
    """The first value, or key, for which there is a reason, with its place; depth is limited."""
    reason = reason_of(value)
    if reason is not None:
        return place, reason
    parts: Any = ()
    if isinstance(value, dict):
        for key in value:
            if (reason := reason_of(key)) is not None:
                return place, reason
        parts = ((f"{place}.{shown(key)}", part) for key, part in value.items())
    elif isinstance(value, list):
        parts = ((f"{place}.{number}", part) for number, part in enumerate(value))
    for inner, part in parts:
        if (found := _first(part, inner, reason_of)) is not None:
            return found
    return None


def shown(key: str) -> str:
    """A key as part of a place: short, and without what a log or terminal would act on."""
    return (
        key[:64].encode("ascii", "backslashreplace").decode("ascii") if key.isprintable() else "?"
    )
