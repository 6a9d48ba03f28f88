"""From a raw table to purchases: columns found, values understood, every row accounted for."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from nextbuy import columns
from nextbuy.data.formats.lists import explode_lists
from nextbuy.data.formats.table import RawTable
from nextbuy.data.histories import TimeKind
from nextbuy.data.options import ReadOptions
from nextbuy.data.purchases import BasketKind, Purchases, RowCounts
from nextbuy.data.recognition import recognise
from nextbuy.data.times import Times, parse_times
from nextbuy.data.values import as_text, clean_ids, clean_numbers, reject_returns
from nextbuy.data.verdicts import Verdicts
from nextbuy.errors import ColumnError, ConfigError, DataError, EmptyDataError

_IDS = (columns.USER, columns.ITEM, columns.PLATFORM, columns.CATEGORY, columns.BASKET)
_NUMBERS = (columns.PRICE, columns.QUANTITY)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Understood:
    """Rows that were understood one by one; what needs all rows of a user is still to be done.

    Attributes:
        frame: As `Purchases.frame`, rows that are equal included; `timestamp` is all null where
            nothing but the order of the rows tells the time.
        rejects: As `Purchases.rejects`.
        num_rows: Rows of the source, rejected ones included.
        time_kind: As `Purchases.time_kind`.
        guesses: What was recognised.
    """

    frame: pl.DataFrame
    rejects: pl.DataFrame
    num_rows: int
    time_kind: TimeKind
    guesses: tuple[str, ...]


def check(raw: RawTable, source: str, options: ReadOptions) -> Purchases:
    """Understand a raw table; what goes wrong is said with the name of the source.

    Args:
        raw: What was found.
        source: What the user called it, for messages.
        options: How to understand it.

    Raises:
        ColumnError, TimeFormatError: If a column is missing or can be read in two ways.
        EmptyDataError: If no row is left.
    """
    try:
        return _check(raw, source, options)
    except DataError as error:
        if source in str(error):
            raise
        raise type(error)(f"{source}: {error}") from error


def _check(raw: RawTable, source: str, options: ReadOptions) -> Purchases:
    found = understand(raw, source, options)
    clean, num_duplicates = without_duplicates(found.frame, options)
    counts = RowCounts(
        rows_in=found.num_rows, kept=clean.height, rejected=found.rejects.height,
        duplicates=num_duplicates,
    )  # fmt: skip
    if clean.is_empty():
        raise EmptyDataError(why_empty(source, counts, found.rejects))
    clean = with_positions(clean)
    basket_kind, notes = baskets_of(clean.columns, found.time_kind, options)
    return Purchases(
        frame=clean, rejects=found.rejects, counts=counts, time_kind=found.time_kind,
        basket_kind=basket_kind, guesses=found.guesses + notes, hashes=raw.hashes,
    )  # fmt: skip


def understand(raw: RawTable, source: str, options: ReadOptions) -> Understood:
    """Find the columns and understand each row by itself.

    Args:
        raw: What was found.
        source: What the user called it, for messages.
        options: How to understand it.

    Raises:
        ColumnError, TimeFormatError: If a column is missing or can be read in two ways.
    """
    mapping, guesses = recognise(source, raw.frame.columns, options, is_untitled=raw.is_untitled)
    guesses = raw.guesses + guesses
    raw = explode_lists(raw, mapping[columns.ITEM])
    frame = raw.frame.select(pl.col(name).alias(column) for column, name in mapping.items())
    verdicts = Verdicts(frame.height)
    ready: dict[str, pl.Series] = {}
    for column in (name for name in _IDS if name in mapping):
        text = as_text(frame[column], column)
        ready[column], notes = clean_ids(
            text, column, options, verdicts, is_required=column in columns.REQUIRED
        )
        guesses += notes
    times = _times(frame, raw, options, verdicts)
    guesses += times.guesses
    ready[columns.TIME] = times.values.alias(columns.TIME)
    for column in (name for name in _NUMBERS if name in mapping):
        ready[column], notes = clean_numbers(frame[column], column, options, verdicts)
        guesses += notes
    amounts = {name: ready[name] for name in _NUMBERS if name in ready}
    guesses += reject_returns(amounts, options, verdicts)
    clean = pl.DataFrame([ready[column].alias(column) for column in columns.ALL if column in ready])
    if verdicts.kept is not None:
        clean = clean.filter(verdicts.kept)
    return Understood(
        frame=clean, rejects=_all_rejects(raw, verdicts), num_rows=raw.num_rows,
        time_kind=times.kind, guesses=guesses,
    )  # fmt: skip


def _times(frame: pl.DataFrame, raw: RawTable, options: ReadOptions, verdicts: Verdicts) -> Times:
    if columns.TIME in frame.columns:
        times = parse_times(frame[columns.TIME], options, verdicts)
        if times.values.null_count():
            verdicts.reject(times.values.is_null().to_numpy(), columns.TIME, "is no date")
        return times
    if options.time == "dates" or (options.time == "auto" and not raw.is_nested):
        raise ColumnError(
            f"There is no column that looks like a time; the columns are {raw.frame.columns[:30]}. "
            "Say which one it is, with --time-column, or that the order of the rows is the only "
            "time, with --time order."
        )
    notes = ("time is only an order: that of the rows of each user",) if not raw.is_nested else (
        "time is only an order: that of each list of purchases",)  # fmt: skip
    return Times(
        values=pl.Series(columns.TIME, [None], dtype=pl.Int64).new_from_index(0, frame.height),
        kind="order",
        guesses=notes,
    )


def with_positions(clean: pl.DataFrame) -> pl.DataFrame:
    """Number the rows of each user, where nothing but their order is known."""
    times = clean[columns.TIME]
    if times.dtype != pl.Int64 or times.null_count() < clean.height or clean.is_empty():
        return clean
    return clean.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).over(columns.USER).alias(columns.TIME)
    )


def without_duplicates(clean: pl.DataFrame, options: ReadOptions) -> tuple[pl.DataFrame, int]:
    """The rows, of equal ones the first if that is asked for, and how many went."""
    if options.duplicates == "keep" or clean[columns.TIME].null_count() == clean.height:
        return clean, 0
    distinct = clean.unique(keep="first", maintain_order=True)
    return distinct, clean.height - distinct.height


def baskets_of(
    names: Sequence[str], time_kind: TimeKind, options: ReadOptions
) -> tuple[BasketKind, tuple[str, ...]]:
    """What makes a basket of a log with these columns, and how that was found out."""
    if options.baskets == "column" and columns.BASKET not in names:
        raise ConfigError(
            "baskets are said to be a column, but none was found. Say which, with --basket-column."
        )
    if options.baskets != "auto":
        return options.baskets, ()
    if columns.BASKET in names:
        return "column", ("baskets are the rows of one user with one basket_id",)
    what = "timestamp" if time_kind == "dates" else "position"
    return "timestamp", (f"baskets are the rows of one user with one {what}",)


def _all_rejects(raw: RawTable, verdicts: Verdicts) -> pl.DataFrame:
    rows, names, reasons = verdicts.rejected()
    if not len(rows):
        return raw.rejects
    rejects = pl.concat([raw.rejects, raw.rejects_at(rows, names, reasons)])
    order = pl.Series([part.file for part in raw.parts])
    if len(raw.parts) > 1:
        places = pl.DataFrame({"file": order, "_place": range(len(order))})
        rejects = rejects.join(places, on="file", how="left", maintain_order="left")
        return rejects.sort("_place", "line", maintain_order=True).drop("_place")
    return rejects.sort("line", maintain_order=True)


def why_empty(source: str, counts: RowCounts, rejects: pl.DataFrame) -> str:
    """The message of an `EmptyDataError`: what was read, and why nothing is left of it."""
    message = f"0 purchases in {source}: {counts.rows_in} rows were read, none is left."
    reasons = (
        rejects.group_by("column", "reason").len().sort("len", "reason", descending=[True, False])
    )
    found = [
        f"{count} because {column or 'the row'} {reason}"
        for column, reason, count in reasons.head(5).iter_rows()
    ]
    if found:
        first = rejects.row(0, named=True)
        message += (
            f" Rejected: {', '.join(found)}. "
            f"The first is line {first['line']}: {first['raw'][:200]!r}."
        )
    return message
