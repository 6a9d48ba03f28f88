"""Where the weights of a network start: drawn, by what is bought near each other, or carried over.

Legend: V items, A attributes, G groups of items.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN, Float32, Histories, Int64
from nextbuy.data.recoding import index_map
from nextbuy.models.items import item_codes, item_groups
from nextbuy.models.neural_config import NeuralConfig
from nextbuy.models.protocol import FitOptions
from nextbuy.nn.network import Weights
from nextbuy.nn.spectral import with_spectral_items
from nextbuy.splitting.baskets import first_rows_from
from nextbuy.training.engine import TrainingConfig
from nextbuy.training.team import Alone

logger = logging.getLogger(__name__)

_MANY_ITEMS: Final = 1_000
_SELDOM: Final = 100.0
"""In so large catalogs of items that are bought less often on average it matters where their
vectors start: others are learnt soon anyway; docs/experiments.md."""

_MOST_ITEMS: Final = 300_000
"""The start of a million takes three minutes and 3.4 GiB, and the first epoch ends no better."""

_SECONDS_AN_ITEM: Final = 6e-5
"""That the start of vectors takes, about; under a time limit a tenth of what is left."""

_EPOCHS: Final = 2
_RATE_SHARE: Final = 1.0
"""What goes on is trained so long, and at so much of the peak rate; docs/experiments.md."""

_SHARED: Final = "embedding.shared."
_CADENCE: Final = "repeat_head.cadence.weight"


def item_start(config: NeuralConfig, train: Histories, num_items: int) -> str:
    """What the config says, decided."""
    if config.item_start != "auto":
        return config.item_start
    is_seldom_bought = train.num_purchases < _SELDOM * num_items
    is_worth_it = _MANY_ITEMS <= num_items <= _MOST_ITEMS and is_seldom_bought
    return "spectral" if is_worth_it else "random"


def with_items(
    weights: Weights, config: NeuralConfig, train: Histories, options: FitOptions
) -> Weights:
    """The weights with vectors of items that start as the config says; the same for all of a team.

    Under a time limit they stay as drawn if anything else would take more than a tenth of the time.
    """
    num_items = len(weights["embedding.weight"]) - 1
    if item_start(config, train, num_items) == "random":
        return weights
    if options.seconds_left() < 10 * _SECONDS_AN_ITEM * num_items:
        logger.info("There is no time to start items by their neighbours; vectors are drawn.")
        return weights
    team = options.team or Alone()
    if team.rank == 0:
        weights = with_spectral_items(weights, train, seed=options.seed)
    table = weights["embedding.weight"]
    shared = np.frombuffer(team.shared(table.tobytes()), table.dtype)
    return weights | {"embedding.weight": shared.reshape(table.shape)}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Start:
    """A fitted network to go on from.

    Attributes:
        weights: Of it.
        catalog: That it knows.
        since: Moment up to which it has learnt, UTC microseconds; None if that is not known.
    """

    weights: Weights
    catalog: Catalog
    since: int | None = None

    def gentler(self, training: TrainingConfig) -> TrainingConfig:
        """The config of the training that goes on."""
        rate = training.peak_rate * _RATE_SHARE
        return training.model_copy(update={"epochs": _EPOCHS, "learning_rate": rate})

    def to_learn(self, train: Histories) -> Histories:
        """The whole histories of the users who have bought since."""
        if self.since is None or train.time_kind != "dates":
            return train
        return train.take(np.flatnonzero(first_rows_from(train, self.since) < train.offsets[1:]))

    def digest(self) -> str:
        """Changes whenever a weight does."""
        found = hashlib.sha256()
        for name in sorted(self.weights):
            found.update(np.ascontiguousarray(self.weights[name]).data)
        return found.hexdigest()[:16]


def carried(drawn: Weights, start: Start, catalog: Catalog, tables: Mapping[str, int]) -> Weights:
    """The weights of a fitted network, in the order of another catalog.

    What it does not know stays as drawn: new items, new categories and platforms. Biases of new
    items are moved by what those of the others have moved by on average, since only differences
    between biases mean anything.

    Args:
        drawn: Weights of the network before training.
        start: The fitted network; parts whose sizes are others stay as drawn, too.
        catalog: Of the weights that are returned.
        tables: Weights with a row an item; see `CatalogNetwork.item_tables`.
    """
    places = index_map(catalog, start.catalog).astype(np.int64)
    found: Weights = {}
    for name, fresh in drawn.items():
        old = start.weights.get(name)
        if old is None or old.shape[1:] != fresh.shape[1:]:
            found[name] = fresh
        elif name in tables:
            found[name] = _rows(fresh, old, places[tables[name] :] - tables[name])
        elif name.startswith(_SHARED):
            attribute = int(name.removeprefix(_SHARED))
            codes, before = item_codes(catalog), item_codes(start.catalog)
            known = len(codes) == len(before)
            rows = _of_codes(codes[attribute], before[attribute], places) if known else None
            found[name] = fresh if rows is None else _rows(fresh, old, rows)
        elif name == _CADENCE:
            rows = _of_codes(item_groups(catalog), item_groups(start.catalog), places)
            found[name] = _rows(fresh, old, np.append(0, np.where(rows < 0, rows, rows + 1)))
        else:
            found[name] = old if old.shape == fresh.shape else fresh
    return found


def _rows(fresh: Float32, old: Float32, places: Int64) -> Float32:
    """`fresh`, with the rows of `old` at these places; below 0 is nowhere."""
    known = places >= 0
    result = fresh.copy()
    if fresh.ndim == 1 and known.any():
        result += np.float32((old[places[known]] - fresh[known]).mean())
    result[known] = old[places[known]]
    return result


def _of_codes(codes: Int64, before: Int64, places: Int64) -> Int64:
    """The code before of each code now, by the most bought item that has it; -1 where none has."""
    found = np.full(int(codes.max(initial=0)) + 1, UNKNOWN, dtype=np.int64)
    items = 1 + np.flatnonzero(places[1:] >= 0)
    # The catalog has what is bought most first: written last, it wins.
    found[codes[items][::-1]] = before[places[items]][::-1]
    return found
