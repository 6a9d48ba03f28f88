"""Popularity: everybody gets what everybody buys. The baseline that every model must beat."""

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Float32, Histories, Int64
from nextbuy.errors import NotFittedError
from nextbuy.models.one_row import OneRow
from nextbuy.models.protocol import FitOptions
from nextbuy.models.search_space import Range, SearchSpace
from nextbuy.models.stored import load_model, save_model
from nextbuy.splitting.cases import Cases


class PopularityConfig(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search_space: ClassVar[SearchSpace] = {
        "smoothing": Range(low=0.01, high=100.0, log=True),
    }

    smoothing: float = Field(
        default=1.0, gt=0, description="purchases that every item is given beforehand"
    )


class Popularity(OneRow):
    """P(i) = (n_i + s) / (N + s V), with n_i the training purchases of item i."""

    name: ClassVar[str] = "popularity"

    def __init__(self, config: PopularityConfig | None = None) -> None:
        self.config = config or PopularityConfig()
        self._log_popularity: Float32 | None = None

    def fit(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Self:
        """Count; see `Model.fit`."""
        self._log_popularity = log_popularity(train, len(catalog), self.config.smoothing)
        return self

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """The same row for every history; see `Model.log_probabilities`."""
        return np.repeat(self.row()[None], len(histories), axis=0)

    def row(self) -> Float32:
        """See `OneRow`."""
        if self._log_popularity is None:
            raise NotFittedError("popularity has not counted yet: call fit or load first.")
        return self._log_popularity

    def save(self, folder: Path) -> None:
        """Write config and counts; see `Model.save`."""
        if self._log_popularity is None:
            raise NotFittedError("popularity cannot be saved before it is fitted.")
        save_model(folder, self.config, {"log_popularity": self._log_popularity[1:]})

    @classmethod
    def load(cls, folder: Path, catalog: Catalog) -> Self:
        """Read what `save` wrote; see `Model.load`."""
        shapes = {"log_popularity": (len(catalog),)}
        config, weights = load_model(folder, PopularityConfig, shapes)
        model = cls(config)
        model._log_popularity = with_padding(weights["log_popularity"])
        return model


def log_popularity(train: Histories, num_items: int, smoothing: float) -> Float32:
    """Log P(i) = log((n_i + s) / (N + s V)) for each index, length V + 1; padding is `-inf`."""
    counts = np.bincount(train.items, minlength=num_items + 1)[1:] + smoothing
    return with_padding(np.log(counts / counts.sum()).astype(np.float32))


def with_padding(values: Float32) -> Float32:
    """The values of items 1..V with `-inf` for padding in front."""
    return np.concatenate([np.array([-np.inf], np.float32), values])
