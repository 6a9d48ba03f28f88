"""The catalog of a log that was encoded bucket by bucket: the same as of the whole log at once.

Legend: E entries.
"""

import numpy as np
import polars as pl
import pyarrow as pa

from nextbuy.data.catalog import Catalog
from nextbuy.data.encoding import catalog_table
from nextbuy.data.histories import Int32, Int64
from nextbuy.data.prepare.buckets import PRICE_PARTS, Entries
from nextbuy.data.prepare.journal import Pieces
from nextbuy.data.prepare.scatter import read_bucket
from nextbuy.progress import Progress


def build_catalog(
    encoded: Pieces, entries: Entries, *, buckets: int, progress: Progress
) -> tuple[Catalog, Int32]:
    """The catalog, and the index of each entry in it.

    Args:
        encoded: The buckets.
        entries: Of the log.
        buckets: How many there are.
        progress: Told about the prices.
    """
    table, indices = catalog_table(
        ids=entries.ids,
        platforms=entries.platforms,
        categories=_most_common(encoded, entries, buckets),
        prices=_medians(encoded, len(entries), buckets, progress),
        counts=_counts(encoded, len(entries), buckets),
    )
    return Catalog(table=table, level=entries.level), indices


def _counts(encoded: Pieces, num_entries: int, buckets: int) -> Int64:
    counts = np.zeros(num_entries, dtype=np.int64)
    for bucket in range(buckets):
        path = encoded.path(bucket) / "counts.bin"
        if path.exists():
            counts += np.fromfile(path, dtype=np.int64)
    return counts


def _most_common(encoded: Pieces, entries: Entries, buckets: int) -> pl.Series:
    """The category that most rows of an entry have; of equals the first in order."""
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(entries))
    paths = [encoded.path(bucket) / "categories.arrow" for bucket in range(buckets)]
    frames = [pl.read_ipc(path) for path in paths if path.exists()]
    if not frames or not len(entries.categories):
        return nothing
    best = (
        pl.concat(frames)
        .filter(pl.col("value") >= 0)
        .group_by("entry", "value")
        .agg(pl.col("len").sum())
        .sort("entry", "len", "value", descending=[False, True, False])
        .unique("entry", keep="first", maintain_order=True)
    )
    return nothing.scatter(best["entry"], entries.categories.gather(best["value"]))


def _medians(encoded: Pieces, num_entries: int, buckets: int, progress: Progress) -> pl.Series:
    medians = pl.Series([None], dtype=pl.Float64).new_from_index(0, num_entries)
    paths = [encoded.path(bucket) / "prices.arrow" for bucket in range(buckets)]
    paths = [path for path in paths if path.exists()]
    if not paths:
        return medians
    progress.start("prices", PRICE_PARTS)
    for part in range(PRICE_PARTS):
        prices = pl.DataFrame(pa.Table.from_batches([read_bucket(path, part) for path in paths]))
        found = prices.group_by("entry").agg(pl.col("price").median())
        medians = medians.scatter(found["entry"], found["price"])
        progress.advance(1, {})
    progress.finish()
    return medians
