"""Tables for spreadsheets: nothing in them runs."""

from typing import Final

import polars as pl
import polars.selectors as cs

_FORMULA: Final = r"^([=+\-@\t\r])"
_ESCAPED: Final = r"^'([=+\-@\t\r])"


def safe_for_spreadsheets(table: pl.DataFrame) -> pl.DataFrame:
    """The same table such that a spreadsheet that opens it as CSV takes nothing for a formula.

    A text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return gets an apostrophe before
    it; moments are written to the microsecond.
    """
    return table.with_columns(
        cs.string().str.replace(_FORMULA, "'$1"),
        cs.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
    )


def without_apostrophes(texts: pl.Series) -> pl.Series:
    """The texts before `safe_for_spreadsheets`; also those that had the apostrophe of their own."""
    return texts.str.replace(_ESCAPED, "$1")
