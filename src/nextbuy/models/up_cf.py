"""UP-CF@r: what similar users have been buying lately.

Faggioli, Polato and Aiolli, "Recency aware collaborative filtering for next basket
recommendation", UMAP 2020.
"""

from typing import ClassVar, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Float32, Histories
from nextbuy.models import sparse as matrices
from nextbuy.models.protocol import FitOptions
from nextbuy.models.scored import Arrays, ScoredModel
from nextbuy.models.search_space import Range, SearchSpace
from nextbuy.models.tifu_knn import basket_positions
from nextbuy.splitting.cases import Cases
from nextbuy.threads import in_threads

_BLOCK: Final = 256


class UpCfConfig(BaseModel):
    """Unknown keys are errors. The defaults are the authors' best over their data sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search_space: ClassVar[SearchSpace] = {
        "recency": Range(low=1, high=50, log=True),
        "asymmetry": Range(low=0.0, high=1.0),
        "locality": Range(low=1.0, high=50.0, log=True),
    }

    recency: int = Field(default=10, ge=1, description="newest baskets that count")
    asymmetry: float = Field(default=0.75, ge=0, le=1, description="of the cosine")
    locality: float = Field(default=10.0, ge=0, description="power of the similarity")


class UpCf(ScoredModel):
    """s_ui = sum over users v of c_uv^q f_vi, the user herself with c = 1.

    f_vi is the share of the newest min(r, n_v) baskets of v that hold i. With B_v the set of items
    that v ever bought, c_uv = |B_u and B_v| / (|B_u|^a |B_v|^(1 - a)), the asymmetric cosine.
    """

    name: ClassVar[str] = "up-cf"
    config_class: ClassVar[type[BaseModel]] = UpCfConfig

    def learn(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Arrays:
        """Items and recent shares of the training users who bought; see `ScoredModel`."""
        buyers = train.take(np.flatnonzero(train.lengths > 0))
        bought = matrices.bought_items(buyers, len(catalog))
        recent = recent_shares(buyers, self.config.recency, len(catalog))
        return matrices.to_arrays("bought", bought) | matrices.to_arrays("recent", recent)

    def scores(self, arrays: Arrays, histories: Histories, num_items: int) -> Float32:
        """Own recent shares and those of all similar users."""
        bought = matrices.from_arrays("bought", arrays, num_items).T.tocsr()
        recent = matrices.from_arrays("recent", arrays, num_items)
        asymmetry = self.config.asymmetry
        sizes = np.asarray(bought.sum(axis=0)).ravel()
        others = np.power(np.maximum(sizes, 1.0), asymmetry - 1.0).astype(np.float32)
        mine = matrices.bought_items(histories, num_items)
        own = np.power(np.maximum(np.diff(mine.indptr), 1), -asymmetry).astype(np.float32)
        result = matrices.dense(recent_shares(histories, self.config.recency, num_items))

        def add_neighbours(start: int) -> None:
            block = slice(start, min(start + _BLOCK, len(histories)))
            common = (mine[block] @ bought).tocsr()
            rows = np.repeat(np.arange(common.shape[0]), np.diff(common.indptr))
            similarity = common.data * own[block][rows] * others[common.indices]
            common.data = np.power(similarity, self.config.locality).astype(np.float32)
            result[block] += matrices.dense(common @ recent)

        in_threads(add_neighbours, range(0, len(histories), _BLOCK))
        return result

    def check(self, arrays: Arrays, num_items: int) -> bool:
        """Two matrices with a row for each training user."""
        return matrices.are_matrices(arrays, ["bought", "recent"], None, num_items)


def recent_shares(histories: Histories, recency: int, num_items: int) -> matrices.Csr:
    """f of `UpCf`, [U, V]: share of the newest baskets that hold an item."""
    position, num_baskets = basket_positions(histories)
    n = num_baskets[histories.owners]
    is_recent = position >= n - recency
    counted = np.minimum(n, recency)
    weights = np.where(is_recent, 1.0 / np.maximum(counted, 1), 0.0)
    shares: matrices.Csr = matrices.weighted_items(histories, weights, num_items)
    shares.eliminate_zeros()
    return shares
