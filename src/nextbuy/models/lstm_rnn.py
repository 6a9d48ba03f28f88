"""The described network as a model: Embedding, LSTM, SimpleRNN, Dense softmax.

Either engine trains it; scoring, saving and loading are shared.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.models.neural import NeuralModel
from nextbuy.models.neural_config import NeuralConfig
from nextbuy.models.search_space import Choice, Range, SearchSpace
from nextbuy.nn.network import Weights
from nextbuy.nn.recurrent import LstmRnnShape, initial_weights, weight_shapes
from nextbuy.training.batches import has_baskets


class LstmRnnConfig(NeuralConfig):
    """Sizes, engine and training of the network; unknown keys are errors."""

    embedding_size: int = Field(default=64, ge=1)
    lstm_size: int = Field(default=128, ge=1)
    rnn_size: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    search_space: ClassVar[SearchSpace] = {
        "embedding_size": Range(low=16, high=128, log=True),
        "lstm_size": Range(low=32, high=256, log=True),
        "rnn_size": Range(low=32, high=256, log=True),
        "dropout": Range(low=0.0, high=0.6),
        "training.learning_rate": Range(low=2e-4, high=2e-2, log=True),
        "training.tokens": Choice((512, 1024, 2048, 4096)),
        "training.weight_decay": Range(low=0.0, high=0.3),
    }


class LstmRnn(NeuralModel[LstmRnnConfig, LstmRnnShape]):
    """Trains on every purchase of every history; predicts from the newest purchases."""

    name: ClassVar[str] = "lstm-rnn"
    config_class = LstmRnnConfig
    shape_class = LstmRnnShape

    def decided(
        self,
        config: LstmRnnConfig,
        train: Histories,
        catalog: Catalog,
    ) -> LstmRnnConfig:
        """Nothing but training is left to the data; see `TrainingConfig.decided`."""
        return config

    def shape_of(self, config: LstmRnnConfig, train: Histories, catalog: Catalog) -> LstmRnnShape:
        """See `NeuralModel.shape_of`."""
        return LstmRnnShape(
            num_items=len(catalog),
            embedding_size=config.embedding_size,
            lstm_size=config.lstm_size,
            rnn_size=config.rnn_size,
            dropout=config.dropout,
            marks_baskets=has_baskets(train),
        )

    def first_weights(
        self, shape: LstmRnnShape, *, seed: int, item_counts: NDArray[np.integer], longest: int
    ) -> Weights:
        """See `nextbuy.nn.recurrent.initial_weights`."""
        return initial_weights(shape, seed=seed, item_counts=item_counts, longest=longest)

    @classmethod
    def weight_shapes(cls, shape: LstmRnnShape) -> dict[str, tuple[int, ...]]:
        """See `nextbuy.nn.recurrent.weight_shapes`."""
        return weight_shapes(shape)
