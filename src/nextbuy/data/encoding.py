"""From purchases to a catalog and histories: text becomes indices, rows become jagged arrays.

Legend: N rows, E entries of the catalog. Entries are coded in the order of their ids while they are
counted, and get their catalog index, hot ones first, at the end.
"""

from dataclasses import dataclass, replace
from typing import Final, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextbuy import columns
from nextbuy.data.catalog import COLUMNS, Catalog, Level
from nextbuy.data.coding import Coded, code, code_pairs, code_together
from nextbuy.data.histories import Float32, Histories, Int32, Int64, offsets_of
from nextbuy.data.merging import merge_repeats
from nextbuy.data.ordering import first_of_runs, gather_baskets, sort_rows
from nextbuy.data.purchases import BasketKind, Purchases
from nextbuy.errors import ColumnError, ConfigError, EmptyDataError

LONGEST_HISTORY: Final = 10_000
"""Purchases of one user that are kept, the latest; nobody who shops for themselves has more."""

LEVEL_COLUMNS: Final = {
    "item": columns.ITEM,
    "category": columns.CATEGORY,
    "platform": columns.PLATFORM,
}
"""Column that holds what an item is at each level."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Encoded:
    """An encoded log and what became of its rows.

    `purchases rows == histories.num_purchases + num_merged + num_capped + num_left_out`.

    Attributes:
        catalog: Everything that occurs in the histories.
        histories: Of all users, in the order of their ids.
        num_merged: Rows that named an item of their basket again; their quantities were added.
        num_capped: Rows older than the latest `max_history` of their user.
        num_capped_users: Users that had such rows.
        num_left_out: Rows without a value at the level that was asked for.
    """

    catalog: Catalog
    histories: Histories
    num_merged: int = 0
    num_capped: int = 0
    num_capped_users: int = 0
    num_left_out: int = 0


def encode(
    purchases: Purchases, level: Level = "item", *, max_history: int = LONGEST_HISTORY
) -> Encoded:
    """Encode a log; where time is dates the result is the same for any order of its rows.

    Within a basket rows are in the order of their item ids, which carries no information, and an
    item occurs once. With `basket_kind == "none"` rows of equal time stay in input order.

    Args:
        purchases: The checked log.
        level: What an item is; an item on several platforms is one catalog entry a platform.
        max_history: Most purchases of one user, the latest are kept.

    Raises:
        ConfigError: If the level is not known or `max_history` is below 1.
        ColumnError: If the log lacks the column of the level.
        EmptyDataError: If no row has a value in it.
    """
    check_asked(level, max_history)
    frame, num_left_out = _with_level(purchases.frame, level)
    users, things = code_together(frame[columns.USER], frame[LEVEL_COLUMNS[level]])
    platforms = _code_or_none(frame, columns.PLATFORM)
    if platforms is None:
        entries, entry_items = things.codes, np.arange(len(things.ids), dtype=np.int32)
        entry_platforms = None
    else:
        entries, entry_items, entry_platforms = code_pairs(
            things.codes, platforms.codes, len(platforms.ids)
        )
    rows = in_order(frame, purchases.basket_kind, users.codes, entries)
    kept, num_merged, num_capped, num_capped_users = shorten(
        rows, purchases.basket_kind, max_history
    )
    table, indices = catalog_table(
        ids=things.ids.gather(entry_items),
        platforms=None if platforms is None or entry_platforms is None
        else gather_or_null(platforms.ids, entry_platforms),
        categories=_most_common(frame, columns.CATEGORY, entries, len(entry_items)),
        prices=_medians(frame, entries, len(entry_items)),
        counts=np.bincount(kept.entries, minlength=len(entry_items)),
    )  # fmt: skip
    histories = Histories(
        user_ids=users.ids.alias(columns.USER),
        items=indices[kept.entries],
        times=kept.times,
        baskets=kept.baskets,
        offsets=offsets_of(np.bincount(kept.users, minlength=len(users.ids))),
        prices=kept.prices,
        quantities=kept.quantities,
        time_kind=purchases.time_kind,
    )
    return Encoded(
        catalog=Catalog(table=table, level=level), histories=histories, num_merged=num_merged,
        num_capped=num_capped, num_capped_users=num_capped_users, num_left_out=num_left_out,
    )  # fmt: skip


def check_asked(level: str, max_history: int) -> None:
    """Refuse a level or a cap that cannot be.

    Raises:
        ConfigError: If the level is not known or `max_history` is below 1.
    """
    if level not in get_args(Level):
        raise ConfigError(f"level is {level!r}; choose one of {', '.join(get_args(Level))}.")
    if max_history < 1:
        raise ConfigError(f"max_history is {max_history}; it must be at least 1.")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rows:
    """Rows in their final order; all arrays of one length."""

    users: Int32
    entries: Int32
    times: Int64
    baskets: Int32
    prices: Float32 | None
    quantities: Float32 | None


def _with_level(frame: pl.DataFrame, level: Level) -> tuple[pl.DataFrame, int]:
    column = LEVEL_COLUMNS[level]
    if column not in frame.columns:
        raise ColumnError(
            f"The log has no column {column}, which the level {level} needs; it has "
            f"{frame.columns}. Name the column when reading, or use --level item."
        )
    num_missing = frame[column].null_count()
    if num_missing == frame.height:
        raise EmptyDataError(
            f"0 purchases at the level {level}: all {frame.height} rows lack a {column}."
        )
    return (frame.drop_nulls(column) if num_missing else frame), num_missing


def _code_or_none(frame: pl.DataFrame, column: str) -> Coded | None:
    if column not in frame.columns or frame[column].null_count() == frame.height:
        return None
    return code(frame[column])


def gather_or_null(ids: pl.Series, codes: Int32) -> pl.Series:
    """The id of each code, null where it is `MISSING`."""
    return ids.gather(pl.Series(codes).set(pl.Series(codes < 0), None))


def in_order(frame: pl.DataFrame, basket_kind: BasketKind, users: Int32, entries: Int32) -> Rows:
    """Sort the rows and number the baskets of each user.

    Args:
        frame: Times, and perhaps baskets, prices and quantities, of N rows.
        basket_kind: What makes a basket.
        users: Code of the user of each row, in the order of their ids.
        entries: Code of the entry of each row, in the order of items and platforms.
    """
    times = frame[columns.TIME].cast(pl.Int64).to_numpy()
    if basket_kind == "none":
        rows = sort_rows(users, times, np.arange(len(users)))
        begins = np.ones(len(users), dtype=bool)
        rows = replace(rows, last=entries[rows.order].astype(np.int64))
    else:
        rows = sort_rows(users, times, entries)
        begins = first_of_runs(rows.users, rows.times)
        if basket_kind == "column":
            rows, begins = gather_baskets(rows, code(frame[columns.BASKET]).codes)
    return Rows(
        users=rows.users,
        entries=rows.last.astype(np.int32),
        times=rows.times,
        baskets=_number_within(rows.users, begins),
        prices=_floats(frame, columns.PRICE, rows.order),
        quantities=_floats(frame, columns.QUANTITY, rows.order),
    )


def _number_within(users: Int32, begins: NDArray[np.bool_]) -> Int32:
    """0, 1, ... for the runs that begin where marked, from zero again for each user."""
    return _from_zero(users, np.cumsum(begins, dtype=np.int32))


def _from_zero(users: Int32, numbers: Int32) -> Int32:
    """The numbers of each user, moved so that the first is zero; rows of a user lie together."""
    firsts = np.flatnonzero(first_of_runs(users))
    base = np.zeros(int(users[-1]) + 1, dtype=np.int32)
    base[users[firsts]] = numbers[firsts]
    return numbers - base[users]


def _floats(frame: pl.DataFrame, column: str, order: Int64) -> Float32 | None:
    if column not in frame.columns:
        return None
    values = frame[column].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    return np.asarray(values[order], dtype=np.float32)


def shorten(rows: Rows, basket_kind: BasketKind, max_history: int) -> tuple[Rows, int, int, int]:
    """Items once a basket, then the latest of each user; with counts of what went.

    Returns:
        The rows; how many were merged, how many left out, and how many users had such.
    """
    begins = np.ones(len(rows.users), dtype=bool)
    if basket_kind != "none":
        begins = first_of_runs(rows.users, rows.baskets, rows.entries)
    starts = np.flatnonzero(begins)
    num_merged = len(begins) - len(starts)
    lengths = np.bincount(rows.users if not num_merged else rows.users[starts])
    is_long = lengths > max_history
    if not num_merged and not is_long.any():
        return rows, 0, 0, 0
    prices, quantities = rows.prices, rows.quantities
    if num_merged:
        prices, quantities = merge_repeats(begins, prices, quantities)
    kept = starts
    if is_long.any():
        oldest = np.cumsum(lengths) - np.minimum(lengths, max_history)
        latest = np.flatnonzero(np.arange(len(starts)) >= oldest[rows.users[starts]])
        kept = starts[latest]
        prices = None if prices is None else prices[latest]
        quantities = None if quantities is None else quantities[latest]
    users = rows.users[kept]
    shorter = Rows(
        users=users,
        entries=rows.entries[kept],
        times=rows.times[kept],
        baskets=_from_zero(users, rows.baskets[kept]),
        prices=prices,
        quantities=quantities,
    )
    return shorter, num_merged, len(starts) - len(kept), int(is_long.sum())


def catalog_table(
    *,
    ids: pl.Series,
    platforms: pl.Series | None,
    categories: pl.Series,
    prices: pl.Series,
    counts: Int64,
) -> tuple[pl.DataFrame, Int32]:
    """The catalog, most frequent first, and the catalog index of each entry code (0: left out).

    Args:
        ids: Item of each entry, length E, as are all others.
        platforms: Null where there is none; or None.
        categories: Null where unknown.
        prices: Median of each, null where unknown.
        counts: Purchases of each; entries without any are left out.
    """
    num_entries = len(ids)
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, num_entries)
    table = pl.DataFrame(
        {
            columns.ITEM: ids,
            columns.PLATFORM: nothing if platforms is None else platforms,
            columns.CATEGORY: categories,
            columns.PRICE: prices,
            "num_purchases": counts.astype(np.int64),
        }
    ).select(COLUMNS)
    table = table.with_columns(_entry=pl.int_range(num_entries, dtype=pl.Int32))
    table = table.filter(pl.col("num_purchases") > 0).sort(
        "num_purchases", columns.ITEM, columns.PLATFORM,
        descending=[True, False, False], nulls_last=True,
    )  # fmt: skip
    indices = np.zeros(num_entries, dtype=np.int32)
    indices[table["_entry"].to_numpy()] = np.arange(1, table.height + 1, dtype=np.int32)
    return table.drop("_entry"), indices


def _medians(frame: pl.DataFrame, entries: Int32, num_entries: int) -> pl.Series:
    if columns.PRICE not in frame.columns:
        return pl.Series([None], dtype=pl.Float64).new_from_index(0, num_entries)
    found = (
        pl.DataFrame({"entry": entries, "price": frame[columns.PRICE]})
        .group_by("entry")
        .agg(pl.col("price").median())
    )
    medians = pl.Series([None], dtype=pl.Float64).new_from_index(0, num_entries)
    return medians.scatter(found["entry"], found["price"])


def _most_common(frame: pl.DataFrame, column: str, entries: Int32, num_entries: int) -> pl.Series:
    """The value that most rows of an entry have; of equals the first in order; null if none has."""
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, num_entries)
    coded = _code_or_none(frame, column)
    if coded is None:
        return nothing
    pairs, entry, value = code_pairs(entries, coded.codes, len(coded.ids))
    table = pl.DataFrame({"entry": entry, "value": value, "count": np.bincount(pairs)})
    best = (
        table.filter(pl.col("value") >= 0)
        .sort("entry", "count", "value", descending=[False, True, False])
        .unique("entry", keep="first", maintain_order=True)
    )
    return nothing.scatter(best["entry"], coded.ids.gather(best["value"]))
