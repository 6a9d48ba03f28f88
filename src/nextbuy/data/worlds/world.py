"""What a world is: a market whose true probabilities are known, so that the limit is too."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN, Float32, Histories, Int32, Int64
from nextbuy.data.purchases import Purchases
from nextbuy.data.worlds.limits import Float64
from nextbuy.errors import ConfigError, DataError


class Questions(Protocol):
    """The visible side of cases; `splitting.Cases` is one.

    Attributes:
        histories: What is visible, one a question, perhaps empty.
        as_of: The moment of each question, UTC microseconds, or None.
        until: The answer lies before this moment, UTC microseconds, or None.
        target_times: When the answer was bought, UTC microseconds, or None; only compared with
            `as_of`, to see whether the question gives the time away.
    """

    @property
    def histories(self) -> Histories: ...  # noqa: D102

    @property
    def as_of(self) -> Int64 | None: ...  # noqa: D102

    @property
    def until(self) -> int | None: ...  # noqa: D102

    @property
    def target_times(self) -> Int64 | None: ...  # noqa: D102

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class GapLaws:
    """What the truth says of each user's next gap: a mixture over K segments of log-normal gaps.

    Attributes:
        weights: P(segment | history, nothing bought since), shape [U, K].
        median_days: Of the gap in each segment, length K.
        spread: Standard deviation of ln(gap in days) in each segment, length K.
        elapsed_days: Since each user's last purchase, length U; `nan` without one.
    """

    weights: Float64
    median_days: Float64
    spread: Float64
    elapsed_days: Float64


class World(Protocol):
    """A synthetic market with known probabilities."""

    @property
    def name(self) -> str:
        """The name that `load_source` knows it by."""
        ...

    @property
    def platforms(self) -> tuple[str, ...]:
        """Names of the platforms, in the order of the world's own numbering."""
        ...

    def purchases(self) -> Purchases:
        """The log of the world's users; the same for the same config and seed."""
        ...

    def true_log_probabilities(
        self,
        histories: Histories,
        catalog: Catalog,
        as_of: Int64 | None,
        until: int | None = None,
        *,
        is_at_as_of: bool = False,
    ) -> Float32:
        """True log P(next item | visible history), shape [users, V + 1] in the catalog's indices.

        Column 0 is `-inf`, and so is an item that cannot come next. A row is the distribution given
        that the next item is in the catalog: what the catalog lacks is left out and the rest made
        to sum to 1. The whole result is held in memory; the caller cuts many users into chunks.

        Args:
            histories: Visible purchases, indices of `catalog`.
            catalog: At level `item`; in any order, and not necessarily complete.
            as_of: No purchase happened between the last visible one and this moment, UTC
                microseconds, one a user. None: nothing is known but the history.
            until: The next purchase happens before this moment, UTC microseconds. None: at any
                time.
            is_at_as_of: The next purchase happens exactly at `as_of`.

        Raises:
            ConfigError: If the catalog's level hides which item was bought.
            DataError: If a history holds an item that is not of this world.
        """
        ...

    def limit(self, cases: Questions, catalog: Catalog) -> dict[str, float]:
        """Expected scores of the truth on these questions, as `expected_scores` defines them."""
        ...

    def gap_laws(
        self, histories: Histories, catalog: Catalog, as_of: int | Int64
    ) -> GapLaws | None:
        """The truth about when each user buys next, given the purchases before `as_of`.

        Args:
            histories: Indices of `catalog`; what lies at or after `as_of` is not looked at.
            catalog: At level `item`.
            as_of: UTC microseconds, one for all, or one a user.

        Returns:
            None where time is only an order.
        """
        ...

    def probabilities_of(self, told: Int32, cases: Questions, catalog: Catalog) -> Float64:
        """The true probabilities of these items, one a question; length C each.

        Their mean is the expected accuracy of someone who tells these items: the accuracy over one
        draw of the answers scatters around it, and the limit is its maximum.
        """
        ...


def own_items(catalog: Catalog, item_ids: tuple[str, ...], world: str) -> Int32:
    """The world's number (0, 1, ...) of each catalog index, length V + 1; `UNKNOWN` for others.

    Raises:
        ConfigError: If the catalog has another level than `item` and its ids are not the world's.
    """
    numbers = {item_id: number for number, item_id in enumerate(item_ids)}
    own = np.array(
        [UNKNOWN, *(numbers.get(item_id, UNKNOWN) for item_id in catalog.table["item_id"])],
        dtype=np.int32,
    )
    if catalog.level != "item" and (own[1:] == UNKNOWN).any():
        raise ConfigError(
            f"The limit of {world} needs a catalog at level 'item', this one is at level "
            f"{catalog.level!r}: such histories hide which item was bought. "
            "Encode the purchases at level 'item'."
        )
    return own


def own_histories(histories: Histories, own: Int32, world: str) -> Histories:
    """The same histories in the world's numbering; `own` comes from `own_items`.

    Raises:
        DataError: If a history holds an item that is not of this world.
    """
    items = own[histories.items]
    foreign = np.flatnonzero(items == UNKNOWN)
    if len(foreign):
        raise DataError(
            f"{len(foreign)} of {len(items)} purchases are of items that {world} does not sell "
            f"(the first has catalog index {histories.items[foreign[0]]}). "
            "The truth is known only for this world's own purchases, at its own configuration."
        )
    return histories.with_items(items)
