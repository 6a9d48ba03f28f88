"""TIFU-KNN: personal item frequency with temporal decay, and that of similar users.

Hu, He, Gao and Zhang, "Modeling personalized item frequency information for next-basket
recommendation", SIGIR 2020.
"""

from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Float32, Histories, Int64
from nextbuy.models import sparse as matrices
from nextbuy.models.protocol import FitOptions
from nextbuy.models.scored import Arrays, ScoredModel
from nextbuy.splitting.cases import Cases
from nextbuy.threads import in_threads

_BLOCK: Final = 256
_MOST_CELLS: Final = 2**24
"""Distances that a core holds at once."""


class TifuKnnConfig(BaseModel):
    """Unknown keys are errors. The defaults are the authors' for Ta-Feng."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: int = Field(default=300, ge=1, description="similar training users")
    within_decay: float = Field(default=0.9, gt=0, le=1, description="of each basket further back")
    group_decay: float = Field(default=0.7, gt=0, le=1, description="of each group further back")
    own_share: float = Field(default=0.7, ge=0, le=1, description="the rest is the neighbours'")
    groups: int = Field(default=7, ge=1, description="that a history is cut into")


class TifuKnn(ScoredModel):
    """s_u = a v_u + (1 - a) mean of v_n over the k nearest training users n, by Euclidean distance.

    v_u is made from the n baskets of a user, oldest first, each a vector of ones weighted
    r_b^(n - 1 - t): they are cut into m groups of nearly equal size, the later ones the larger;
    v_u = 1/m' sum over groups g of r_g^(m - 1 - g) times the mean of the group. A history of fewer
    than m baskets has each as a group of its own, m' = n then and m otherwise. All of that is the
    authors' program, whose short histories also count from the first group on.
    """

    name: ClassVar[str] = "tifu-knn"
    config_class: ClassVar[type[BaseModel]] = TifuKnnConfig

    def learn(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Arrays:
        """The vectors of the training users who bought; see `ScoredModel`."""
        buyers = np.flatnonzero(train.lengths > 0)
        vectors = user_vectors(train.take(buyers), self.config, len(catalog))
        return matrices.to_arrays("users", vectors)

    def scores(self, arrays: Arrays, histories: Histories, num_items: int) -> Float32:
        """Own vector and neighbours' mean; a user without history has no scores."""
        users = matrices.from_arrays("users", arrays, num_items)
        mine = user_vectors(histories, self.config, num_items)
        mixed = matrices.dense(mine) * np.float32(self.config.own_share)
        k = min(self.config.neighbours, users.shape[0])
        if k == 0 or self.config.own_share == 1.0:
            return mixed
        transposed = users.T.tocsr()
        norms = np.asarray(users.multiply(users).sum(axis=1)).ravel()
        share = np.float32((1.0 - self.config.own_share) / k)

        step = max(1, min(_BLOCK, _MOST_CELLS // users.shape[0]))

        def add_neighbours(start: int) -> None:
            near = nearest(mine[start : start + step], transposed, norms, k)
            mixed[start : start + step] += matrices.dense(near @ users) * share

        in_threads(add_neighbours, range(0, len(histories), step))
        mixed[histories.lengths == 0] = 0.0
        return mixed

    def check(self, arrays: Arrays, num_items: int) -> bool:
        """One vector a training user."""
        return matrices.are_matrices(arrays, ["users"], None, num_items)


def nearest(
    block: matrices.Csr, transposed: matrices.Csr, norms: NDArray[np.float32], k: int
) -> matrices.Csr:
    """Ones where a training user is among the k nearest of a user, [B, training users].

    |u - n|^2 = |u|^2 - 2 u.n + |n|^2, and |u|^2 is the same for all n. Ties go to the lower n.
    """
    distance = matrices.dense(block @ transposed)
    distance *= -2.0
    distance += norms
    num_users = distance.shape[1]
    if k < num_users:
        kth = np.partition(distance, k - 1, axis=1)[:, k - 1]
        chosen = distance <= kth[:, None]
        surplus = np.count_nonzero(chosen, axis=1) - k
        for row in np.flatnonzero(surplus):
            tied = np.flatnonzero(distance[row] == kth[row])
            chosen[row, tied[-surplus[row] :]] = False
        columns = np.nonzero(chosen)[1]
    else:
        columns = np.tile(np.arange(num_users), distance.shape[0])
    indptr = np.arange(distance.shape[0] + 1) * k
    ones = np.ones(len(columns), dtype=np.float32)
    return sparse.csr_array((ones, columns, indptr), shape=distance.shape)


def user_vectors(histories: Histories, config: TifuKnnConfig, num_items: int) -> matrices.Csr:
    """v_u of each user, [U, V]; the formula is in `TifuKnn`."""
    position, num_baskets = basket_positions(histories)
    owners = histories.owners
    n = num_baskets[owners]
    group, size = groups_of(position, n, config.groups)
    num_groups = np.minimum(n, config.groups)
    weights = (
        np.power(config.within_decay, (n - 1 - position).astype(np.float64))
        * np.power(config.group_decay, (config.groups - 1 - group).astype(np.float64))
        / (size * num_groups)
    )
    return matrices.weighted_items(histories, weights, num_items)


def basket_positions(histories: Histories) -> tuple[Int64, Int64]:
    """Number of each purchase's basket from 0 within its user, and the baskets of each user."""
    owners = histories.owners
    opens = np.ones(len(owners), dtype=bool)
    opens[1:] = (owners[1:] != owners[:-1]) | (histories.baskets[1:] != histories.baskets[:-1])
    number = np.cumsum(opens) - 1
    num_baskets = np.bincount(owners[opens], minlength=len(histories)).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(num_baskets)[:-1]]) if len(num_baskets) else num_baskets
    return number - first[owners], num_baskets


def groups_of(position: Int64, n: Int64, num_groups: int) -> tuple[Int64, Int64]:
    """Group of a basket at `position` of n, and the number of baskets in that group.

    With fewer baskets than groups each is a group. Otherwise the first groups hold floor(n / m)
    baskets and the last n mod m of them one more.
    """
    small = n // num_groups
    num_small = num_groups - n % num_groups
    in_small = small * num_small
    late = position >= in_small
    group = np.where(
        late, num_small + (position - in_small) // (small + 1), position // np.maximum(small, 1)
    )
    size = np.where(late, small + 1, small)
    few = n < num_groups
    return np.where(few, position, group), np.where(few, 1, size)
