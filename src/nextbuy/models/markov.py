"""Markov: what people buy in the basket after these items."""

from typing import ClassVar, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Float32, Histories
from nextbuy.models import sparse as matrices
from nextbuy.models.protocol import FitOptions
from nextbuy.models.scored import Arrays, ScoredModel
from nextbuy.models.search_space import Range, SearchSpace
from nextbuy.splitting.cases import Cases


class MarkovConfig(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search_space: ClassVar[SearchSpace] = {
        "reach": Range(low=1, high=8),
        "decay": Range(low=0.1, high=1.0),
        "smoothing": Range(low=0.1, high=500.0, log=True),
        "neighbours": Range(low=20, high=1000, log=True),
    }

    reach: int = Field(
        default=3, ge=1, description="baskets back that a purchase is counted to lead to"
    )
    decay: float = Field(
        default=0.5, gt=0, le=1, description="weight of each basket further back, also in scoring"
    )
    smoothing: float = Field(
        default=5.0, ge=0, description="transitions of nowhere that each item is given beforehand"
    )
    neighbours: int = Field(default=300, ge=1, description="successors kept for an item")


class Markov(ScoredModel):
    """s_uj = sum over recent items i of d^(ago - 1) a_ij, with a_ij = n_ij / (n_i + smoothing).

    n_ij counts the pairs in which j was bought k <= reach baskets after i, weighted d^(k - 1); n_i
    is their sum over j. With reach 1 it is a first-order chain between baskets; more is the skip
    form, which forgives a basket of something else in between.
    """

    name: ClassVar[str] = "markov"
    config_class: ClassVar[type[BaseModel]] = MarkovConfig

    def learn(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Arrays:
        """Count transitions; see `ScoredModel`."""
        num_items = len(catalog)
        counts = transitions(train, num_items, self.config.reach, self.config.decay, options)
        totals = np.asarray(counts.sum(axis=1)).ravel() + self.config.smoothing
        kept = matrices.strongest(counts, self.config.neighbours)
        scale = np.repeat(1.0 / np.maximum(totals, 1e-12), np.diff(kept.indptr))
        kept.data = (kept.data * scale).astype(np.float32)
        return matrices.to_arrays("successors", kept)

    def scores(self, arrays: Arrays, histories: Histories, num_items: int) -> Float32:
        """Successors of the recent baskets, the newest counting most."""
        successors = matrices.from_arrays("successors", arrays, num_items)
        ago = matrices.baskets_ago(histories)
        weights = np.where(ago < self.config.reach, self.config.decay ** ago.astype(float), 0.0)
        return matrices.dense(matrices.weighted_items(histories, weights, num_items) @ successors)

    def check(self, arrays: Arrays, num_items: int) -> bool:
        """A square matrix of items."""
        return matrices.are_matrices(arrays, ["successors"], num_items, num_items)


_ROWS_AT_ONCE: Final = 20_000


def transitions(
    train: Histories, num_items: int, reach: int, decay: float, options: FitOptions
) -> matrices.Csr:
    """n_ij: weighted pairs of an item and one bought up to `reach` baskets later, [V, V].

    Baskets are rows of a sparse matrix; the pairs k baskets apart are the product of this matrix
    with itself shifted by k rows, over rows of the same user.
    """
    first = np.ones(len(train.items), dtype=bool)
    owners = train.owners
    first[1:] = (owners[1:] != owners[:-1]) | (train.baskets[1:] != train.baskets[:-1])
    row = np.cumsum(first) - 1
    users = owners[first]
    baskets = sparse.csr_array(
        (np.ones(len(row), np.float32), (row, train.items.astype(np.int64) - 1)),
        shape=(int(first.sum()), num_items),
    )
    baskets.data[:] = 1.0
    total = sparse.csr_array((num_items, num_items), dtype=np.float32)
    for k in range(1, reach + 1):
        same = np.flatnonzero(users[k:] == users[:-k])
        for start in range(0, len(same), _ROWS_AT_ONCE):
            options.check_time()
            rows = same[start : start + _ROWS_AT_ONCE]
            pairs = baskets[rows].T.tocsr() @ baskets[rows + k]
            total = total + pairs * np.float32(decay ** (k - 1))
    return total.tocsr()
