"""The catalog: everything that can be bought, one row an item, hot rows first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nextbuy import columns
from nextbuy.data.histories import PADDING, UNKNOWN, Float32, Int32, Int64
from nextbuy.errors import DamagedError, DataError

Level = Literal["item", "category", "platform"]

COLUMNS = (columns.ITEM, columns.PLATFORM, columns.CATEGORY, columns.PRICE, "num_purchases")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Catalog:
    """Items 1..V; row r of `table` is item index r + 1. Index 0 is padding.

    Attributes:
        table: Columns `item_id`, `platform`, `category` (text, null where unknown), `price` (median
            seen, float, null where unknown), `num_purchases` (in the rows that it was built from).
            An item that is sold on several platforms has one row a platform.
        level: What an "item" is: an item, a category or a platform.
    """

    table: pl.DataFrame
    level: Level = "item"

    def __post_init__(self) -> None:
        if tuple(self.table.columns) != COLUMNS:
            raise DataError(f"A catalog has the columns {COLUMNS}, found {self.table.columns}.")

    def __len__(self) -> int:
        return self.table.height

    @property
    def prices(self) -> Float32:
        """Price of each index, length V + 1; `nan` for padding and where unknown."""
        return np.concatenate(
            [[np.nan], self.table[columns.PRICE].cast(pl.Float32).fill_null(np.nan).to_numpy()]
        ).astype(np.float32)

    def indices(
        self,
        item_ids: Sequence[str | None] | pl.Series,
        platforms: Sequence[str | None] | pl.Series | None = None,
    ) -> Int32:
        """Index of each id, `UNKNOWN` where the catalog has no such item.

        Without platforms an id that is sold on several is its most frequent row.
        """
        wanted = pl.DataFrame(
            {
                columns.ITEM: item_ids,
                columns.PLATFORM: [None] * len(item_ids) if platforms is None else platforms,
            },
            schema={columns.ITEM: pl.String, columns.PLATFORM: pl.String},
        )
        known = self.table.select(columns.ITEM, columns.PLATFORM).with_columns(
            index=pl.int_range(1, len(self) + 1, dtype=pl.Int32)
        )
        exact = wanted.join(
            known, on=[columns.ITEM, columns.PLATFORM], how="left", nulls_equal=True,
            maintain_order="left",
        )["index"]  # fmt: skip
        if platforms is None:
            first = known.unique(columns.ITEM, keep="first", maintain_order=True)
            any_platform = wanted.join(
                first.drop(columns.PLATFORM), on=columns.ITEM, how="left", maintain_order="left"
            )["index"]
            exact = any_platform
        return exact.fill_null(UNKNOWN).to_numpy().astype(np.int32)

    def ids(self, indices: NDArray[np.integer]) -> pl.DataFrame:
        """Rows `item_id`, `platform`, `category` of item indices 1..V, in the order given."""
        rows = np.asarray(indices, dtype=np.int64) - 1
        return self.table.select(columns.ITEM, columns.PLATFORM, columns.CATEGORY)[rows]

    def save(self, path: Path) -> None:
        """Write the table as Parquet with page checksums; the level is in its metadata."""
        table = self.table.to_arrow().replace_schema_metadata({"nextbuy.level": self.level})
        pq.write_table(table, path, write_page_checksum=True)

    @classmethod
    def load(cls, path: Path) -> "Catalog":
        """Read what `save` wrote.

        Raises:
            DamagedError: If it is no catalog, or an item occurs twice.
        """
        try:
            table = pq.read_table(path, page_checksum_verification=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise DamagedError(f"The catalog {path} cannot be read: {error}") from error
        level = (table.schema.metadata or {}).get(b"nextbuy.level", b"").decode()
        frame = pl.DataFrame(table)
        if level not in get_args(Level) or tuple(frame.columns) != COLUMNS:
            raise DamagedError(
                f"{path} is no catalog: level {level!r}, columns {frame.columns}; "
                f"a catalog has the columns {COLUMNS}."
            )
        doubled = frame.filter(frame.select(columns.ITEM, columns.PLATFORM).is_duplicated())
        if not doubled.is_empty():
            raise DamagedError(f"{path} has the item {doubled[columns.ITEM][0]!r} more than once.")
        return cls(table=frame, level=cast("Level", level))  # checked against Level above


def recount(catalog: Catalog, counts: Int64) -> tuple[Catalog, Int32]:
    """The catalog as it is known from some rows only: their items, most frequent first.

    A split calls this so that neither order nor membership of the catalog knows the test period.

    Args:
        catalog: Of the whole log.
        counts: Of each item 1..V in these rows.

    Returns:
        The new catalog, and a map of length V + 1 from old index to new (`UNKNOWN` where an item
        does not occur, `PADDING` for padding). Equal counts are in the order of their ids.
    """
    table = catalog.table.with_columns(
        num_purchases=pl.Series(counts, dtype=pl.Int64)
    ).with_columns(_old=pl.int_range(1, len(catalog) + 1, dtype=pl.Int32))
    table = table.filter(pl.col("num_purchases") > 0).sort(
        "num_purchases", columns.ITEM, columns.PLATFORM,
        descending=[True, False, False], nulls_last=True,
    )  # fmt: skip
    new_index = np.full(len(catalog) + 1, UNKNOWN, dtype=np.int32)
    new_index[PADDING] = PADDING
    new_index[table["_old"].to_numpy()] = np.arange(1, table.height + 1, dtype=np.int32)
    return Catalog(table=table.drop("_old"), level=catalog.level), new_index
