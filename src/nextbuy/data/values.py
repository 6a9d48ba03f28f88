"""Ids as text and amounts as numbers, from whatever type they came in."""

import numpy as np
import polars as pl

from nextbuy.data.options import Limits, ReadOptions
from nextbuy.data.verdicts import Verdicts
from nextbuy.errors import ColumnError, DataError

_SPACES = " \t\r\n"
_EXACT_FLOAT = 2.0**53


def as_text(series: pl.Series, column: str) -> pl.Series:
    """Text, digit for digit; null and empty stay apart.

    Raises:
        ColumnError: If the type cannot be an id: fractions, lists, structs, times.
    """
    kind = series.dtype
    if kind == pl.String:
        return series
    if isinstance(kind, pl.Categorical | pl.Enum) or kind.is_integer() or kind == pl.Boolean:
        return series.cast(pl.String)
    if kind == pl.Null:
        return series.cast(pl.String)
    if isinstance(kind, pl.Decimal) and kind.scale == 0:
        return series.cast(pl.String)
    if kind == pl.Binary:
        try:
            return series.cast(pl.String)
        except pl.exceptions.PolarsError as error:
            raise ColumnError(f"The column for {column} holds bytes that are not UTF-8.") from error
    if kind.is_float():
        return _whole_floats(series, column)
    raise ColumnError(
        f"The column for {column} is of type {kind}; ids must be text or whole numbers."
    )


def _whole_floats(series: pl.Series, column: str) -> pl.Series:
    """Whole numbers that became floats only because some are missing."""
    known = series.fill_nan(None)
    values = known.drop_nulls().cast(pl.Float64)
    whole = values.is_finite() & (values.floor() == values) & (values.abs() < _EXACT_FLOAT)
    if not whole.all():
        example = values.filter(~whole)[0]
        raise ColumnError(
            f"The column for {column} holds floats such as {example!r}: ids beyond 2^53 or with "
            "fractions have already lost digits. Read the source with this column as text."
        )
    return known.cast(pl.Int64).cast(pl.String)


def clean_ids(
    series: pl.Series, column: str, options: ReadOptions, verdicts: Verdicts, *, is_required: bool
) -> tuple[pl.Series, tuple[str, ...]]:
    """Ids that may be used: stripped as asked, not empty, not too long, without NUL.

    All questions are asked of the distinct values, so that a clean column costs one pass.
    """
    guesses: list[str] = []
    distinct = series.unique()
    if options.spaces == "strip":
        stripped = distinct.str.strip_chars(_SPACES)
        if (stripped != distinct).any():
            changed = series.str.strip_chars(_SPACES)
            count = int((changed != series).sum())
            guesses.append(f"{count} values of {column} had spaces around them, now cut off")
            series, distinct = changed, stripped.unique()
    if options.normalize_ids == "nfc":
        normal = distinct.str.normalize("NFC")
        if (normal != distinct).any():
            series, distinct = series.str.normalize("NFC"), normal
    if (distinct == "").any():
        series = series.set(series == "", None)
    if is_required and series.null_count():
        verdicts.reject(series.is_null().to_numpy(), column, "empty")
    _refuse_odd(series, distinct, column, options.limits, verdicts)
    return series, tuple(guesses)


def _refuse_odd(
    series: pl.Series, distinct: pl.Series, column: str, limits: Limits, verdicts: Verdicts
) -> None:
    for reason, is_odd in (
        (f"longer than {limits.id_bytes} bytes", distinct.str.len_bytes() > limits.id_bytes),
        ("holds a NUL character", distinct.str.contains("\0", literal=True)),
    ):
        if is_odd.any():
            odd = distinct.filter(is_odd.fill_null(value=False))
            rows = series.is_in(odd.implode()).fill_null(value=False)
            verdicts.reject(rows.to_numpy(), column, reason)


def clean_numbers(
    series: pl.Series, column: str, options: ReadOptions, verdicts: Verdicts
) -> tuple[pl.Series, tuple[str, ...]]:
    """Finite floats; null where nothing was said, or by policy where it was no number.

    Raises:
        ColumnError: If the type cannot be a number.
    """
    if series.dtype == pl.String:
        numbers, empty, guesses = _parse_numbers(series, column, options)
    elif series.dtype.is_numeric() or series.dtype == pl.Null:
        numbers, empty, guesses = series.cast(pl.Float64), series.is_null(), ()
    else:
        raise ColumnError(f"The column for {column} is of type {series.dtype}, not a number.")
    bad = (~numbers.is_finite()).fill_null(value=True) & ~empty
    if bad.any():
        if options.bad_numbers == "reject":
            verdicts.reject(bad.to_numpy(), column, "is no finite number")
        else:
            guesses += (f"{int(bad.sum())} values of {column} are no number, now unknown",)
        numbers = numbers.set(bad, None)
    return numbers, guesses


def _parse_numbers(
    series: pl.Series, column: str, options: ReadOptions
) -> tuple[pl.Series, pl.Series, tuple[str, ...]]:
    numbers = series.cast(pl.Float64, strict=False)
    empty = series.is_null()
    if options.decimal != "," and numbers.null_count() == series.null_count():
        return numbers, empty, ()
    text = series.str.strip_chars()
    empty |= (text == "").fill_null(value=True)
    numbers = text.cast(pl.Float64, strict=False)
    if options.decimal == ".":
        return numbers, empty, ()
    is_guess = options.decimal is None
    if is_guess:
        commas = text.str.contains(r"^[+-]?\d+(\.\d{3})*,(\d{1,2}|\d{4,})$").fill_null(value=False)
        points = text.str.contains(r"^[+-]?\d+\.\d+$").fill_null(value=False)
        if not commas.any() or points.sum() > commas.sum():
            return numbers, empty, ()
    is_plain = text.str.contains(r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?$").fill_null(value=False)
    plain = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    numbers = plain.cast(pl.Float64, strict=False).set(~is_plain, None)
    return numbers, empty, (f"decimal comma in {column}",) if is_guess else ()


def reject_returns(
    numbers: dict[str, pl.Series], options: ReadOptions, verdicts: Verdicts
) -> tuple[str, ...]:
    """Prices and quantities of zero or below, by policy.

    Raises:
        DataError: If the policy is `error` and there is one.
    """
    guesses = []
    for column, values in numbers.items():
        is_return = (values <= 0).fill_null(value=False).to_numpy()
        count = int(np.count_nonzero(is_return))
        if not count:
            continue
        if options.returns == "error":
            row = int(np.flatnonzero(is_return)[0])
            raise DataError(
                f"{count} rows have a {column} of zero or below, the first is row {row + 1} with "
                f"{values[row]}. Remove them, or say --returns drop or keep."
            )
        if options.returns == "drop":
            verdicts.reject(is_return, column, "zero or negative: a return or a gift")
        else:
            guesses.append(f"{count} rows with a {column} of zero or below are kept")
    return tuple(guesses)
