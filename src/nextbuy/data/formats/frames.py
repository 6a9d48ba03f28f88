"""Frames of any library: Narwhals at the door, Polars inside."""

from typing import Any

import narwhals as nw
import polars as pl
import pyarrow as pa

from nextbuy.data.formats.table import Part, RawTable, numbered_rows
from nextbuy.data.options import ReadOptions
from nextbuy.data.recognition import recognise
from nextbuy.errors import ColumnError, UnreadableFileError

_MISSING = ("nan", "NaN", "NaT", "<NA>")


def read_frame(source: object, options: ReadOptions) -> RawTable:
    """The needed columns of a pandas, Polars, Arrow or DuckDB frame, eager or lazy.

    Raises:
        UnreadableFileError: If the source is no frame.
        ColumnError: If a needed column is missing, or two have one name.
    """
    label = f"the {type(source).__module__.split('.')[0]} frame"
    try:
        # Any: from_native is typed per library, and which one came in is only known here.
        given: Any = nw.from_native(source)
        names = {str(name): name for name in given.collect_schema().names()}
    except nw.exceptions.DuplicateError as error:
        raise ColumnError(f"{label} has two columns of one name: {error}. Rename one.") from error
    except TypeError as error:
        raise UnreadableFileError(
            f"A source of type {type(source).__name__} cannot be read. Give a path, a SqlSource, "
            "or a pandas, Polars, Arrow or DuckDB frame."
        ) from error
    found, _ = recognise(label, list(names), options)
    wanted = given.select([names[name] for name in found.values()])
    if isinstance(wanted, nw.LazyFrame):
        wanted = wanted.collect("polars")
    frame = pl.DataFrame([_column(wanted, names[name], name) for name in found.values()])
    part = Part(file=label, num_rows=frame.height, places=numbered_rows(frame))
    return RawTable(frame=frame, parts=(part,))


def _column(frame: nw.DataFrame[Any], key: str, name: str) -> pl.Series:
    """One column; values of several Python types become text, each as it prints."""
    try:
        return frame.select(key).to_polars()[str(key)].alias(name)
    except (pa.ArrowException, pl.exceptions.PolarsError, TypeError, OverflowError, KeyError):
        values = frame[key].to_list()
    return pl.Series(name, [_text(value) for value in values], dtype=pl.String)


def _text(value: object) -> str | None:
    if value is None or (not isinstance(value, str) and str(value) in _MISSING):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)
