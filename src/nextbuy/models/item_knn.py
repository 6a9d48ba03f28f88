"""Item neighbours: what the people who bought this also bought, near in time."""

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

_BLOCK: Final = 2_000


class ItemKnnConfig(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search_space: ClassVar[SearchSpace] = {
        "neighbours": Range(low=10, high=1000, log=True),
        "shrinkage": Range(low=0.0, high=100.0),
        "decay": Range(low=0.3, high=1.0),
    }

    neighbours: int = Field(default=100, ge=1, description="similar items kept for an item")
    shrinkage: float = Field(
        default=10.0, ge=0, description="lowers the similarity of items that few people bought"
    )
    decay: float = Field(
        default=0.9, gt=0, le=1, description="weight of each basket further back, in scoring"
    )


class ItemKnn(ScoredModel):
    """s_uj = sum over own items i of w_ui c_ij, with c_ij = n_ij / (sqrt(n_i n_j) + shrinkage).

    n_ij is the number of users who bought both, n_i that of i; w_ui = decay^(baskets ago) of the
    newest purchase of i. An item is not its own neighbour.
    """

    name: ClassVar[str] = "item-knn"
    config_class: ClassVar[type[BaseModel]] = ItemKnnConfig

    def learn(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Arrays:
        """Similarities of items, in blocks, the strongest of each kept; see `ScoredModel`."""
        bought = matrices.bought_items(train, len(catalog))
        similar = cosine_neighbours(bought, self.config.neighbours, self.config.shrinkage, options)
        return matrices.to_arrays("similar", similar)

    def scores(self, arrays: Arrays, histories: Histories, num_items: int) -> Float32:
        """Neighbours of all own items, the newest counting most."""
        similar = matrices.from_arrays("similar", arrays, num_items)
        return matrices.dense(newest_weights(histories, self.config.decay, num_items) @ similar)

    def check(self, arrays: Arrays, num_items: int) -> bool:
        """A square matrix of items."""
        return matrices.are_matrices(arrays, ["similar"], num_items, num_items)


def newest_weights(histories: Histories, decay: float, num_items: int) -> matrices.Csr:
    """[U, V], decay^(baskets ago) of the newest purchase of each own item."""
    ago = matrices.baskets_ago(histories)
    order = np.lexsort((ago, histories.items, histories.owners))
    owners, items = histories.owners[order], histories.items[order]
    newest = np.ones(len(order), dtype=bool)
    newest[1:] = (owners[1:] != owners[:-1]) | (items[1:] != items[:-1])
    weights = np.power(decay, ago[order][newest].astype(np.float64)).astype(np.float32)
    return sparse.csr_array(
        (weights, (owners[newest], items[newest].astype(np.int64) - 1)),
        shape=(len(histories), num_items),
    )


def cosine_neighbours(
    bought: matrices.Csr, k: int, shrinkage: float, options: FitOptions
) -> matrices.Csr:
    """The k most similar items of each item, [V, V], by cosine with shrinkage."""
    num_items = bought.shape[1]
    by_item = bought.T.tocsr()
    norms = np.sqrt(np.diff(by_item.indptr).astype(np.float64))
    blocks = []
    for start in range(0, num_items, _BLOCK):
        options.check_time()
        pairs = (by_item[start : start + _BLOCK] @ bought).tocsr()
        rows = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr)) + start
        similarity = pairs.data / (norms[rows] * norms[pairs.indices] + shrinkage)
        similarity[rows == pairs.indices] = 0.0
        pairs.data = similarity.astype(np.float32)
        pairs.eliminate_zeros()
        blocks.append(matrices.strongest(pairs, k))
    return sparse.vstack(blocks, format="csr") if blocks else sparse.csr_array((0, 0))
