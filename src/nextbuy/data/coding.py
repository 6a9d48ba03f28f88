"""Text to small integers: codes that follow the order of the ids, so that numbers can be sorted."""

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
