"""Parquet files: page checksums verified where there are any, only the columns that are needed."""

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
    try:
        file = pq.ParquetFile(pa.BufferReader(opened.data), page_checksum_verification=True)
        names = file.schema_arrow.names
        doubled = [name for name in names if names.count(name) > 1]
        if doubled:
            raise ColumnError(f"{opened.name} has the column {doubled[0]!r} twice. Rename one.")
        found, _ = recognise(opened.name, names, options)
        table = file.read(columns=list(found.values()))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableFileError(
            f"{opened.name} is no readable Parquet file: {_first_line(error)}. "
            "It is damaged or broke off; copy or write it again."
        ) from error
    try:
        frame = pl.DataFrame(table)
    except (pl.exceptions.PolarsError, pa.ArrowException, ValueError) as error:
        raise ColumnError(
            f"{opened.name} has a column that cannot be converted: {_first_line(error)}."
        ) from error
    return RawTable(
        frame=frame,
        parts=(Part(file=opened.name, num_rows=frame.height, places=numbered_rows(frame)),),
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0].rstrip(".")
