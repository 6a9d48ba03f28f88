"""Columns that hold lists: each list is several purchases, in their order."""

import numpy as np
import polars as pl

from nextbuy.data.formats.table import Part, Places, RawTable
from nextbuy.data.histories import Int64


def explode_lists(raw: RawTable, item: str) -> RawTable:
    """One row an item; other list columns of the same lengths go along with it.

    A table whose items are lists and that has no other time is nested: the order is time.
    """
    lists = [
        name for name, kind in raw.frame.schema.items() if isinstance(kind, pl.List | pl.Array)
    ]
    if item not in lists:
        return raw
    frame = raw.frame.with_columns(pl.col(pl.Array).arr.to_list()) if lists else raw.frame
    lengths = frame[item].list.len().fill_null(0)
    together = [name for name in lists if (frame[name].list.len() == lengths).all()]
    counts = np.maximum(lengths.to_numpy(), 1).astype(np.int64)  # an empty list leaves a null row
    exploded = frame.explode(together, empty_as_null=True, keep_nulls=True)
    owners = np.repeat(np.arange(frame.height), counts)
    parts, first = [], 0
    for part in raw.parts:
        rows = owners[(owners >= first) & (owners < first + part.num_rows)] - first
        parts.append(Part(file=part.file, num_rows=len(rows), places=_through(part.places, rows)))
        first += part.num_rows
    kind = exploded.schema[item]
    if isinstance(kind, pl.Struct):
        exploded = exploded.rename({item: "_purchase"}).unnest("_purchase")
    return RawTable(
        frame=exploded, parts=tuple(parts), rejects=raw.rejects, guesses=raw.guesses,
        is_nested=True, is_untitled=raw.is_untitled, hashes=raw.hashes,
    )  # fmt: skip


def _through(places: Places, rows: Int64) -> Places:
    return lambda wanted: places(rows[wanted])
