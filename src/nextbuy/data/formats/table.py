"""The raw table: rows as they were found, each with a place that a person can go to."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextbuy.data.histories import Int64
from nextbuy.data.purchases import REJECT_SCHEMA

Places = Callable[[Int64], tuple[list[int], list[str]]]
"""From row numbers of a part (0-based) to their lines (1-based) and raw text."""

LONGEST_RAW = 2000
"""Characters of raw text that a reject keeps."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Part:
    """The rows of one file.

    Attributes:
        file: Its name, as it is to be shown.
        num_rows: Rows that it gave to the frame.
        places: Where its rows are.
    """

    file: str
    num_rows: int
    places: Places


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RawTable:
    """What a source holds, before anything is known about its columns.

    Attributes:
        frame: Columns under the names of the source.
        parts: The files that it came from, in the order of the rows.
        rejects: Rows whose structure was broken, so that they have no place in the frame.
        guesses: What was recognised about the form, such as the delimiter.
        is_nested: Whether each row was one of a list of purchases, whose order is time.
        is_untitled: Whether the column names are only positions.
        is_text: Whether the source is text, so that numbers in it are only a faster reading.
        hashes: SHA-256 of each file, where the source has files.
    """

    frame: pl.DataFrame
    parts: tuple[Part, ...]
    rejects: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REJECT_SCHEMA))
    guesses: tuple[str, ...] = ()
    is_nested: bool = False
    is_untitled: bool = False
    is_text: bool = False
    hashes: tuple[tuple[str, str], ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows of the source, broken ones included."""
        return self.frame.height + self.rejects.height

    def rejects_at(
        self, rows: NDArray[np.integer], columns: Sequence[str], reasons: Sequence[str]
    ) -> pl.DataFrame:
        """The reject table of some rows of the frame, given in increasing order."""
        found = []
        first = 0
        for part in self.parts:
            here = np.flatnonzero((rows >= first) & (rows < first + part.num_rows))
            if len(here):
                lines, raws = part.places(np.asarray(rows[here] - first, dtype=np.int64))
                found.append(
                    reject_table(
                        part.file,
                        lines,
                        [columns[row] for row in here.tolist()],
                        [reasons[row] for row in here.tolist()],
                        raws,
                    )
                )
            first += part.num_rows
        return pl.concat(found) if found else pl.DataFrame(schema=REJECT_SCHEMA)


def reject_table(
    file: str,
    lines: Sequence[int | None],
    columns: Sequence[str | None],
    reasons: Sequence[str],
    raws: Sequence[str],
) -> pl.DataFrame:
    """One row a rejected row; raw text is cut at `LONGEST_RAW` characters."""
    return pl.DataFrame(
        {
            "file": [file] * len(lines),
            "line": list(lines),
            "column": list(columns),
            "reason": list(reasons),
            "raw": [raw if len(raw) <= LONGEST_RAW else raw[:LONGEST_RAW] + "…" for raw in raws],
        },
        schema=REJECT_SCHEMA,
    )


def numbered_rows(frame: pl.DataFrame) -> Places:
    """Places in a table that has rows but no lines: the row number, and the row as JSON."""

    def places(rows: Int64) -> tuple[list[int], list[str]]:
        records = frame[rows].to_dicts()
        raws = [json.dumps(record, default=str, ensure_ascii=False) for record in records]
        return [int(row) + 1 for row in rows], raws

    return places
