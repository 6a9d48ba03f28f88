"""Recency popularity: everybody gets what everybody buys these days."""

import logging
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import DAY, UNKNOWN, Float32, Histories
from nextbuy.models.one_row import OneRow
from nextbuy.models.protocol import FitOptions
from nextbuy.models.scored import Arrays, ScoredModel
from nextbuy.splitting.cases import Cases

logger = logging.getLogger(__name__)

_HALF_LIVES: Final = (1.0, 3.0, 7.0, 14.0, 30.0, 60.0, 120.0, 365.0)


class RecencyPopularityConfig(BaseModel):
    """Unknown keys are errors. What is None is chosen on validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    half_life_days: float | None = Field(
        default=None, gt=0, description="days after which a purchase counts half"
    )


class RecencyPopularity(OneRow, ScoredModel):
    """s_i = sum over purchases of i of 2^(-age / half-life).

    Under exponential decay the age can be counted from any moment: the scale cancels. Where time is
    only an order, all purchases count alike.
    """

    name: ClassVar[str] = "recency-popularity"
    config_class: ClassVar[type[BaseModel]] = RecencyPopularityConfig

    def learn(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Arrays:
        """Decayed counts, with the half-life that suits validation; see `ScoredModel`."""
        num_items = len(catalog)
        if train.time_kind != "dates":
            return {"scores": decayed_counts(train, None, num_items)}
        asked = self._asked.half_life_days
        half_lives = _HALF_LIVES if asked is None else (asked,)
        counted = {h: decayed_counts(train, h, num_items) for h in half_lives}
        chosen = max(counted, key=lambda h: _log_likelihood(counted[h], validation))
        self.config = self._asked.model_copy(update={"half_life_days": chosen})
        logger.info("Purchases count half after %g days.", chosen)
        return {"scores": counted[chosen]}

    def scores(self, arrays: Arrays, histories: Histories, num_items: int) -> Float32:
        """The same row for everybody."""
        return np.repeat(arrays["scores"][None], len(histories), axis=0)

    def row(self) -> Float32:
        """See `OneRow`."""
        nobody = Histories.from_lists([[]])
        found: Float32 = self.log_probabilities(nobody, None)[0]
        return found

    def check(self, arrays: Arrays, num_items: int) -> bool:
        """One score an item."""
        return {n: (a.shape, a.dtype) for n, a in arrays.items()} == {
            "scores": ((num_items,), np.dtype(np.float32))
        }


def decayed_counts(train: Histories, half_life_days: float | None, num_items: int) -> Float32:
    """Purchases of each item 1..V, counted 2^(-age / half-life); None counts all alike."""
    weights: NDArray[np.float64] | None = None
    if half_life_days is not None and len(train.times):
        ages = (train.times.max() - train.times) / (half_life_days * DAY)
        weights = np.exp2(-ages)
    return np.bincount(train.items, weights, num_items + 1)[1:].astype(np.float32)


def _log_likelihood(counts: Float32, validation: Cases) -> float:
    """Of validation targets, with one purchase of smoothing for each item."""
    known = validation.target_items[validation.target_items != UNKNOWN]
    smoothed = counts + max(1e-3, float(counts.sum()) / len(counts) * 0.1)
    return float(np.log(smoothed[known - 1] / smoothed.sum()).sum())
