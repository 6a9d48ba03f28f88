"""Ranks by a model that says the same to everybody: its one row is sorted once for all users.

Legend: U users, V items, P blocked pairs, T targets, k items that are wanted.
"""

from abc import ABC, abstractmethod

import numpy as np

from nextbuy.data.histories import PADDING, Float32, Histories, Int32, Int64
from nextbuy.models.protocol import Ranked
from nextbuy.splitting.repeat import Blocked


class OneRow(ABC):
    """What a model with one row for everybody inherits; see `RanksTargets`."""

    @abstractmethod
    def row(self) -> Float32:
        """Log-probabilities of all, length V + 1; padding first."""

    def top_k(
        self,
        histories: Histories,
        as_of: Int64 | None,
        k: int,
        *,
        blocked: Blocked,
    ) -> tuple[Int32, Float32]:
        """See `FindsTopK.top_k`."""
        nothing = np.empty(0, np.int64), np.empty(0, np.int32)
        found = rank_in_one_row(
            self.row(), len(histories), k, blocked=blocked, owners=nothing[0], targets=nothing[1]
        )
        return found.items, found.log_probabilities

    def rank(
        self,
        histories: Histories,
        as_of: Int64 | None,
        k: int,
        *,
        blocked: Blocked,
        owners: Int64,
        targets: Int32,
    ) -> Ranked:
        """See `RanksTargets.rank`."""
        return rank_in_one_row(
            self.row(), len(histories), k, blocked=blocked, owners=owners, targets=targets
        )


def rank_in_one_row(
    log_row: Float32, num_users: int, k: int, *, blocked: Blocked, owners: Int64, targets: Int32
) -> Ranked:
    """See `RanksTargets.rank`.

    Args:
        log_row: Log-probabilities of all, length V + 1; padding first.
        num_users: U.
        k: See there, as for the other arguments.
    """
    num_items = len(log_row) - 1
    k = min(k, num_items)
    order = np.argsort(-log_row[1:], kind="stable").astype(np.int64) + 1
    place = np.zeros(num_items + 1, np.int64)
    place[order] = np.arange(num_items)
    pairs = np.unique(blocked.users * (num_items + 1) + blocked.items)
    users_P, items_P = np.divmod(pairs, num_items + 1)
    users_P, items_P = users_P[items_P > 0], items_P[items_P > 0]
    by_place = np.sort(users_P * num_items + place[items_P])
    p_P = np.exp(log_row[items_P].astype(np.float64))
    allowed_U = 1.0 - np.bincount(users_P, p_P, num_users)
    with np.errstate(divide="ignore"):
        log_allowed_U = np.log(np.maximum(allowed_U, 0.0))
    log_allowed_U[np.isneginf(log_allowed_U)] = 0.0
    items, values = _best(order, log_row, by_place, num_users, k)
    mine = owners * num_items + place[targets]
    before = np.searchsorted(by_place, mine) - np.searchsorted(by_place, owners * num_items)
    is_blocked = np.isin(mine, by_place)
    of_targets = np.where(is_blocked, -np.inf, log_row[targets] - log_allowed_U[owners])
    return Ranked(
        items=items,
        log_probabilities=(values - log_allowed_U[:, None]).astype(np.float32),
        target_log_probabilities=of_targets.astype(np.float32),
        target_ranks=1 + place[targets] - before,
    )


def _best(
    order: Int64, log_row: Float32, by_place: Int64, num_users: int, k: int
) -> tuple[Int32, Float32]:
    """The k best of each user that are not blocked, as pairs of user and place in the order."""
    num_items = len(order)
    blocked_users = by_place // num_items
    most_blocked = int(np.bincount(blocked_users, minlength=1).max())
    candidates = np.arange(min(num_items, k + most_blocked))
    is_free = np.ones((num_users, len(candidates)), np.bool_)
    ahead = by_place % num_items < len(candidates)
    is_free[blocked_users[ahead], by_place[ahead] % num_items] = False
    chosen = np.argsort(~is_free, axis=1, kind="stable")[:, :k]
    is_there = np.take_along_axis(is_free, chosen, axis=1)
    items = np.where(is_there, order[chosen], PADDING).astype(np.int32)
    return items, np.where(is_there, log_row[items], -np.inf)
