"""What the training loop asks of an engine; torch and TensorFlow both answer."""

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, SupportsFloat

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nextbuy.errors import ConfigError
from nextbuy.nn.gru import GruShape
from nextbuy.nn.network import Weights
from nextbuy.nn.recurrent import LstmRnnShape
from nextbuy.nn.transformer import TransformerShape
from nextbuy.seeding import generator
from nextbuy.training.batches import Batch
from nextbuy.training.team import Team

EngineName = Literal["torch", "tensorflow"]
Arrays = dict[str, NDArray[Any]]
Shape = LstmRnnShape | GruShape | TransformerShape

_RATES: Final = ((100, 1e-2), (10_000, 3e-3))
_RATE_OF_MORE: Final = 1e-3
"""Learning rates for catalogs of up to so many items, and for larger ones; docs/experiments.md."""


_SCORED_WHOLE: Final = 6_000
_SAMPLES: Final = 2_048
"""Catalogs of up to so many items are scored whole, others by so many samples."""

_ALL_ROWS: Final = 200_000
"""Up to so many items all rows are changed in each step."""


class TrainingConfig(BaseModel):
    """How a network is trained; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=6, ge=1, description="passes over the training histories")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="peak of the schedule; None lets the size of the catalog decide",
    )
    tokens: int = Field(default=2048, ge=1, description="positions in a batch, about")
    longest_window: int = Field(default=256, ge=2, description="purchases a position can look back")
    beta2: float = Field(default=0.99, gt=0, lt=1, description="decay of Adam's second moment")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled decay")
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="of a moving average of the weights, which is then validated and kept; "
        "torch only",
    )
    clip_norm: float = Field(default=1.0, gt=0, description="largest global gradient norm")
    patience: int = Field(default=3, ge=1, description="epochs without a better validation loss")
    shuffle: Literal["auto", "baskets", "histories"] = Field(
        default="auto",
        description="what is put in random order: the purchases of a basket, or whole histories; "
        "auto shuffles histories when validation says that their order carries no information",
    )
    loss: Literal["softmax", "gbce"] = Field(
        default="softmax",
        description="what is learnt: the distribution of the next purchase, or yes and no for each "
        "item (gBCE), whose scores rank but are no log-probabilities; torch only",
    )
    period_days: float | None = Field(
        default=None,
        gt=0,
        description="days in which answers count: questions are then drawn evenly from time, as "
        "the test asks them; None lets the validation period decide. For networks that know "
        "when they are asked, and the softmax loss",
    )
    sample_size: int | None = Field(
        default=None,
        ge=0,
        description="items that the loss is estimated on; 0 is the whole catalog, "
        "None lets the size of the catalog decide",
    )
    sparse_rows: bool | None = Field(
        default=None,
        description="whether a step changes only the rows of the items that it touches, each by "
        "an Adam with a clock of its own, at four times the rate; None does so for catalogs of "
        "more than 200,000 items, where all rows would take most of the time. For a sampled loss "
        "without an average of the weights; torch only",
    )
    precision: Literal["auto", "single", "bf16"] = Field(
        default="auto",
        description="of the products inside the transformer while it trains; losses, norms and "
        "the catalog's scores stay single. auto is bf16 for wide networks on a GPU that has it, "
        "and single elsewhere; answers are always single; torch only",
    )
    checkpoint_seconds: float = Field(default=30.0, ge=0, description="time between checkpoints")

    def decided(self, num_items: int) -> "TrainingConfig":
        """The same config with a learning rate for a catalog of this size, unless it has one.

        With few items every step moves every item, and a high rate is the fastest. With many, most
        items are seen seldom; Adam then moves them by about the rate in each step after they were
        seen, whatever the gradient, and a high rate throws them about.
        """
        if self.learning_rate is not None:
            return self
        rate = next((rate for most, rate in _RATES if num_items <= most), _RATE_OF_MORE)
        return self.model_copy(update={"learning_rate": rate})

    def num_samples(self, num_items: int) -> int:
        """Items that the loss is estimated on in a catalog of this size; 0 is all of them."""
        size = self.sample_size
        if size is None:
            size = 0 if num_items <= _SCORED_WHOLE else _SAMPLES
        return size if size < num_items else 0

    def has_sparse_rows(self, num_items: int) -> bool:
        """Whether a step changes the rows that it touches only.

        Raises:
            ConfigError: If that is asked for where each step touches all rows.
        """
        obstacle = None
        if self.num_samples(num_items) == 0:
            obstacle = f"the loss is of all {num_items} items: give a sample_size below that"
        elif self.ema_decay is not None:
            obstacle = f"ema_decay={self.ema_decay} keeps an average of all weights: leave it out"
        if self.sparse_rows is None:
            return obstacle is None and num_items > _ALL_ROWS
        if self.sparse_rows and obstacle is not None:
            raise ConfigError(
                "sparse_rows=True changes only the rows that a step touches, but "
                f"{obstacle}, or leave sparse_rows out."
            )
        return self.sparse_rows

    @property
    def peak_rate(self) -> float:
        """The learning rate at the peak of the schedule.

        Raises:
            ConfigError: If it is not decided.
        """
        if self.learning_rate is None:
            raise ConfigError("The learning rate is not decided: give one, or call decided().")
        return self.learning_rate


class Engine(Protocol):
    """Owns weights and optimizer state; knows nothing of epochs, files or validation."""

    def prepare(self, batch: Batch, step: int) -> Batch:
        """Do what needs no weights, before the turn of the step and in another thread.

        Returns:
            The same batch, perhaps with more to it, for `step` with this number.
        """
        ...

    def step(self, batch: Batch, *, learning_rate: float, step: int) -> SupportsFloat:
        """Take one optimizer step.

        Args:
            batch: The examples, prepared or not.
            learning_rate: Of this step.
            step: Number of the step in the run; names the streams of dropout and samples.

        Returns:
            The loss before the step, in nats for a softmax. If it is not finite the step was not
            taken. What is no `float` is still being computed: to ask for it is to wait, and if it
            turns out not to be finite, the steps after it were not taken either.
        """
        ...

    def weights(self) -> Weights:
        """A copy of the weights that predict, under the names that the network gives them."""
        ...

    def optimizer_state(self) -> Arrays:
        """A copy of everything else that the next step depends on."""
        ...

    def restore(
        self, weights: Mapping[str, NDArray[Any]], optimizer_state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Go back to where `weights` and `optimizer_state` were taken."""
        ...


def create_engine(
    name: EngineName,
    shape: Shape,
    config: TrainingConfig,
    *,
    weights: Weights,
    item_counts: NDArray[np.integer],
    seed: int,
    device: str = "cpu",
    codes: NDArray[np.int64] | None = None,
    team: Team | None = None,
) -> Engine:
    """An engine by name, with its weights set; `codes` as for `network_of`.

    With a team it computes its part of each batch, and takes the steps of the whole batch.

    Raises:
        ConfigError: If there is no such engine or no such device.
        MissingExtraError: If the engine's library is not installed.
    """
    if config.loss == "gbce" and isinstance(shape, TransformerShape) and shape.repeats:
        raise ConfigError(
            "A repeat head mixes probabilities, and the loss gbce has none to mix. "
            "Say repeats=False, or loss='softmax'."
        )
    config = config.decided(len(item_counts))
    sampler = ItemSampler.create(config, item_counts, seed)
    if name == "torch":
        from nextbuy.training.torch_engine import TorchEngine

        return TorchEngine(
            shape, config, weights=weights, sampler=sampler, seed=seed, device=device, codes=codes,
            team=team,
        )  # fmt: skip
    if name == "tensorflow":
        from nextbuy.training.tensorflow_engine import TensorFlowEngine

        if not isinstance(shape, LstmRnnShape):
            raise ConfigError("The TensorFlow engine trains lstm-rnn only; choose engine torch.")
        _refuse_what_is_of_torch_alone(config)
        if team is not None and team.size > 1:
            raise ConfigError(
                f"The TensorFlow engine trains in one process; asked for {team.size}. "
                "Choose engine torch."
            )
        if device != "cpu":
            raise ConfigError(
                f"The TensorFlow engine trains on the CPU only; asked for {device!r}."
            )
        return TensorFlowEngine(shape, config, weights=weights, sampler=sampler, seed=seed)
    raise ConfigError(f"No engine is called {name!r}; there are torch and tensorflow.")


def _refuse_what_is_of_torch_alone(config: TrainingConfig) -> None:
    if config.ema_decay is not None:
        raise ConfigError(
            "The TensorFlow engine keeps no average of the weights; asked for ema_decay="
            f"{config.ema_decay}. Leave it out, or choose engine torch."
        )
    if config.precision == "bf16":
        raise ConfigError(
            "The TensorFlow engine trains in single precision; asked for precision='bf16'. "
            "Leave it out, or choose engine torch."
        )
    if config.sparse_rows:
        raise ConfigError(
            "The TensorFlow engine changes all rows in each step; asked for sparse_rows=True. "
            "Leave it out, or choose engine torch."
        )
    if config.loss != "softmax":
        raise ConfigError(
            f"The TensorFlow engine has the softmax loss only; asked for {config.loss}. "
            "Choose engine torch."
        )


class ItemSampler:
    """Draws the items of the sampled loss: half of them uniformly, half by frequency.

    The uniform half keeps rare items down; the frequent half makes the estimate of the partition
    function tight where most of its mass is. The expected counts correct for both. gBCE has no such
    correction and needs all of them uniform.
    """

    def __init__(
        self,
        size: int,
        item_counts: NDArray[np.integer],
        seed: int,
        *,
        uniform_share: float = 0.5,
    ) -> None:
        V = len(item_counts)
        frequency = np.asarray(item_counts, dtype=np.float64) + 1e-9
        by_frequency = (1.0 - uniform_share) * frequency / frequency.sum()
        probability = uniform_share / V + by_frequency
        self.size = size
        self.seed = seed
        self.log_expected = np.log(size * probability).astype(np.float32)
        self._cumulative = np.cumsum(probability)

    @classmethod
    def create(
        cls, config: TrainingConfig, item_counts: NDArray[np.integer], seed: int
    ) -> "ItemSampler | None":
        """The sampler that the config asks for; None when the whole catalog is scored.

        Scoring an item costs 6 R operations a position. Up to some thousands of items that is less
        than the network itself costs, and the exact loss learns more from a position.
        """
        size = config.num_samples(len(item_counts))
        share = 1.0 if config.loss == "gbce" else 0.5
        return cls(size, item_counts, seed, uniform_share=share) if size else None

    def draw(self, step: int) -> NDArray[np.int64]:
        """Item rows 0..V-1 for a step, with replacement, length `size`."""
        points = generator(self.seed, "samples", step).random(self.size) * self._cumulative[-1]
        rows: NDArray[np.int64] = np.searchsorted(self._cumulative, points, side="right")
        return rows

    def draw_distinct(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The same draw, each row once, with the log of how many items it stands for."""
        rows, counts = np.unique(self.draw(step), return_counts=True)
        return rows, (np.log(counts) - self.log_expected[rows]).astype(np.float32)
