"""Calendar dates in text: which order of day, month and year a column has, and its moments.

One `strptime` format, taken from the first value, reads a uniform column fast. Only what it cannot
read goes through the patterns here, which know each order but never mix two.
"""

import re
from dataclasses import dataclass
from typing import Final

import polars as pl

from nextbuy.errors import TimeFormatError

_CLOCK: Final = (
    r"(?:(?P<sep>[T ]| +)(?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2})(?P<f>[.,]\d{1,9})?)?"
    r" ?(?P<half>[AaPp][Mm])?)? ?(?P<z>Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """One order of day, month and year, as a pattern and as a `strptime` format."""

    name: str
    pattern: str
    format: str


_ORDERS: Final = (
    _Order(name="year-month-day", pattern=r"^(?P<Y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})",
           format="%Y-%m-%d"),
    _Order(name="year/month/day", pattern=r"^(?P<Y>\d{4})/(?P<m>\d{1,2})/(?P<d>\d{1,2})",
           format="%Y/%m/%d"),
    _Order(name="yearmonthday", pattern=r"^(?P<Y>\d{4})(?P<m>\d{2})(?P<d>\d{2})", format="%Y%m%d"),
    _Order(name="day/month/year", pattern=r"^(?P<d>\d{1,2})/(?P<m>\d{1,2})/(?P<Y>\d{4})",
           format="%d/%m/%Y"),
    _Order(name="month/day/year", pattern=r"^(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<Y>\d{4})",
           format="%m/%d/%Y"),
    _Order(name="day-month-year", pattern=r"^(?P<d>\d{1,2})-(?P<m>\d{1,2})-(?P<Y>\d{4})",
           format="%d-%m-%Y"),
    _Order(name="month-day-year", pattern=r"^(?P<m>\d{1,2})-(?P<d>\d{1,2})-(?P<Y>\d{4})",
           format="%m-%d-%Y"),
    _Order(name="day.month.year", pattern=r"^(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<Y>\d{4})",
           format="%d.%m.%Y"),
)  # fmt: skip
_TWINS: Final = {"day/month/year": "month/day/year", "day-month-year": "month-day-year"}
_BY_NAME: Final = {order.name: order for order in _ORDERS}


def is_date_text(text: pl.Series) -> pl.Series:
    """Whether each value has the shape of a date in any order; null counts as no."""
    shapes = "|".join(
        f"(?:{_unnamed(order.pattern)})" for order in _ORDERS if order.format != "%Y%m%d"
    )
    return text.str.contains(shapes).fill_null(value=False)


def parse_dates(
    text: pl.Series, told_format: str | None
) -> tuple[pl.Series, pl.Series | None, tuple[str, ...]]:
    """Moments (naive, or UTC where there was an offset), which are aware (None: none), guesses.

    Args:
        text: Dates; what is none becomes null.
        told_format: A `strptime` format, or None.

    Raises:
        TimeFormatError: If day and month cannot be told apart, or two orders are mixed.
    """
    if told_format is not None:
        return (*_strptime(text, told_format), ())
    known = text.drop_nulls()
    if known.is_empty():
        return text.cast(pl.Datetime("us"), strict=False), None, ()
    order, guesses = _order_of(known)
    fast = _fast_format(order, known)
    moments, aware = (
        _strptime(text, fast)
        if fast
        else (pl.repeat(None, len(text), dtype=pl.Datetime("us"), eager=True), None)
    )
    left = (moments.is_null() & text.is_not_null()).arg_true()
    if len(left):
        moments, aware = _fill(text, moments, aware, left, order)
        still = (moments.is_null() & text.is_not_null()).arg_true()
        _refuse_second_order(text.gather(still), order, known[0])
    return moments, aware, guesses


def _order_of(known: pl.Series) -> tuple[_Order, tuple[str, ...]]:
    """The order that reads most values; of twins the one that reads all, if only one does."""
    head = known.head(1000)
    fits = {order.name: int(head.str.contains(_full(order)).sum()) for order in _ORDERS}
    best = max(_ORDERS, key=lambda order: fits[order.name])
    if fits[best.name] == 0:
        raise TimeFormatError(
            f"The time column begins with {known[0]!r}, which is no known form of a date. "
            "Say its form, for example --time-format '%d %b %Y %H:%M'."
        )
    twin = _TWINS.get(best.name)
    if twin is None:
        return best, ()
    shape = known.str.extract_groups(_full(best)).struct.unnest()
    first = shape["d"].cast(pl.Int64, strict=False).drop_nulls()
    second = shape["m"].cast(pl.Int64, strict=False).drop_nulls()
    day_first, month_first = int((first > 12).sum()), int((second > 12).sum())
    if (day_first > 0) == (month_first > 0):
        found = (
            "both fit"
            if not day_first
            else f"{day_first} rows only fit one, {month_first} the other"
        )
        raise TimeFormatError(
            f"Dates such as {known[0]!r} could be {best.name} or {twin}: {found}. "
            f"Say which, for example --time-format '{best.format}'."
        )
    order = best if day_first else _BY_NAME[twin]
    return order, (f"dates are {order.name}",)


def _refuse_second_order(rest: pl.Series, order: _Order, example: str) -> None:
    for other in _ORDERS:
        if other.name == order.name or other.name == _TWINS.get(order.name):
            continue
        hits = rest.filter(rest.str.contains(_full(other)))
        if len(hits):
            raise TimeFormatError(
                f"The time column holds dates such as {example!r} ({order.name}) and {len(hits)} "
                f"such as {hits[0]!r} ({other.name}). Bring them to one form, or say the form to "
                f"keep, for example --time-format '{order.format}'."
            )


def _fast_format(order: _Order, known: pl.Series) -> str | None:
    """The `strptime` format of the first value that has this order; None if it has an odd clock."""
    for value in known.head(1000):
        match = re.match(_full(order), value)
        if match is None:
            continue
        clock = match.groupdict()
        if clock["half"] or (clock["f"] or ".").startswith(","):
            return None
        form = order.format
        if clock["H"]:
            form += clock["sep"] + "%H:%M" + (":%S" if clock["S"] else "")
            form += "%.f" if clock["f"] else ""
        if clock["z"]:
            if clock["z"] in ("Z", "z"):
                return form + clock["z"] if not value[-2].isspace() else None
            return (
                form + "%z"
                if len(clock["z"]) > 4 and not value[: match.start("z")].endswith(" ")
                else None
            )
        return form
    return None


def _strptime(text: pl.Series, form: str) -> tuple[pl.Series, pl.Series | None]:
    has_offset = "%z" in form or "%#z" in form
    is_aware = has_offset or form.endswith(("Z", "z"))
    try:
        moments = text.str.to_datetime(
            form, strict=False, time_unit="us", cache="%H" not in form,
            time_zone="UTC" if has_offset else None,
        )  # fmt: skip
    except pl.exceptions.PolarsError as error:
        raise TimeFormatError(f"The time format {form!r} cannot be used: {error}.") from error
    moments = moments.dt.replace_time_zone(None)
    return moments, moments.is_not_null() if is_aware else None


def _fill(
    text: pl.Series, moments: pl.Series, aware: pl.Series | None, rows: pl.Series, order: _Order
) -> tuple[pl.Series, pl.Series | None]:
    """Read the given rows with the pattern of the order, whatever clock each has."""
    parts = text.gather(rows).str.extract_groups(_full(order)).struct.unnest()
    number = {name: pl.col(name).cast(pl.Int64, strict=False).fill_null(0) for name in "YmdHMS"}
    hour = (
        pl.when(pl.col("half").str.to_lowercase() == "pm").then(number["H"] % 12 + 12)
        .when(pl.col("half").str.to_lowercase() == "am").then(number["H"] % 12)
        .otherwise(number["H"])
    )  # fmt: skip
    micros = (pl.col("f").str.slice(1) + "000000").str.slice(0, 6).cast(pl.Int64, strict=False)
    digits = pl.col("z").str.replace(":", "", literal=True)
    minutes = digits.str.slice(1, 2).cast(pl.Int64, strict=False) * 60 + (
        digits.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0)
    )
    offset = pl.when(digits.str.starts_with("-")).then(-minutes).otherwise(minutes).fill_null(0)
    read = parts.with_columns(
        pl.concat_str(
            [number["Y"].cast(pl.String).str.zfill(4)]
            + [part.cast(pl.String).str.zfill(2) for part in
               (number["m"], number["d"], hour, number["M"], number["S"])],
            separator="-",
        ).str.to_datetime("%Y-%m-%d-%H-%M-%S", strict=False, time_unit="us").alias("at")
    ).select(
        at=pl.col("at")
        + pl.duration(microseconds=micros.fill_null(0))
        - pl.duration(minutes=offset),
        aware=pl.col("z").is_not_null(),
    )  # fmt: skip
    moments = moments.scatter(rows, read["at"])
    if aware is None and not read["aware"].any():
        return moments, None
    known = pl.repeat(False, len(text), eager=True) if aware is None else aware
    return moments, known.scatter(rows, read["aware"])


def _full(order: _Order) -> str:
    return order.pattern + _CLOCK


def _unnamed(pattern: str) -> str:
    return re.sub(r"\?P<\w+>", "?:", pattern)
