"""A GRU as a model, after GRU4Rec: the plainest network that reads purchases in order."""

from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.models.neural import NeuralModel
from nextbuy.models.neural_config import NeuralConfig
from nextbuy.models.search_space import Choice, Range, SearchSpace
from nextbuy.nn.gru import GruShape, initial_weights, weight_shapes
from nextbuy.nn.network import Weights
from nextbuy.training.batches import has_baskets

_SIZES: Final = {"small": (64, 128, 1), "medium": (128, 256, 1), "large": (256, 512, 2)}
"""Width of an item, units of a layer, layers."""


class GruConfig(NeuralConfig):
    """Size and training of the network; unknown keys are errors."""

    size: Literal["small", "medium", "large"] = Field(
        default="small", description="width of an item, units of a layer, layers"
    )
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)

    # "large" takes minutes an epoch without a GPU: who has one asks for it by name.
    search_space: ClassVar[SearchSpace] = {
        "size": Choice(("small", "medium")),
        "dropout": Range(low=0.0, high=0.6),
        "training.learning_rate": Range(low=2e-4, high=2e-2, log=True),
        "training.tokens": Choice((512, 1024, 2048, 4096)),
        "training.weight_decay": Range(low=0.0, high=0.3),
    }


class Gru(NeuralModel[GruConfig, GruShape]):
    """See `nextbuy.nn.gru`."""

    name: ClassVar[str] = "gru"
    config_class = GruConfig
    shape_class = GruShape
    temperatures = (1.0, 1.25, 1.5, 2.0)

    def decided(self, config: GruConfig, train: Histories, catalog: Catalog) -> GruConfig:
        """Nothing but training is left to the data; see `TrainingConfig.decided`."""
        return config

    def shape_of(self, config: GruConfig, train: Histories, catalog: Catalog) -> GruShape:
        """See `NeuralModel.shape_of`."""
        width, hidden, layers = _SIZES[config.size]
        return GruShape(
            num_items=len(catalog),
            width=width,
            hidden=hidden,
            layers=layers,
            dropout=config.dropout,
            marks_baskets=has_baskets(train),
        )

    def first_weights(
        self, shape: GruShape, *, seed: int, item_counts: NDArray[np.integer], longest: int
    ) -> Weights:
        """See `nextbuy.nn.gru.initial_weights`."""
        return initial_weights(shape, seed=seed, item_counts=item_counts, longest=longest)

    @classmethod
    def weight_shapes(cls, shape: GruShape) -> dict[str, tuple[int, ...]]:
        """See `nextbuy.nn.gru.weight_shapes`."""
        return weight_shapes(shape)
