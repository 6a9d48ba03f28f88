"""Text to small integers: codes that follow the order of the ids, so that numbers can be sorted."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from nextbuy.data.histories import Int32, Int64

MISSING = -1
"""Code of a null."""

_DENSE = 1 << 27
"""Up to this many possible pairs are marked in a table; more are sorted."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Coded:
    """A text column as codes.

    Attributes:
        codes: Position of each value in `ids`, `MISSING` for null; length N.
        ids: The distinct values in the order of their bytes.
    """

    codes: Int32
    ids: pl.Series


def code(series: pl.Series) -> Coded:
    """Code a text column; the codes depend on the set of its values, not on their order."""
    numbers = plain_numbers(series)
    if numbers is not None and int(numbers.max()) < max(4 * len(numbers), 1000):
        return _code_numbers(series.name, numbers)
    encoded: pa.DictionaryArray = series.to_arrow().dictionary_encode()
    ids = pl.Series(series.name, encoded.dictionary, dtype=pl.String)
    order = ids.arg_sort().to_numpy()
    rank = np.empty(len(ids) + 1, dtype=np.int32)
    rank[order] = np.arange(len(ids), dtype=np.int32)
    rank[-1] = MISSING  # where index -1, a null, looks
    indices = encoded.indices
    if indices.null_count:
        indices = pc.fill_null(indices, MISSING)
    return Coded(codes=rank[indices.to_numpy()], ids=ids.gather(order))


def plain_numbers(series: pl.Series) -> Int64 | None:
    """The values as numbers, if each is a whole number as it is usually written; else None.

    `0`, `7` and `123` are; `007`, `+7`, `-7`, `1e5` and a null are not, so that number and text
    tell each other. A value can only be longer than its number is written, never shorter: all are
    plain if the lengths add up to the same sum.
    """
    head = series.head(100)
    if not len(head) or series.null_count() or not head.str.contains(r"^\d{1,18}$").all():
        return None
    numbers = series.cast(pl.Int64, strict=False)
    if numbers.null_count():
        return None
    values: Int64 = numbers.to_numpy()
    least, most = int(values.min()), int(values.max())
    if least < 0:
        return None
    digits = len(values) + sum(
        int(np.count_nonzero(values >= 10**power)) for power in range(1, len(str(most)))
    )
    return values if int(series.str.len_bytes().cast(pl.Int64).sum()) == digits else None


def _code_numbers(name: str, numbers: Int64) -> Coded:
    """Code small numbers by marking them in a table; the codes are still in the order of text."""
    seen = np.zeros(int(numbers.max()) + 1, dtype=bool)
    seen[numbers] = True
    distinct = np.flatnonzero(seen)
    ids = pl.Series(name, distinct).cast(pl.String)
    order = ids.arg_sort().to_numpy()
    rank = np.empty(len(seen), dtype=np.int32)
    rank[distinct[order]] = np.arange(len(ids), dtype=np.int32)
    return Coded(codes=rank[numbers], ids=ids.gather(order))


def code_together(*series: pl.Series) -> list[Coded]:
    """Code several columns at once, each on a core of its own."""
    with ThreadPoolExecutor(len(series)) as pool:
        return list(pool.map(code, series))


def code_pairs(first: Int32, second: Int32, num_second: int) -> tuple[Int32, Int32, Int32]:
    """Code the pairs that occur, in the order (first, second); `second` may be `MISSING`.

    Returns:
        The code of each row, and first and second of each code.
    """
    width = num_second + 1
    keys: Int64 = first.astype(np.int64) * width + (second + 1)
    num_possible = (int(first.max()) + 1) * width if len(first) else 0
    if num_possible <= _DENSE:
        seen = np.zeros(num_possible, dtype=bool)
        seen[keys] = True
        pairs = np.flatnonzero(seen)
        position = np.zeros(num_possible, dtype=np.int32)
        position[pairs] = np.arange(len(pairs), dtype=np.int32)
        codes = position[keys]
    else:
        pairs, inverse = np.unique(keys, return_inverse=True)
        codes = inverse.astype(np.int32)
    return codes, (pairs // width).astype(np.int32), (pairs % width - 1).astype(np.int32)
