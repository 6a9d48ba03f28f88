"""The door: purchases from files, folders, databases and frames, with an account of every row."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl

from nextbuy.data.checking import check
from nextbuy.data.formats.delimited import read_delimited
from nextbuy.data.formats.frames import read_frame
from nextbuy.data.formats.jsonlines import read_jsonlines
from nextbuy.data.formats.opening import SUFFIXES, Opened, files_of, open_file
from nextbuy.data.formats.parquet import read_parquet
from nextbuy.data.formats.sql import SqlSource, read_sql
from nextbuy.data.formats.table import RawTable
from nextbuy.data.options import Limits, ReadOptions
from nextbuy.data.purchases import Purchases
from nextbuy.errors import ColumnError
from nextbuy.progress import Progress, SilentProgress

__all__ = ["Limits", "ReadOptions", "SqlSource", "read_purchases", "write_rejects"]


def read_purchases(
    source: object,
    options: ReadOptions = ReadOptions(),  # noqa: B008  (frozen)
    progress: Progress = SilentProgress(),  # noqa: B008  (no state)
) -> Purchases:
    """Read and check a log.

    Args:
        source: A path, folder or glob of CSV, TSV, Parquet, JSON Lines or nested JSON, also packed
            with gzip, zstd or zip; a `SqlSource`; or a pandas, Polars, Arrow or DuckDB frame.
        options: How to read it.
        progress: Told the bytes that were read.

    Returns:
        The checked log. A file is held in memory while it is read, beside the table that it gives.

    Raises:
        UnreadableFileError: If the source cannot be read; nothing of it is kept then.
        ColumnError: If a column is missing or doubled.
        TimeFormatError: If times can be read in two ways.
        EmptyDataError: If no purchase is left; the reasons are counted.
    """
    if isinstance(source, str | Path):
        return check(_read_files(source, options, progress), str(source), options)
    if isinstance(source, SqlSource):
        raw = read_sql(source, options, progress)
    else:
        raw = read_frame(source, options)
    return check(raw, raw.parts[0].file, options)


def write_rejects(purchases: Purchases, path: Path) -> None:
    """Write the rejected rows as CSV: file, line, column, reason, raw text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    purchases.rejects.write_csv(path)


def _read_files(source: str | Path, options: ReadOptions, progress: Progress) -> RawTable:
    files = files_of(source)
    progress.start("reading", sum(path.stat().st_size for path in files))
    try:
        tables = [_read_one(open_file(path, options.limits, progress), options) for path in files]
    finally:
        progress.finish()
    return tables[0] if len(tables) == 1 else _together(tables)


def _read_one(opened: Opened, options: ReadOptions) -> RawTable:
    """Read one file; its hash is taken on another core meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(hashlib.sha256, opened.stored)
        table = _reader(opened)(opened, options)
        return replace(table, hashes=((opened.name, hashed.result().hexdigest()),))


def _reader(opened: Opened) -> Callable[[Opened, ReadOptions], RawTable]:
    known = SUFFIXES.get(opened.suffix)
    if known == "parquet" or opened.data.startswith(b"PAR1"):
        return read_parquet
    if known == "jsonlines" or (known is None and opened.data[:1] in (b"{", b"[")):
        return read_jsonlines
    return read_delimited


def _together(tables: list[RawTable]) -> RawTable:
    """Several files as one table; they must have the same columns."""
    first = tables[0]
    frames = []
    for table in tables:
        missing = set(first.frame.columns) - set(table.frame.columns)
        more = set(table.frame.columns) - set(first.frame.columns)
        if missing or more:
            what = f"lacks {sorted(missing)}" if missing else f"has {sorted(more)} beyond them"
            raise ColumnError(
                f"{table.parts[0].file} {what}: {first.parts[0].file} has the columns "
                f"{first.frame.columns}. Read files of different columns one by one."
            )
        frames.append(table.frame.select(first.frame.columns))
    for name in first.frame.columns:
        kinds = {frame.schema[name] for frame in frames}
        if len(kinds) > 1:
            frames = [
                _alike(frame, name, kinds, table)
                for frame, table in zip(frames, tables, strict=True)
            ]
    return RawTable(
        frame=pl.concat(frames),
        parts=tuple(part for table in tables for part in table.parts),
        rejects=pl.concat([table.rejects for table in tables]),
        guesses=tuple(dict.fromkeys(guess for table in tables for guess in table.guesses)),
        is_nested=first.is_nested,
        is_untitled=first.is_untitled,
        is_text=first.is_text,
        hashes=tuple(pair for table in tables for pair in table.hashes),
    )


def _alike(
    frame: pl.DataFrame, name: str, kinds: set[pl.DataType], table: RawTable
) -> pl.DataFrame:
    """Numbers of several widths become one type, whole numbers beside text become text."""
    if all(kind.is_integer() for kind in kinds):
        return frame.with_columns(pl.col(name).cast(pl.Int128))
    if all(kind.is_numeric() for kind in kinds):
        return frame.with_columns(pl.col(name).cast(pl.Float64))
    is_text = all(kind.is_numeric() or kind == pl.String for kind in kinds) and table.is_text
    if is_text or all(kind.is_integer() or kind == pl.String for kind in kinds):
        return frame.with_columns(pl.col(name).cast(pl.String))
    raise ColumnError(
        f"{table.parts[0].file}: the column {name!r} is of type {frame.schema[name]}, but the "
        f"files together have {sorted(str(kind) for kind in kinds)}. Bring them to one type."
    )
