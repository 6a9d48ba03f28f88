"""From whatever stands in the time column to UTC microseconds, or to plain positions.

Numbers are epochs whose unit shows in their size; text is a calendar date in one order of day,
month and year. What can be read in two ways is not guessed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import numpy as np
import polars as pl

from nextbuy import columns
from nextbuy.data.date_formats import is_date_text, parse_dates
from nextbuy.data.histories import TimeKind
from nextbuy.data.options import ReadOptions
from nextbuy.data.verdicts import Verdicts
from nextbuy.errors import TimeFormatError

EARLIEST: Final = datetime.fromtimestamp(1e8, UTC)
"""1973-03-03: before this an epoch in one unit could be a later one in another; see `_UNITS`."""

_Unit = tuple[str, float, float]
_UNITS: Final[tuple[_Unit, ...]] = (("seconds", 1e8, 1_000_000.0), ("milliseconds", 1e11, 1_000.0),
                 ("microseconds", 1e14, 1.0), ("nanoseconds", 1e17, 0.001))  # fmt: skip
_DAY_NUMBER: Final = r"^(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"
_UTC = pl.Datetime("us", "UTC")


def microseconds_of(moment: datetime) -> int:
    """UTC microseconds since 1970 of a moment; one without a zone is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Times:
    """A time column that was understood.

    Attributes:
        values: `Datetime("us", "UTC")` or `Int64` positions; null where the row was rejected.
        kind: Whether they are dates or only an order.
        guesses: What was recognised.
    """

    values: pl.Series
    kind: TimeKind
    guesses: tuple[str, ...] = ()


def parse_times(series: pl.Series, options: ReadOptions, verdicts: Verdicts) -> Times:
    """Understand a time column; rows that make no sense are rejected.

    Raises:
        TimeFormatError: If it can be read in two ways: units, orders of day and month, zones.
    """
    if series.dtype == pl.String:
        text = series.set(series == "", None) if (series == "").any() else series
        verdicts.reject(text.is_null().to_numpy(), columns.TIME, "empty")
        return _parse_text(text, options, verdicts)
    if series.dtype.is_float():
        series = series.fill_nan(None)
    verdicts.reject(series.is_null().to_numpy(), columns.TIME, "empty")
    if series.dtype == pl.Date:
        return _dates(series.cast(pl.Datetime("us")), options, verdicts, ())
    if isinstance(series.dtype, pl.Datetime):
        kind = series.dtype
        exact = series.cast(pl.Datetime("us", kind.time_zone))
        return _dates(exact, options, verdicts, ())
    if series.dtype.is_integer():
        return _parse_numbers(series.cast(pl.Int64, strict=False), series, options, verdicts)
    if series.dtype.is_float() or isinstance(series.dtype, pl.Decimal):
        return _parse_numbers(series.cast(pl.Float64), series, options, verdicts)
    raise TimeFormatError(
        f"The time column is of type {series.dtype}; it must be dates, text or epoch numbers."
    )


def _parse_text(text: pl.Series, options: ReadOptions, verdicts: Verdicts) -> Times:
    head = text.drop_nulls().head(1000)
    if options.time_format is None and len(head):
        numeric = head.str.contains(r"^\s*[+-]?\d+(\.\d*)?\s*$")
        day_numbers = head.str.contains(_DAY_NUMBER)
        if options.time == "order" or (2 * numeric.sum() > len(head) and not day_numbers.all()):
            return _parse_number_text(text, options, verdicts)
    parsed, aware, guesses = parse_dates(text, options.time_format)
    bad = parsed.is_null() & text.is_not_null()
    verdicts.reject(bad.to_numpy(), columns.TIME, "is no date")
    if options.time == "order":
        raise TimeFormatError(
            f"time is said to be only an order, but the time column holds "
            f"{text.drop_nulls()[0]!r}. Leave the column out or say --time dates."
        )
    return _dates(parsed, options, verdicts, guesses, aware=aware)


def _parse_number_text(text: pl.Series, options: ReadOptions, verdicts: Verdicts) -> Times:
    numbers: pl.Series = text.cast(pl.Int64, strict=False)
    if numbers.null_count() > text.null_count():
        numbers = _odd_numbers(text, verdicts)
    return _parse_numbers(numbers, text, options, verdicts)


def _odd_numbers(text: pl.Series, verdicts: Verdicts) -> pl.Series:
    """Numbers with spaces or fractions; what is none is rejected.

    Raises:
        TimeFormatError: If there are dates among them.
    """
    bare = text.str.strip_chars()
    numbers = bare.cast(pl.Int64, strict=False)
    fractions = bare.cast(pl.Float64, strict=False)
    fractions = fractions.set((~fractions.is_finite()).fill_null(value=False), None)
    if numbers.null_count() > fractions.null_count():
        numbers = fractions
    bad = text.is_not_null() & numbers.is_null()
    dates = text.filter(bad & is_date_text(text))
    if len(dates):
        raise TimeFormatError(
            f"The time column holds numbers such as {text.filter(~bad).drop_nulls()[0]!r} and "
            f"{len(dates)} dates such as {dates[0]!r}. Bring them to one form."
        )
    verdicts.reject(bad.to_numpy(), columns.TIME, "is no date")
    return numbers


def _parse_numbers(
    numbers: pl.Series, shown: pl.Series, options: ReadOptions, verdicts: Verdicts
) -> Times:
    if options.time == "order":
        return _positions(numbers, verdicts, ())
    # cast: these are numbers, which Polars' own annotation cannot know
    low, high = (cast("float | None", end) for end in (numbers.min(), numbers.max()))
    if low is None or high is None:
        return Times(values=numbers.cast(pl.Int64).cast(_UTC), kind="dates")
    unit = next((u for u in _UNITS if u[1] <= low and high < u[1] * 100), None)
    outside = None
    if unit is None:
        if options.time == "auto" and low >= 0 and high < _UNITS[0][1]:
            note = f"time is only an order: its numbers end at {high:g}"
            return _positions(numbers, verdicts, (note,))
        unit, outside = _unit_of_most(numbers, shown)
        verdicts.reject(outside.to_numpy(), columns.TIME, _out_of_range())
        numbers = numbers.set(outside, None)
    name, _, factor = unit
    if numbers.dtype == pl.Int64:
        micros = numbers * int(factor) if factor >= 1 else numbers // 1000
    else:
        micros = (numbers * factor).floor().cast(pl.Int64)
    return _dates(micros.cast(_UTC), options, verdicts, (f"timestamps are epoch {name}",))


def _unit_of_most(numbers: pl.Series, shown: pl.Series) -> tuple[_Unit, pl.Series]:
    """The only unit that occurs, and which numbers are outside it."""
    inside = {
        unit: ((numbers >= unit[1]) & (numbers < unit[1] * 100)).fill_null(value=False)
        for unit in _UNITS
    }
    counts = {unit: int(rows.sum()) for unit, rows in inside.items() if rows.any()}
    num_known = len(numbers) - numbers.null_count()
    if len(counts) > 1:
        examples = []
        for unit, count in counts.items():
            row = inside[unit].arg_true()[0]
            examples.append(f"{count} in {unit[0]} (row {row + 1}: {shown[row]})")
        raise TimeFormatError(
            f"The time column holds epochs in {len(counts)} units: {', '.join(examples)}. "
            "Bring them to one unit."
        )
    if 2 * sum(counts.values()) < num_known:
        raise TimeFormatError(
            f"The time column holds numbers from {numbers.min()!r} to {numbers.max()!r}; "
            f"only {sum(counts.values())} of {num_known} are epochs later than "
            f"{EARLIEST:%Y-%m-%d}. If they are positions, say --time order."
        )
    (unit,) = counts
    return unit, ~inside[unit] & numbers.is_not_null()


def _positions(numbers: pl.Series, verdicts: Verdicts, guesses: tuple[str, ...]) -> Times:
    if numbers.dtype != pl.Int64:
        whole = numbers.floor() == numbers
        verdicts.reject((~whole).fill_null(value=False).to_numpy(), columns.TIME, "is no position")
        numbers = numbers.set((~whole).fill_null(value=True), None).cast(pl.Int64)
    return Times(values=numbers, kind="order", guesses=guesses)


def _dates(
    moments: pl.Series, options: ReadOptions, verdicts: Verdicts, guesses: tuple[str, ...],
    aware: pl.Series | None = None,
) -> Times:  # fmt: skip
    """Bring moments to UTC and reject those before the epochs and after tomorrow."""
    if isinstance(moments.dtype, pl.Datetime) and moments.dtype.time_zone is not None:
        moments = moments.dt.convert_time_zone("UTC")
    else:
        moments, more = _localize(moments, aware, options, verdicts)
        guesses += more
    now = options.now if options.now is not None else datetime.now(UTC)
    latest = now.astimezone(UTC) + timedelta(days=1)
    for outside, reason in (
        (moments < EARLIEST, _out_of_range()),
        (moments > latest, "lies in the future"),
    ):
        if outside.any():
            verdicts.reject(outside.fill_null(value=False).to_numpy(), columns.TIME, reason)
    return Times(values=moments, kind="dates", guesses=guesses)


def _localize(
    moments: pl.Series, aware: pl.Series | None, options: ReadOptions, verdicts: Verdicts
) -> tuple[pl.Series, tuple[str, ...]]:
    """Naive moments are in the told zone, or in UTC; aware ones (in UTC already) stay."""
    is_naive = moments.is_not_null() if aware is None else moments.is_not_null() & ~aware
    num_naive, num_known = int(is_naive.sum()), len(moments) - moments.null_count()
    if num_naive == 0:
        return moments.dt.replace_time_zone("UTC"), ()
    if options.time_zone is None:
        if num_naive < num_known:
            raise TimeFormatError(
                f"{num_naive} of {num_known} timestamps carry no offset (row "
                f"{int(np.flatnonzero(is_naive.to_numpy())[0]) + 1}), the others do. "
                "Say the zone of those without, for example --tz Asia/Kolkata."
            )
        return moments.dt.replace_time_zone("UTC"), ("timestamps without offset are UTC",)
    zone = options.time_zone
    local = moments.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    later = moments.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null")
    missing = is_naive & local.is_null()
    verdicts.reject(missing.to_numpy(), columns.TIME, f"does not exist in {zone} (clock change)")
    twice = int(((local != later) & is_naive).sum())
    notes: tuple[str, ...] = ()
    if num_naive < num_known:
        notes += (f"{num_naive} timestamps without offset are in {zone}",)
    if twice:
        notes += (f"{twice} timestamps occur twice in {zone} (clock change): the first is taken",)
    local = local.dt.convert_time_zone("UTC")
    if aware is None:
        return local, notes
    return moments.dt.replace_time_zone("UTC").zip_with(aware, local), notes


def _out_of_range() -> str:
    return f"lies before {EARLIEST:%Y-%m-%d}"
