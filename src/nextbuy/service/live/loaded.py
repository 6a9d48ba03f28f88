"""One version of a bundle in memory, with what serving needs beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import numpy as np
import polars as pl

from nextbuy.data.histories import UNKNOWN, Float32, Histories, offsets_of
from nextbuy.data.purchases import BasketKind
from nextbuy.errors import BundleError, ConfigError
from nextbuy.predictor import Predictor
from nextbuy.service.live.following import FollowedRules
from nextbuy.service.live.joining import Reading, Rows, no_rows
from nextbuy.service.live.lookup import ItemLookup
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.log import SEQUENCE_FACT, STORE_FACT
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.splitting.rules import CatalogRules, Rules

_BASKET_KINDS: Final = ("column", "timestamp", "none")


class LoadedBundle:
    """A predictor, read into memory whole, and its users and items by id.

    Attributes:
        version: Name of the version.
        predictor: Answers.
        model: The one that answers `predict`.
        policy: On what was bought before.
        reading: How live purchases are read.
        store_sequence: Purchases of the store up to this one are in the histories; 0 where the
            bundle learnt from another store, or from none.
        unlisted: Purchases of the log that the catalog lacks, or None.
    """

    def __init__(self, version: str, predictor: Predictor, store_identity: str) -> None:
        facts, histories = predictor.facts, predictor.histories
        kind, sequence = facts.get("basket_kind"), facts.get(SEQUENCE_FACT) or 0
        if kind not in _BASKET_KINDS or not isinstance(sequence, int) or sequence < 0:
            raise BundleError(
                f"The bundle {version} says basket_kind {kind!r} and store_sequence {sequence!r}; "
                f"expected one of {', '.join(_BASKET_KINDS)} and a number from 0."
            )
        self.version = version
        self.predictor = predictor
        self.model = predictor.models[predictor.best_model]
        self.policy = RepeatPolicy.parse(predictor.config.repeat).by(predictor.cadence)
        self.store_sequence = sequence if facts.get(STORE_FACT) == store_identity else 0
        self.reading = Reading(
            lookup=ItemLookup(predictor.catalog),
            time_kind=histories.time_kind,
            basket_kind=cast("BasketKind", kind),  # checked above
            has_prices=histories.prices is not None,
            has_quantities=histories.quantities is not None,
        )
        self._places = {user: place for place, user in enumerate(histories.user_ids.to_list())}
        self._followed = FollowedRules(predictor.catalog, predictor.config.rules)
        forecaster = predictor.forecaster
        self.unlisted = None if forecaster is None else forecaster.unlisted

    @classmethod
    def load(cls, folder: Path, store_identity: str) -> "LoadedBundle":
        """Read and verify a version, to be joined with a store; nothing of the folder is needed
        afterwards.

        Raises:
            BundleError: If it is damaged or not what it says.
        """
        try:
            return cls(folder.name, Predictor.load(folder), store_identity)
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise BundleError(f"The facts of the bundle in {folder} make no sense: {error}.") from (
                error
            )

    @property
    def has_dates(self) -> bool:
        """Whether a question can name a moment."""
        return self.reading.time_kind == "dates"

    def place_of(self, user_id: str) -> int | None:
        """Position of a user among the stored histories; None for one who is not there."""
        return self._places.get(user_id)

    def stored_rows(self, place: int | None) -> Rows:
        """What the log had of a user, with what the catalog lacks; nothing for None."""
        if place is None:
            return no_rows(self.reading)
        known = self.predictor.histories
        rows = slice(int(known.offsets[place]), int(known.offsets[place + 1]))
        listed = Rows(
            items=known.items[rows], times=known.times[rows], baskets=known.baskets[rows],
            prices=None if known.prices is None else known.prices[rows],
            quantities=None if known.quantities is None else known.quantities[rows],
        )  # fmt: skip
        unlisted = self.unlisted
        if unlisted is None:
            return listed
        start, end = np.searchsorted(unlisted.users, [place, place + 1])
        if start == end:
            return listed
        some = slice(int(start), int(end))
        both = Rows(
            items=np.append(listed.items, np.full(int(end - start), UNKNOWN, np.int32)),
            times=np.append(listed.times, unlisted.times[some]),
            baskets=np.append(listed.baskets, unlisted.baskets[some]),
            prices=_appended(listed.prices, unlisted.prices, some),
            quantities=_appended(listed.quantities, unlisted.quantities, some),
        )
        return both.take(np.lexsort((both.baskets, both.times)))

    def histories(self, user_ids: Sequence[str], rows: Sequence[Rows]) -> Histories:
        """The rows of some users as histories; all of their items have to be known."""
        each = [no_rows(self.reading), *rows]
        prices = [r.prices for r in each if r.prices is not None]
        quantities = [r.quantities for r in each if r.quantities is not None]
        return Histories(
            user_ids=pl.Series("user_id", list(user_ids), dtype=pl.String),
            items=np.concatenate([r.items for r in each]),
            times=np.concatenate([r.times for r in each]),
            baskets=np.concatenate([r.baskets for r in each]),
            offsets=offsets_of(np.array([len(r) for r in rows], dtype=np.int64)),
            prices=np.concatenate(prices) if self.reading.has_prices else None,
            quantities=np.concatenate(quantities) if self.reading.has_quantities else None,
            time_kind=self.reading.time_kind,
        )

    def followed(self, rules: Rules | None) -> CatalogRules | None:
        """See `FollowedRules.of`."""
        return self._followed.of(rules)

    def purchase_at(self, user_id: str, rows: Rows, row: int) -> LivePurchase:
        """A stored purchase as it is shown; its item has to be known."""
        lookup, place = self.reading.lookup, int(rows.items[row]) - 1
        return LivePurchase(
            user_id=user_id,
            item_id=lookup.item_ids[place],
            timestamp=int(rows.times[row]),
            platform=lookup.platforms[place],
            category=lookup.categories[place],
            price=_told(rows.prices, row),
            quantity=_told(rows.quantities, row),
        )


def _appended(stored: np.ndarray | None, more: np.ndarray | None, some: slice) -> np.ndarray | None:
    return None if stored is None or more is None else np.append(stored, more[some])


def _told(values: Float32 | None, row: int) -> float | None:
    return None if values is None or np.isnan(values[row]) else float(values[row])
