"""Purchases: the checked log, with an account of every row that went in."""

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from nextbuy.data.histories import TimeKind

BasketKind = Literal["column", "timestamp", "none"]

REJECT_SCHEMA = {
    "file": pl.String,
    "line": pl.Int64,
    "column": pl.String,
    "reason": pl.String,
    "raw": pl.String,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """Where every row went: `rows_in == kept + rejected + duplicates`, always."""

    rows_in: int
    kept: int
    rejected: int = 0
    duplicates: int = 0

    def __post_init__(self) -> None:
        if self.rows_in != self.kept + self.rejected + self.duplicates:
            raise AssertionError(f"Rows were lost: {self}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Purchases:
    """A checked log.

    Attributes:
        frame: `user_id`, `item_id` (text, never null or empty) and `timestamp` (UTC microseconds as
            `Datetime("us", "UTC")`, or `Int64` positions when `time_kind == "order"`); optional
            `platform`, `category`, `basket_id` (text), `price`, `quantity` (Float64). Rows are in
            input order.
        rejects: One row a rejected input row: file, line, column, reason, raw text.
        counts: The account of the rows.
        time_kind: Whether `timestamp` is dates or only an order.
        basket_kind: What makes a basket: the `basket_id` column, equal timestamps, or nothing (each
            row is its own).
        guesses: What was recognised rather than told, one sentence each, to be printed.
        hashes: Name and SHA-256 of each file that was read, as it lies on disk.
    """

    frame: pl.DataFrame
    rejects: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REJECT_SCHEMA))
    counts: RowCounts
    time_kind: TimeKind
    basket_kind: BasketKind
    guesses: tuple[str, ...] = ()
    hashes: tuple[tuple[str, str], ...] = ()
