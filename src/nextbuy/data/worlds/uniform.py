"""`world:uniform`: users buy on distinct platforms in random order; pure chance, known odds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN, Float32, Histories, Int32, Int64
from nextbuy.data.purchases import Purchases, RowCounts
from nextbuy.data.worlds.limits import Float64, expected_scores, probabilities_of
from nextbuy.data.worlds.platforms import load_platforms
from nextbuy.data.worlds.world import Questions, own_histories, own_items
from nextbuy.errors import ConfigError
from nextbuy.seeding import generator

_BLOCK = 65_536
_CHUNK = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformConfig:
    """How many users buy."""

    num_users: int = 50_000

    def __post_init__(self) -> None:
        if self.num_users < 1:
            raise ConfigError(f"A world needs at least 1 user, {self.num_users} were asked for.")


class UniformWorld:
    """P platforms; a user buys on n of them, n uniform in 1..P, in uniformly random order.

    An item is a platform. There is no time, only an order. Given m visible purchases the next is
    uniform over the P - m platforms not yet bought on, and nothing else about it can be known.
    """

    name: ClassVar[str] = "world:uniform"

    def __init__(self, config: UniformConfig | None = None, *, seed: int = 0) -> None:
        self.config = config or UniformConfig()
        self.seed = seed
        self._table = load_platforms()
        self.platforms: tuple[str, ...] = tuple(self._table[columns.PLATFORM])

    def purchases(self) -> Purchases:
        """One row a purchase, `timestamp` is its position 0, 1, ... within the user."""
        num_users, num_platforms = self.config.num_users, len(self.platforms)
        rng = generator(self.seed, self.name)
        lengths = rng.integers(1, num_platforms + 1, size=num_users)
        positions = np.arange(num_platforms)
        bought, order = [], []
        for start in range(0, num_users, _BLOCK):
            kept = positions < lengths[start : start + _BLOCK, None]
            shuffled = rng.random(kept.shape).argsort(axis=1)
            bought.append(shuffled[kept])
            order.append(np.broadcast_to(positions, kept.shape)[kept])
        platforms = self._table[np.concatenate(bought)]
        users = pl.Series([f"user{number}" for number in range(1, num_users + 1)])
        frame = pl.DataFrame(
            {
                columns.USER: users.gather(np.repeat(np.arange(num_users), lengths)),
                columns.ITEM: platforms[columns.PLATFORM],
                columns.TIME: np.concatenate(order).astype(np.int64),
                columns.PLATFORM: platforms[columns.PLATFORM],
                columns.CATEGORY: platforms[columns.CATEGORY],
            }
        )
        return Purchases(
            frame=frame,
            counts=RowCounts(rows_in=frame.height, kept=frame.height),
            time_kind="order",
            basket_kind="none",
        )

    def true_log_probabilities(
        self,
        histories: Histories,
        catalog: Catalog,
        as_of: Int64 | None = None,  # noqa: ARG002  there is no time in this world
        until: int | None = None,  # noqa: ARG002
        *,
        is_at_as_of: bool = False,  # noqa: ARG002
    ) -> Float32:
        """Log P(next) = -log(number of unseen platforms in the catalog) for each of them.

        See `World.true_log_probabilities`. After a purchase on every platform there is no next one;
        the row is then uniform over the catalog.
        """
        p = self._probabilities(histories, own_items(catalog, self.platforms, self.name))
        p[p.sum(axis=1) == 0, 1:] = 1.0
        with np.errstate(divide="ignore"):
            log_p: Float32 = np.log(p / p.sum(axis=1, keepdims=True)).astype(np.float32)
        return log_p

    def limit(self, cases: Questions, catalog: Catalog) -> dict[str, float]:
        """Expected scores of the truth on these questions, as `expected_scores` defines them."""
        own = own_items(catalog, self.platforms, self.name)
        return expected_scores(self._chunks(cases.histories, own))

    def gap_laws(
        self,
        histories: Histories,  # noqa: ARG002
        catalog: Catalog,  # noqa: ARG002
        as_of: int | Int64,  # noqa: ARG002
    ) -> None:
        """None: there is no time in this world."""
        return

    def probabilities_of(self, told: Int32, cases: Questions, catalog: Catalog) -> Float64:
        """See `World.probabilities_of`."""
        own = own_items(catalog, self.platforms, self.name)
        return probabilities_of(self._chunks(cases.histories, own), told)

    def population_limit(self) -> dict[str, float]:
        """The limit over all users when each one's last purchase is asked, in closed form.

        The number of unseen platforms is then uniform in 1..P, so that the accuracy is
        H(P) / P with the harmonic number H, and the loss is ln(P!) / P. Precision and recall are
        those of a classifier that breaks ties at random: all equal to the accuracy, by symmetry.
        """
        num_platforms = len(self.platforms)
        unseen = range(1, num_platforms + 1)
        accuracy = sum(1 / m for m in unseen) / num_platforms
        hit_rate = sum(min(10, m) / m for m in unseen) / num_platforms
        top = {m: range(1, min(10, m) + 1) for m in unseen}
        ndcg = sum(sum(1 / math.log2(rank + 1) for rank in top[m]) / m for m in unseen)
        mrr = sum(sum(1 / rank for rank in top[m]) / m for m in unseen)
        same = ("accuracy", "precision", "recall", "precision_weighted", "recall_weighted")
        return {
            "loss": math.lgamma(num_platforms + 1) / num_platforms,
            **dict.fromkeys(same, accuracy),
            "hit_rate@10": hit_rate,
            "recall@10": hit_rate,
            "ndcg@10": ndcg / num_platforms,
            "mrr@10": mrr / num_platforms,
        }

    def _chunks(self, histories: Histories, own: Int32) -> Iterator[Float64]:
        for start in range(0, len(histories), _CHUNK):
            users = np.arange(start, min(start + _CHUNK, len(histories)))
            yield self._probabilities(histories.take(users), own)

    def _probabilities(self, histories: Histories, own: Int32) -> Float64:
        """P(next), shape [users, V + 1]; what the catalog lacks is missing from the sum."""
        seen = np.zeros((len(histories), len(self.platforms)), dtype=bool)
        mine = own_histories(histories, own, self.name)
        seen[mine.owners, mine.items] = True
        num_unseen = np.maximum((~seen).sum(axis=1, keepdims=True), 1)
        return np.where(own == UNKNOWN, 0.0, ~seen[:, own] / num_unseen)
