"""Text to numbers while a log goes by: codes in the order in which ids are met, ranks at the end.

Legend: N rows, D ids.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from nextbuy import columns
from nextbuy.data.coding import MISSING
from nextbuy.data.histories import Int32, Int64

CODED = (columns.ITEM, columns.PLATFORM, columns.CATEGORY)
"""Columns whose distinct values are held in memory."""


class Book:
    """The distinct ids of one column so far. A new id gets the next number."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._codes)

    def code(self, series: pl.Series) -> Int32:
        """The code of each value, `MISSING` for null; new ids are written down."""
        encoded: pa.DictionaryArray = series.to_arrow().dictionary_encode()
        codes, known = self._codes, encoded.dictionary.to_pylist()
        places = np.empty(len(known) + 1, dtype=np.int32)
        places[:-1] = [codes.setdefault(value, len(codes)) for value in known]
        places[-1] = MISSING  # where index -1, a null, looks
        indices = encoded.indices
        if indices.null_count:
            indices = pc.fill_null(indices, MISSING)
        found: Int32 = places[indices.to_numpy()]
        return found

    def add(self, ids: list[str]) -> None:
        """Write down ids that are new, in their order."""
        for value in ids:
            self._codes[value] = len(self._codes)

    def ids(self, start: int = 0) -> pl.Series:
        """The ids from a code on, in the order of their codes."""
        return pl.Series(list(self._codes)[start:], dtype=pl.String)


class Books:
    """A book for each coded column of a log."""

    def __init__(self) -> None:
        self.of = {name: Book() for name in CODED}

    def sizes(self) -> dict[str, int]:
        """How many ids each has."""
        return {name: len(book) for name, book in self.of.items()}

    def news(self, since: dict[str, int]) -> pl.DataFrame:
        """Columns `column`, `id`: what was written down since the books had these sizes."""
        return pl.concat(
            [
                pl.DataFrame(
                    {"column": [name], "id": [book.ids(since[name])]},
                    schema={"column": pl.String, "id": pl.List(pl.String)},
                )
                .explode("id", empty_as_null=False)
                for name, book in self.of.items()
            ]
        )  # fmt: skip

    def read(self, path: Path) -> None:
        """Write down what a file of `news` holds."""
        news = pl.read_ipc(path)
        for name, book in self.of.items():
            book.add(news.filter(pl.col("column") == name)["id"].to_list())


def pair_keys(things: pl.Series, platforms: pl.Series) -> Int64:
    """The distinct pairs of two columns of codes that have a first, in one number each."""
    keys = things.cast(pl.Int64) * (1 << 32) + (platforms.cast(pl.Int64) + 1)
    return keys.filter(things != MISSING).unique().sort().to_numpy()


def ranked(book: Book) -> tuple[pl.Series, Int32]:
    """The ids in the order of their bytes, and the rank of each code (`MISSING` at the end)."""
    ids = book.ids()
    order = ids.arg_sort().to_numpy()
    rank = np.empty(len(ids) + 1, dtype=np.int32)
    rank[order] = np.arange(len(ids), dtype=np.int32)
    rank[-1] = MISSING
    return ids.gather(order), rank
