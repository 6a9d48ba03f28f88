"""Histories as sparse matrices of users and items, weighted by how long ago things were bought.

Legend: U users, V items; items 1..V are columns 0..V-1.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nextbuy.data.histories import Float32, Histories, Int64

Csr: TypeAlias = "sparse.csr_array"


def baskets_ago(histories: Histories) -> Int64:
    """For each purchase, how many baskets before the user's last one it lies; 0 is the last."""
    ends = histories.offsets[1:] - 1
    last = np.zeros(len(histories), dtype=np.int64)
    has_any = histories.lengths > 0
    last[has_any] = histories.baskets[ends[has_any]]
    ago: Int64 = last[histories.owners] - histories.baskets
    return ago


def weighted_items(histories: Histories, weights: NDArray[Any], num_items: int) -> Csr:
    """[U, V], the sum of the weights of each user's purchases of each item."""
    columns = histories.items.astype(np.int64) - 1
    matrix = sparse.coo_array(
        (weights.astype(np.float32), (histories.owners, columns)), (len(histories), num_items)
    ).tocsr()
    matrix.sum_duplicates()
    return matrix


def bought_items(histories: Histories, num_items: int) -> Csr:
    """[U, V], 1 where a user bought an item."""
    matrix = weighted_items(histories, np.ones(len(histories.items)), num_items)
    matrix.data[:] = 1.0
    return matrix


def to_arrays(name: str, matrix: Csr) -> dict[str, NDArray[Any]]:
    """A matrix as arrays that can be stored."""
    return {
        f"{name}.data": matrix.data.astype(np.float32),
        f"{name}.indices": matrix.indices.astype(np.int32),
        f"{name}.indptr": matrix.indptr.astype(np.int64),
    }


def from_arrays(name: str, arrays: dict[str, NDArray[Any]], num_columns: int) -> Csr:
    """The matrix that `to_arrays` took apart; its places are of 32 bits if they can be, since
    products are faster then."""
    data, indices, indptr = (arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    if len(data) <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    return sparse.csr_array((data, indices, indptr), shape=(len(indptr) - 1, num_columns))


def are_matrices(
    arrays: dict[str, NDArray[Any]], names: Sequence[str], num_rows: int | None, num_columns: int
) -> bool:
    """Whether stored arrays are these matrices, of this shape, and nothing else.

    `num_rows` None is any number, the same for all.
    """
    wanted = {f"{name}.{part}" for name in names for part in ("data", "indices", "indptr")}
    if set(arrays) != wanted or len({len(arrays[f"{name}.indptr"]) for name in names}) != 1:
        return False
    return all(_is_matrix(name, arrays, num_rows, num_columns) for name in names)


def _is_matrix(
    name: str, arrays: dict[str, NDArray[Any]], num_rows: int | None, num_columns: int
) -> bool:
    data, indices, indptr = (arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    if not data.ndim == indices.ndim == indptr.ndim == 1:
        return False
    if len(indptr) < 1 or (num_rows is not None and len(indptr) != num_rows + 1):
        return False
    fits = indptr[0] == 0 and indptr[-1] == len(data) == len(indices)
    inside = not len(indices) or (indices.min() >= 0 and indices.max() < num_columns)
    return bool(fits and inside and (np.diff(indptr) >= 0).all() and data.dtype == np.float32)


def strongest(matrix: Csr, k: int) -> Csr:
    """Only the k largest entries of each row; ties go to the lower column."""
    lengths = np.diff(matrix.indptr)
    if not len(lengths) or lengths.max(initial=0) <= k:
        return matrix
    kept = np.ones(matrix.nnz, dtype=np.bool_)
    for row in np.flatnonzero(lengths > k):  # sorting all rows at once takes seven times as long
        here = slice(matrix.indptr[row], matrix.indptr[row + 1])
        values = matrix.data[here]
        least = np.partition(values, len(values) - k)[len(values) - k]
        chosen = values > least
        tied = np.flatnonzero(values == least)
        tied = tied[np.argsort(matrix.indices[here][tied], kind="stable")]
        chosen[tied[: k - np.count_nonzero(chosen)]] = True
        kept[here] = chosen
    indptr = np.concatenate([[0], np.cumsum(np.minimum(lengths, k))])
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


def dense(matrix: Csr) -> Float32:
    """As a full float32 table."""
    table: Float32 = matrix.toarray().astype(np.float32, copy=False)
    return table
