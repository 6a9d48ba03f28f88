"""Parquet files: page checksums verified where there are any, only the columns that are needed."""

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from nextbuy.data.formats.opening import Opened
from nextbuy.data.formats.table import Part, RawTable, numbered_rows
from nextbuy.data.options import ReadOptions
from nextbuy.data.recognition import recognise
from nextbuy.errors import ColumnError, EmptyDataError, UnreadableFileError


def read_parquet(opened: Opened, options: ReadOptions) -> RawTable:
    """The needed columns of a Parquet file, in its own types.

    Raises:
        UnreadableFileError: If the file is damaged.
        ColumnError: If a needed column is missing, named twice or of a type without text or number.
    """
    if not opened.data:
        raise EmptyDataError(f"0 purchases in {opened.name}: the file is empty.")
    with readable(opened.name):
        file = pq.ParquetFile(pa.BufferReader(opened.data), page_checksum_verification=True)
        table = file.read(columns=needed_columns(opened.name, file, options))
    frame = frame_of(opened.name, table)
    return RawTable(
        frame=frame,
        parts=(Part(file=opened.name, num_rows=frame.height, places=numbered_rows(frame)),),
    )


def needed_columns(name: str, file: pq.ParquetFile, options: ReadOptions) -> list[str]:
    """Names of the columns of a Parquet file that hold something about purchases.

    Raises:
        ColumnError: If one is missing or named twice.
    """
    names = file.schema_arrow.names
    doubled = [column for column in names if names.count(column) > 1]
    if doubled:
        raise ColumnError(f"{name} has the column {doubled[0]!r} twice. Rename one.")
    found, _ = recognise(name, names, options)
    return list(found.values())


def frame_of(name: str, table: pa.Table) -> pl.DataFrame:
    """What was read from a Parquet file, checked.

    Raises:
        UnreadableFileError: If the file is damaged.
        ColumnError: If a column is of a type without text or number.
    """
    with readable(name):
        table.validate(full=True)
    try:
        return pl.DataFrame(table)
    except (pl.exceptions.PolarsError, pa.ArrowException, ValueError) as error:
        raise ColumnError(
            f"{name} has a column that cannot be converted: {_first_line(error)}."
        ) from error


@contextmanager
def readable(name: str) -> Iterator[None]:
    """What Arrow says of a damaged Parquet file, as an `UnreadableFileError`."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableFileError(
            f"{name} is no readable Parquet file: {_first_line(error)}. "
            "It is damaged or broke off; copy or write it again."
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0].rstrip(".")
