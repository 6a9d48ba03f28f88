"""The flagship: a causal transformer with a repeat head. Sizes and regularisation fit the data."""

import logging
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError
from nextbuy.models.items import item_codes, item_groups
from nextbuy.models.neural import NeuralModel
from nextbuy.models.neural_config import NeuralConfig
from nextbuy.models.search_space import Choice, Range, SearchSpace
from nextbuy.nn.network import Weights
from nextbuy.nn.transformer import TransformerShape, initial_weights, weight_shapes
from nextbuy.training.batches import has_baskets
from nextbuy.training.engine import TrainingConfig

logger = logging.getLogger(__name__)

_SIZES: Final = {"small": (64, 2, 1), "medium": (128, 2, 2), "large": (256, 4, 4)}
"""Width, blocks and heads."""

_SHORT: Final = 20.0
"""Histories of a lower mean length are short: they are learnt by heart without much dropout."""

_ALWAYS: Final = {"learning_rate": 1e-3, "beta2": 0.98}
_OF_SHORT: Final = {"epochs": 20, "tokens": 1024, "longest_window": 50, "patience": 8}
_OF_LONG: Final = {"epochs": 10, "tokens": 2048, "longest_window": 200}
_OF_SHORT_SCORED_WHOLE: Final = {"learning_rate": 3e-3}
_OF_REPEATS: Final = {"epochs": 4, "learning_rate": 2e-3}
"""Habits are mostly counted, not learnt: more passes are hardly worth their time."""

_SCORED_WHOLE: Final = 20_000
"""Catalogs up to this size are scored whole: slower than a sample, and better in the end."""

_REPEATED: Final = 0.02
"""Share of purchases that are repeats from which on there is a repeat head."""


class TransformerConfig(NeuralConfig):
    """Sizes and training of the network; unknown keys are errors.

    What is None, and what `training` is not told, the data decide.
    """

    size: Literal["small", "medium", "large"] = Field(
        default="small", description="width, blocks and heads"
    )
    dropout: float | None = Field(default=None, ge=0.0, lt=1.0)
    taps: int | None = Field(default=None, ge=0, description="of the filter beside attention")
    gated: bool | None = Field(default=None, description="gated residuals and SwiGLU")
    repeats: bool | None = Field(default=None, description="a head for what is bought again")
    attributes: bool = Field(
        default=True, description="items share vectors with their platform and category"
    )

    # "large" takes minutes an epoch without a GPU: who has one asks for it by name.
    search_space: ClassVar[SearchSpace] = {
        "size": Choice(("small", "medium")),
        "dropout": Range(low=0.0, high=0.6),
        "taps": Choice((0, 3, 5)),
        "gated": Choice((False, True)),
        "training.learning_rate": Range(low=2e-4, high=2e-2, log=True),
        "training.tokens": Choice((512, 1024, 2048, 4096)),
        "training.weight_decay": Range(low=0.0, high=0.3),
    }


class Transformer(NeuralModel[TransformerConfig, TransformerShape]):
    """See `nextbuy.nn.transformer` and `nextbuy.nn.repeat_head`."""

    name: ClassVar[str] = "transformer"
    config_class = TransformerConfig
    shape_class = TransformerShape
    knows_moments = True
    temperatures = (1.0, 1.25, 1.5, 2.0, 2.5)

    def decided(
        self, config: TransformerConfig, train: Histories, catalog: Catalog
    ) -> TransformerConfig:
        """By the length of histories, the share of repeats and the size of the catalog."""
        lengths = train.lengths[train.lengths > 0]
        is_short = float(lengths.mean()) < _SHORT if len(lengths) else True
        decided: dict[str, object] = {
            "dropout": 0.5 if is_short else 0.2,
            "taps": 5 if is_short else 0,
            "gated": not is_short,
            "repeats": repeated_share(train) >= _REPEATED,
        }
        left = {name: value for name, value in decided.items() if getattr(config, name) is None}
        training = _ALWAYS | (_OF_SHORT if is_short else _OF_LONG)
        if len(catalog) <= _SCORED_WHOLE:
            training |= {"sample_size": 0} | (_OF_SHORT_SCORED_WHOLE if is_short else {})
        told = config.training.model_dump(include=config.training.model_fields_set)
        if left.get("repeats", config.repeats):
            if told.get("shuffle") == "histories":
                raise ConfigError(
                    "A repeat head knows what lies before each purchase, and shuffle='histories' "
                    "takes that away. Leave shuffle to 'auto', or say repeats=False."
                )
            training |= _OF_REPEATS
            told |= {"shuffle": "baskets"}
        chosen = TrainingConfig(**training | told)
        found = config.model_copy(update=left | {"training": chosen})
        logger.info(
            "Histories are %s: dropout %.1f, %s, %d epochs; %s; %s.",
            "short" if is_short else "long", found.dropout,
            "gates" if found.gated else f"a filter of {found.taps} taps", chosen.epochs,
            "a repeat head" if found.repeats else "no repeat head",
            "the whole catalog is scored" if chosen.sample_size == 0 else "a sample is scored",
        )  # fmt: skip
        return found

    def shape_of(
        self, config: TransformerConfig, train: Histories, catalog: Catalog
    ) -> TransformerShape:
        """See `NeuralModel.shape_of`."""
        width, blocks, heads = _SIZES[config.size]
        codes = item_codes(catalog) if config.attributes else np.zeros((0, 1), dtype=np.int64)
        return TransformerShape(
            num_items=len(catalog),
            width=width,
            blocks=blocks,
            heads=heads,
            taps=config.taps or 0,
            gated=bool(config.gated),
            expansion=2 if config.gated else 4,
            dropout=config.dropout or 0.0,
            marks_baskets=has_baskets(train),
            knows_times=train.time_kind == "dates",
            attributes=tuple(int(codes_V.max()) + 1 for codes_V in codes),
            repeats=bool(config.repeats),
            num_groups=int(item_groups(catalog).max()) + 1 if train.time_kind == "dates" else 0,
        )

    def offers_new(self, config: TransformerConfig) -> bool:
        """See `NeuralModel.offers_new`; without a repeat head hardly anything is bought again."""
        return not config.repeats

    def first_weights(
        self,
        shape: TransformerShape,
        *,
        seed: int,
        item_counts: NDArray[np.integer],
        longest: int,
    ) -> Weights:
        """See `nextbuy.nn.transformer.initial_weights`."""
        return initial_weights(shape, seed=seed, item_counts=item_counts)

    @classmethod
    def weight_shapes(cls, shape: TransformerShape) -> dict[str, tuple[int, ...]]:
        """See `nextbuy.nn.transformer.weight_shapes`."""
        return weight_shapes(shape)


def repeated_share(histories: Histories) -> float:
    """Share of purchases whose item the user had bought before."""
    if histories.num_purchases == 0:
        return 0.0
    width = int(histories.items.max()) + 1
    pairs = np.unique(histories.owners * width + histories.items)
    return 1.0 - len(pairs) / histories.num_purchases
