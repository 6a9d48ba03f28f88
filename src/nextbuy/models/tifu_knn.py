"""TIFU-KNN: personal item frequency with temporal decay, and that of similar users.

Hu, He, Gao and Zhang, "Modeling personalized item frequency information for next-basket
recommendation", SIGIR 2020.
"""

from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Float32, Histories, Int64
from nextbuy.models import sparse as matrices
from nextbuy.models.protocol import FitOptions
from nextbuy.models.scored import Arrays, ScoredModel
from nextbuy.models.search_space import Range, SearchSpace
from nextbuy.splitting.cases import Cases
from nextbuy.threads import in_threads

_BLOCK: Final = 124
"""Users asked at once. No power of two: rows of 512 bytes would share a few lines of the cache when
sums are turned, which took three times as long."""

_TILE: Final = 256
_MOST_CELLS: Final = 2**24
"""Distances that a core holds at once."""


class TifuKnnConfig(BaseModel):
    """Unknown keys are errors. The defaults are the authors' for Ta-Feng."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search_space: ClassVar[SearchSpace] = {
        "neighbours": Range(low=20, high=1000, log=True),
        "within_decay": Range(low=0.3, high=1.0),
        "group_decay": Range(low=0.3, high=1.0),
        "own_share": Range(low=0.0, high=1.0),
        "groups": Range(low=1, high=20),
    }

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
        mixed = matrices.dense(mine * np.float32(self.config.own_share))
        k = min(self.config.neighbours, users.shape[0])
        if k == 0 or self.config.own_share == 1.0:
            return mixed
        transposed = users.T.tocsr()
        norms = np.asarray(users.multiply(users).sum(axis=1)).ravel()
        share = np.float32((1.0 - self.config.own_share) / k)

        step = max(1, min(_BLOCK, _MOST_CELLS // users.shape[0]))

        def add_neighbours(start: int) -> None:
            near_BK = nearest(mine[start : start + step], transposed, norms, k)
            add_sums(near_BK, users, share, mixed[start : start + step])

        in_threads(add_neighbours, range(0, len(histories), step))
        mixed[histories.lengths == 0] = 0.0
        return mixed

    def check(self, arrays: Arrays, num_items: int) -> bool:
        """One vector a training user."""
        return matrices.are_matrices(arrays, ["users"], None, num_items)


def nearest(
    block: matrices.Csr, transposed: matrices.Csr, norms: NDArray[np.float32], k: int
) -> Int64:
    """The k training users nearest to each user, [B, k], in their order.

    |u - n|^2 = |u|^2 - 2 u.n + |n|^2, and |u|^2 is the same for all n. Ties go to the lower n.
    """
    distance = matrices.dense(block @ transposed)
    distance *= -2.0
    distance += norms
    num_asked, num_users = distance.shape
    if k == num_users:
        return np.tile(np.arange(num_users), (num_asked, 1))
    kth = np.partition(distance, k - 1, axis=1)[:, k - 1 : k]
    starts = np.arange(num_asked + 1) * num_users
    chosen = np.flatnonzero(distance <= kth)  # in one dimension, several times as fast as in two
    ends = np.searchsorted(chosen, starts)
    surplus = np.diff(ends) - k
    if surplus.any():
        kept = np.ones(len(chosen), dtype=np.bool_)
        for row in np.flatnonzero(surplus):
            here = slice(ends[row], ends[row + 1])
            tied = np.flatnonzero(distance.ravel()[chosen[here]] == kth[row])
            kept[here][tied[-surplus[row] :]] = False
        chosen = chosen[kept]
    return np.asarray(chosen.reshape(num_asked, k) - starts[:-1, None])


def add_sums(near_BK: Int64, users: matrices.Csr, share: np.float32, totals_BV: Float32) -> None:
    """Add `share` times the sum of the vectors of each user's neighbours to the user's row.

    Users of a block have many neighbours in common: each vector is looked up once a block, and goes
    at once to all who have it. The order of the sums is that of the neighbours, whoever else is in
    the block.
    """
    num_asked, k = near_BK.shape
    is_used = np.zeros(users.shape[0], dtype=np.bool_)
    is_used[near_BK] = True
    place = np.cumsum(is_used) - 1
    shares_NB = np.zeros((int(place[-1]) + 1, num_asked), dtype=np.float32)
    shares_NB[place[near_BK].ravel(), np.repeat(np.arange(num_asked), k)] = 1.0
    sums_VB = users[np.flatnonzero(is_used)].T @ shares_NB
    sums_VB *= share
    for start in range(0, len(sums_VB), _TILE):
        totals_BV[:, start : start + _TILE] += sums_VB[start : start + _TILE].T


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
