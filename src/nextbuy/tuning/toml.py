"""A config as TOML; the standard library reads it, and does not write it."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(table: Mapping[str, Any], *, comment: str = "") -> str:
    """Text that `tomllib` reads as the same table; what is None is left out.

    Args:
        table: Texts, numbers, truths, lists of them, and tables of the same.
        comment: Stands above, a line each.

    Raises:
        TypeError: For any other value.
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    return "\n".join([*lines, *_lines(table, ())]) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in table.items() if v is not None and not isinstance(v, Mapping)}
    lines = [f"{_key(name)} = {_value(value)}" for name, value in plain.items()]
    if path and lines:
        lines = ["", f"[{'.'.join(_key(part) for part in path)}]", *lines]
    for name, value in table.items():
        if isinstance(value, Mapping):
            lines += _lines(value, (*path, name))
    return lines


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but that a basic string holds no bare DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one) for one in value)}]"
    raise TypeError(f"{value!r} cannot be written as TOML.")
