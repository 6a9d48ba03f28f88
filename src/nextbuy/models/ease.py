"""EASE: each item as a linear combination of the others, in closed form.

Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019.
"""

import time
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import linalg, sparse

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Float32, Histories
from nextbuy.models import sparse as matrices
from nextbuy.models.item_knn import cosine_neighbours, newest_weights
from nextbuy.models.protocol import FitOptions
from nextbuy.models.scored import Arrays, ScoredModel
from nextbuy.models.search_space import Range, SearchSpace
from nextbuy.splitting.cases import Cases

_BATCH: Final = 16


_DENSE_COPIES: Final = 4
"""Matrices of items by items, in float32, that the dense solution holds at its peak."""


class EaseConfig(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search_space: ClassVar[SearchSpace] = {
        "penalty": Range(low=1.0, high=20_000.0, log=True),
        "decay": Range(low=0.3, high=1.0),
    }

    penalty: float = Field(default=500.0, gt=0, description="lambda, on the diagonal")
    decay: float = Field(
        default=0.95, gt=0, le=1, description="weight of each basket further back, in scoring"
    )
    dense_items: int = Field(
        default=12_000, ge=1, description="larger catalogs are solved item by item, sparsely"
    )
    neighbours: int = Field(
        default=50, ge=1, description="items that an item may depend on when solved sparsely"
    )
    fewest_users: int = Field(
        default=5, ge=1, description="items with fewer buyers are left out when solved sparsely"
    )


class Ease(ScoredModel):
    """s_u = max(0, w_u B), with B = I - P diag(P)^-1 and P = (X'X + penalty I)^-1.

    X is users by items, 1 where bought; w_u weighs a user's own items by how long ago they were
    bought. The diagonal of B is 0: an item does not explain itself.

    Above `dense_items` the inverse would take V^2 memory and V^3 time. Each item is then regressed
    on its `neighbours` most similar items alone (the same ridge regression, b_j =
    (G_NN + penalty I)^-1 G_Nj), which is EASE restricted to a sparse pattern.
    """

    name: ClassVar[str] = "ease"
    config_class: ClassVar[type[BaseModel]] = EaseConfig

    def learn(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Arrays:
        """Solve for B; see `ScoredModel`."""
        bought = matrices.bought_items(train, len(catalog))
        if len(catalog) <= self.config.dense_items:
            options.check_time(_seconds_of_dense(len(catalog)))
            options.check_memory(_DENSE_COPIES * 4 * len(catalog) ** 2)
            return {"weights": dense_weights(bought, self.config.penalty)}
        # What hardly anybody bought says nothing about the rest, and is half of a large catalog.
        num_users = np.bincount(bought.indices, minlength=len(catalog))
        kept = np.flatnonzero(num_users >= self.config.fewest_users)
        known = bought[:, kept]
        neighbours = cosine_neighbours(known, self.config.neighbours, 10.0, options)
        weights = sparse_weights(known, neighbours, self.config.penalty, options).tocoo()
        whole = sparse.csr_array(
            (weights.data, (kept[weights.row], kept[weights.col])), shape=(len(catalog),) * 2
        )
        return matrices.to_arrays("weights", whole)

    def scores(self, arrays: Arrays, histories: Histories, num_items: int) -> Float32:
        """What the own items speak for; what they speak against counts 0."""
        own = newest_weights(histories, self.config.decay, num_items)
        table: Float32 = (
            np.asarray(own @ arrays["weights"], dtype=np.float32)
            if "weights" in arrays
            else matrices.dense(own @ matrices.from_arrays("weights", arrays, num_items))
        )
        return np.maximum(table, 0.0, out=table)

    def check(self, arrays: Arrays, num_items: int) -> bool:
        """A square matrix of items, full or sparse."""
        if "weights" in arrays:
            return arrays["weights"].shape == (num_items, num_items) and len(arrays) == 1
        return matrices.are_matrices(arrays, ["weights"], num_items, num_items)


def _seconds_of_dense(num_items: int) -> float:
    """What the inverse will take, from the speed of a small one; V^3 multiplications and as many
    additions, at a speed that larger ones do not fall below.
    """
    size = min(num_items, 1_000)
    started = time.perf_counter()
    dense_weights(sparse.csr_array(np.eye(size, dtype=np.float32)), 1.0)
    return (time.perf_counter() - started) * (num_items / size) ** 3


def dense_weights(bought: matrices.Csr, penalty: float) -> Float32:
    """B of `Ease` from the Cholesky factor of X'X + penalty I, in float32 and in place."""
    gram = matrices.dense(bought.T.tocsr() @ bought)
    gram[np.diag_indices_from(gram)] += np.float32(penalty)
    factor, info = linalg.lapack.spotrf(gram.T, lower=1, overwrite_a=1)
    assert info == 0, "X'X + penalty I is positive definite"  # noqa: S101
    inverse, info = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    assert info == 0, "so is its factor"  # noqa: S101
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights: Float32 = np.asarray(-inverse / np.diag(inverse)[None, :], dtype=np.float32, order="C")
    np.fill_diagonal(weights, 0.0)
    return weights


def sparse_weights(
    bought: matrices.Csr, neighbours: matrices.Csr, penalty: float, options: FitOptions
) -> matrices.Csr:
    """Ridge regression of each item on its neighbours, some small systems at once."""
    by_item = bought.tocsc()
    lengths = np.diff(neighbours.indptr)
    num_items, width = len(lengths), int(lengths.max(initial=1))
    table = np.full((num_items, width), -1, dtype=np.int64)
    table[np.arange(width) < lengths[:, None]] = neighbours.indices
    rows, columns, values = [], [], []
    if num_items == 0:
        return sparse.csr_array((0, 0), dtype=np.float32)
    for start in range(0, num_items, _BATCH):
        options.check_time()
        near = table[start : start + _BATCH]
        items = np.arange(start, start + len(near))
        solved = _solve(by_item, near, items, penalty)
        kept = (near >= 0) & (solved != 0)
        rows.append(near[kept])
        columns.append(np.broadcast_to(items[:, None], near.shape)[kept])
        values.append(solved[kept])
    joined = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(joined, shape=(num_items, num_items))


def _solve(
    by_item: matrices.Csr, near: NDArray[np.int64], items: NDArray[np.int64], penalty: float
) -> Float32:
    """b of each item over its neighbours, [items, width]; 0 where there is no neighbour.

    The Gram matrix of all that these items need is made at once and cut into their systems: looking
    its entries up in the whole one, a sparse matrix, takes a hundred times as long.
    """
    real = near >= 0
    safe = np.where(real, near, items[:, None])
    needed = np.unique(np.append(safe, items))
    part = by_item[:, needed]
    gram = np.asarray((part.T @ part).toarray(), dtype=np.float32)
    places = np.searchsorted(needed, safe)
    systems = gram[places[:, :, None], places[:, None, :]]
    systems *= real[:, :, None] & real[:, None, :]
    width = near.shape[1]
    systems[:, np.arange(width), np.arange(width)] += np.float32(penalty)
    targets = gram[places, np.searchsorted(needed, items)[:, None]] * real
    solved: Float32 = np.linalg.solve(systems, targets[:, :, None])[:, :, 0].astype(np.float32)
    return solved * real
