"""The described network as a model: Embedding, LSTM, SimpleRNN, Dense softmax.

Either engine trains it; scoring, saving and loading are shared.
"""

import hashlib
import importlib.metadata
import logging
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nextbuy import __version__, storage
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN, Float32, Histories, Int64
from nextbuy.errors import BundleError, NotFittedError
from nextbuy.models.protocol import FitOptions
from nextbuy.models.stored import load_weights
from nextbuy.nn.recurrent import (
    LstmRnnNetwork,
    LstmRnnShape,
    Weights,
    initial_weights,
    weight_shapes,
)
from nextbuy.splitting.cases import Cases
from nextbuy.training.checkpoint import run_lock
from nextbuy.training.engine import EngineName, TrainingConfig, create_engine
from nextbuy.training.loop import TrainingResult, train
from nextbuy.training.order import order_test

logger = logging.getLogger(__name__)

_SCORING_TOKENS = 16_384


class LstmRnnConfig(BaseModel):
    """Sizes, engine and training of the network; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineName = "torch"
    device: str = Field(default="cpu", description="cpu, cuda or cuda:N; torch only")
    embedding_size: int = Field(default=64, ge=1)
    lstm_size: int = Field(default=128, ge=1)
    rnn_size: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    training: TrainingConfig = TrainingConfig()


class LstmRnn:
    """Trains on every purchase of every history; predicts from the newest purchases."""

    name: ClassVar[str] = "lstm-rnn"

    def __init__(self, config: LstmRnnConfig | None = None) -> None:
        self.config = config or LstmRnnConfig()
        self.result: TrainingResult | None = None
        self._network: LstmRnnNetwork | None = None

    def fit(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Self:
        """Train; keep the weights of the epoch with the best validation loss. See `Model.fit`."""
        config = self.config
        training = config.training.decided(len(catalog))
        if options.epochs is not None:
            training = training.model_copy(update={"epochs": options.epochs})
        training = _with_shuffle(training, train, validation, len(catalog), options.seed)
        self.config = config.model_copy(update={"training": training})  # for a second fit
        shape = LstmRnnShape(
            num_items=len(catalog),
            embedding_size=config.embedding_size,
            lstm_size=config.lstm_size,
            rnn_size=config.rnn_size,
            dropout=config.dropout,
            marks_baskets=_has_baskets(train),
        )
        counts = np.bincount(train.items, minlength=len(catalog) + 1)[1:]
        longest = min(training.longest_window, int(train.lengths.max(initial=1)))
        options.progress.start("prepare", 1)  # TensorFlow takes seconds to come up
        engine = create_engine(
            config.engine,
            shape,
            training,
            weights=initial_weights(shape, seed=options.seed, item_counts=counts, longest=longest),
            item_counts=counts,
            seed=options.seed,
            device=config.device,
        )
        network = LstmRnnNetwork(shape)
        options.progress.advance(1, {})

        can_validate = bool((validation.target_items != UNKNOWN).any())

        def validate(weights: Weights) -> float:
            network.load_weights(weights)
            return _validation_loss(network, validation, training.longest_window)

        def run(folder: Path | None) -> TrainingResult:
            return _train(
                engine, train, validate if can_validate else None, training,
                seed=options.seed, run_folder=folder,
                identity=_identity(config, training, shape, train, options.seed),
                progress=options.progress, deadline=options.deadline,
            )  # fmt: skip

        if options.run_folder is None:
            self.result = run(None)
        else:
            with run_lock(options.run_folder):
                self.result = run(options.run_folder)
        network.load_weights(self.result.weights)
        self._network = network
        return self

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """Log P(next item) after each history; see `Model.log_probabilities`."""
        if self._network is None:
            raise NotFittedError("lstm-rnn has no weights yet: call fit or load first.")
        return _score(self._network, histories, self.config.training.longest_window)

    def weights(self) -> Weights:
        """The weights, under the names of `nextbuy.nn.recurrent.weight_shapes`."""
        if self._network is None:
            raise NotFittedError("lstm-rnn has no weights yet: call fit or load first.")
        return self._network.weights()

    def save(self, folder: Path) -> None:
        """Write `config.json` and `weights.safetensors`."""
        if self._network is None:
            raise NotFittedError("lstm-rnn cannot be saved before it is fitted.")
        config = {
            "config": self.config.model_dump(mode="json"),
            "shape": self._network.shape.model_dump(mode="json"),
        }
        storage.write_json(folder / "config.json", config)
        storage.write_arrays(folder / "weights.safetensors", self._network.weights())

    @classmethod
    def load(cls, folder: Path, catalog: Catalog) -> Self:
        """Read what `save` wrote; see `Model.load`."""
        stored = storage.read_json(folder / "config.json")
        if not isinstance(stored, dict) or set(stored) != {"config", "shape"}:
            found = sorted(stored) if isinstance(stored, dict) else type(stored).__name__
            raise BundleError(f"{folder / 'config.json'} has {found}; expected config and shape.")
        try:
            model = cls(LstmRnnConfig.model_validate(stored["config"]))
            shape = LstmRnnShape.model_validate(stored["shape"])
        except (KeyError, TypeError, ValidationError) as error:
            raise BundleError(f"{folder / 'config.json'} is no lstm-rnn config: {error}") from error
        if shape.num_items != len(catalog):
            raise BundleError(
                f"{folder} has weights for {shape.num_items} items, the catalog has {len(catalog)}."
            )
        network = LstmRnnNetwork(shape)
        network.load_weights(load_weights(folder, weight_shapes(shape)))
        model._network = network
        return model


_train = train  # `train` is also the name of the training histories in `fit`


def _has_baskets(histories: Histories) -> bool:
    """Whether any basket holds more than one purchase."""
    same = (histories.baskets[1:] == histories.baskets[:-1]) & (
        histories.owners[1:] == histories.owners[:-1]
    )
    return bool(same.any())


def _with_shuffle(
    training: TrainingConfig, train: Histories, validation: Cases, num_items: int, seed: int
) -> TrainingConfig:
    """The config with `shuffle="auto"` decided."""
    if training.shuffle != "auto":
        return training
    shuffle = "baskets"
    if not _has_baskets(train):
        test = order_test(train, validation, num_items=num_items, seed=seed)
        shuffle = "baskets" if test.order_matters else "histories"
        logger.info(
            "Order is worth %.4f nats a case (standard error %.4f, %d cases): shuffling %s.",
            test.gain, test.standard_error, test.num_cases, shuffle,
        )  # fmt: skip
    return training.model_copy(update={"shuffle": shuffle})


def _identity(
    config: LstmRnnConfig,
    training: TrainingConfig,
    shape: LstmRnnShape,
    train: Histories,
    seed: int,
) -> dict[str, Any]:
    """What a checkpoint must agree with: everything that changes the resulting bytes."""
    library = "torch" if config.engine == "torch" else "tensorflow-cpu"
    chosen = training.model_dump(mode="json", exclude={"checkpoint_seconds"})
    return {
        "nextbuy": __version__,
        library: importlib.metadata.version(library),
        "engine": config.engine,
        **{f"training.{key}": value for key, value in chosen.items()},
        **{f"network.{key}": value for key, value in shape.model_dump(mode="json").items()},
        "seed": seed,
        "data": _digest(train),
    }


def _digest(histories: Histories) -> str:
    digest = hashlib.sha256()
    for array in (histories.items, histories.baskets, histories.offsets):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _score(network: LstmRnnNetwork, histories: Histories, longest: int) -> Float32:
    """Log-probabilities after each history, [U, V + 1], in batches of equal length.

    Inside a basket purchases are put in the order of their index: a basket has no order of its own.
    """
    items, baskets = histories.items, histories.baskets
    if _has_baskets(histories):
        canonical = np.lexsort((items, baskets, histories.owners))
        items, baskets = items[canonical], baskets[canonical]
    lengths = np.minimum(histories.lengths, longest - 1)
    is_cut = histories.lengths > lengths
    result = np.full((len(histories), network.shape.num_items + 1), -np.inf, dtype=np.float32)
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        rows_in_batch = max(1, _SCORING_TOKENS // int(length + 1))
        for start in range(0, len(members), rows_in_batch):
            rows = members[start : start + rows_in_batch]
            # Position 0 sees the purchase before the window, if there is one.
            flat = histories.offsets[rows + 1, None] - length - 1 + np.arange(length + 1)
            seen = np.concatenate([is_cut[rows, None], np.ones((len(rows), length), bool)], axis=1)
            flat = np.where(seen, flat, 0)
            inputs = np.where(seen, items[flat], 0) if len(items) else np.zeros_like(flat)
            opens = np.ones_like(inputs)  # so does the next purchase, at the last position
            if length:
                seen_baskets = np.where(seen, baskets[flat], -1)
                opens[:, :-1] = np.diff(seen_baskets, axis=1) != 0
            result[rows, 1:] = _after_last(network, inputs.astype(np.int64), opens)
    return result


@torch.no_grad()
def _after_last(
    network: LstmRnnNetwork, inputs_BL: NDArray[np.int64], marks_BL: NDArray[np.int64]
) -> Float32:
    hidden_BLR = network.hidden(torch.from_numpy(inputs_BL), torch.from_numpy(marks_BL))
    logits_BV = network.dense(hidden_BLR[:, -1])
    scores: Float32 = torch.log_softmax(logits_BV, dim=-1).numpy()
    return scores


def _validation_loss(network: LstmRnnNetwork, cases: Cases, longest: int) -> float:
    """Mean of -log p over the known targets, in nats; `nan` without any."""
    owners = np.repeat(np.arange(len(cases)), np.diff(cases.target_offsets))
    known = cases.target_items != UNKNOWN
    owners, targets = owners[known], cases.target_items[known]
    total = 0.0
    chunk = max(1, 2**24 // (network.shape.num_items + 1))
    for start in range(0, len(cases), chunk):
        rows = np.arange(start, min(start + chunk, len(cases)))
        scores = _score(network, cases.histories.take(rows), longest)
        mine = (owners >= start) & (owners < start + len(rows))
        total -= float(scores[owners[mine] - start, targets[mine]].sum(dtype=np.float64))
    return total / len(targets) if len(targets) else float("nan")
