"""What all networks share as models: fitting, scoring, saving and loading.

Legend: B rows of a batch, L positions, M states that are asked, U users, V items, P pairs of a user
and an own item.
"""

import logging
import math
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from nextbuy import storage
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import DAY, UNKNOWN, Float32, Histories, Int32, Int64
from nextbuy.errors import BundleError, NotFittedError
from nextbuy.models.first_weights import carried, item_start, with_items
from nextbuy.models.items import item_codes, item_groups
from nextbuy.models.neural_config import NeuralConfig, identity
from nextbuy.models.neural_ranks import ranked
from nextbuy.models.neural_scoring import score_histories
from nextbuy.models.neural_top_k import Searcher, best_items
from nextbuy.models.neural_validation import FEWEST_CASES, lowest_loss, ndcg_of_new
from nextbuy.models.protocol import FitOptions, Ranked
from nextbuy.models.stored import load_weights
from nextbuy.nn.network import FrozenNetwork, Network, Weights
from nextbuy.nn.own_items import purchase_facts
from nextbuy.splitting.cases import Cases
from nextbuy.splitting.repeat import Blocked
from nextbuy.training.batches import has_baskets
from nextbuy.training.checkpoint import run_lock
from nextbuy.training.engine import Shape, TrainingConfig, create_engine
from nextbuy.training.loop import TrainingResult, no_training, train
from nextbuy.training.order import order_test
from nextbuy.training.torch_engine import (
    decided_precision,
    nearest_device,
    network_of,
    torch_device,
)

logger = logging.getLogger(__name__)

_COPIES: Final = 8
"""Of the weights while training: two networks, gradients, two moments, the best, a checkpoint."""

_MOST_CELLS: Final = 5 * 10**7
"""Validation after an epoch asks about so many cells of cases times items, but some cases."""

C = TypeVar("C", bound=NeuralConfig)
S = TypeVar("S", bound=Shape)


class NeuralModel(ABC, Generic[C, S]):
    """Trains on every purchase of every history; predicts from the newest purchases.

    Inherit, and say which config and shape it has, how the one follows from the other and the data,
    and where the weights start.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[NeuralConfig]]
    shape_class: ClassVar[type[BaseModel]]
    knows_moments: ClassVar[bool] = False
    """Whether the answer depends on when it is asked."""
    temperatures: ClassVar[tuple[float, ...]] = (1.0,)
    """What validation chooses from, in each epoch."""

    def __init__(self, config: C | None = None) -> None:
        self.config: C = config or self.config_class()  # type: ignore[assignment]
        self._asked = self.config  # what the first fit decided must not bind the second
        self.result: TrainingResult | None = None
        self._network: Network | None = None
        self._frozen: FrozenNetwork | None = None
        self._shape: S | None = None
        self._groups: Int64 | None = None

    @abstractmethod
    def decided(self, config: C, train: Histories, catalog: Catalog) -> C:
        """The config, with what it leaves to the data decided."""

    @abstractmethod
    def shape_of(self, config: C, train: Histories, catalog: Catalog) -> S:
        """Sizes of the network for these data."""

    @abstractmethod
    def first_weights(
        self, shape: S, *, seed: int, item_counts: NDArray[np.integer], longest: int
    ) -> Weights:
        """Weights before training, from the seed and the counts of items 1..V."""

    def offers_new(self, config: C) -> bool:
        """Whether lists of items that are new to the user are what matters."""
        return False

    @classmethod
    @abstractmethod
    def weight_shapes(cls, shape: S) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights."""

    def fit(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Self:
        """Train; keep the weights of the epoch with the best validation loss. See `Model.fit`."""
        config = self.config = self._chosen(train, validation, catalog, options)
        training = config.training
        shape = self.shape_of(config, train, catalog)
        numbers = sum(math.prod(size) for size in self.weight_shapes(shape).values())
        options.check_memory(_COPIES * 4 * numbers)
        codes, team, start = item_codes(catalog), options.team, options.start
        network, weights = _network_and_weights(self, shape, train, catalog, options)
        engine = create_engine(
            config.engine, shape, training, weights=weights,
            item_counts=train.item_counts(len(catalog)), seed=options.seed, device=config.device,
            codes=codes, team=team,
        )  # fmt: skip
        network = network.to(torch_device(config.device))  # which the engine has not refused
        training = _as_trained(config, shape, network.device)
        config = self.config = config.model_copy(update={"training": training})
        options.progress.advance(1, {})
        can_validate = bool((validation.target_items != UNKNOWN).any())
        asked = validation.thinned(max(FEWEST_CASES, _MOST_CELLS // len(catalog)))
        self._groups = item_groups(catalog)

        def validate(weights: Weights) -> float:
            network.load_weights(weights)
            return self._validated(network, asked, len(catalog))[0]

        def judge(weights: Weights) -> float:
            network.load_weights(weights)
            longest, scorer = training.longest_window, FrozenNetwork(network)
            return -ndcg_of_new(scorer, asked, longest=longest, groups=self._groups)

        learnt = train if start is None else start.to_learn(train)
        taught = training if start is None else start.gentler(training)

        def run(folder: Path | None) -> TrainingResult:
            if len(learnt) == 0 and start is not None:
                return no_training(weights)
            return _train(
                engine, learnt, validate if can_validate else None, taught,
                seed=options.seed, run_folder=folder,
                identity=None if folder is None and team is None
                else identity(config, shape, train, codes, options.seed,
                              start=None if start is None else start.digest()),
                progress=options.progress, deadline=options.deadline,
                facts=purchase_facts(learnt, self._groups) if network.has_repeats else None,
                team=team, judge=judge if can_validate and config.chosen_by == "ndcg" else None,
            )  # fmt: skip

        folder = options.run_folder
        with nullcontext() if folder is None else run_lock(folder):
            self.result = run(folder)
        network.load_weights(self.result.weights)
        self.result = replace(self.result, weights={})  # the network has them
        if can_validate and config.temperature is None and (team is None or team.rank == 0):
            _, chosen = self._validated(network, asked, len(catalog))
            self.config = config.model_copy(update={"temperature": chosen})
        self._network, self._shape = network, shape
        return self

    def _chosen(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> C:
        """The config with nothing left open."""
        config = self.decided(self._asked, train, catalog)
        training = config.training.decided(len(catalog))
        if options.epochs is not None:
            training = training.model_copy(update={"epochs": options.epochs})
        training = _with_shuffle(training, train, validation, len(catalog), options.seed)
        if self.knows_moments:
            training = _with_period(training, validation)
        start = item_start(config, train, len(catalog))
        decided: dict[str, object] = {"training": training, "item_start": start}
        if config.chosen_by == "auto":
            by_list = self.offers_new(config) and len(validation) >= FEWEST_CASES
            decided["chosen_by"] = "ndcg" if by_list else "loss"
        return config.model_copy(update=decided)

    def _validated(self, network: Network, cases: Cases, num_items: int) -> tuple[float, float]:
        """The lowest loss on validation cases, and the temperature that it has."""
        told = self.config.temperature
        return lowest_loss(
            FrozenNetwork(network), cases,
            temperatures=self.temperatures if told is None else (told,),
            longest=self.config.training.longest_window, num_items=num_items,
            groups=self._groups,
        )  # fmt: skip

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """Log P(next item) after each history; see `Model.log_probabilities`."""
        shape = self._fitted()[1]
        return score_histories(
            self._scorer(), histories, as_of,
            longest=self.config.training.longest_window, num_items=shape.num_items,
            temperature=self.config.temperature or 1.0, groups=self._groups,
        )  # fmt: skip

    def top_k(
        self, histories: Histories, as_of: Int64 | None, k: int, *, blocked: Blocked
    ) -> tuple[Int32, Float32]:
        """The best items of each user; see `FindsTopK.top_k`."""
        return best_items(
            self._scorer(),
            histories,
            as_of,
            k,
            longest=self.config.training.longest_window,
            temperature=self.config.temperature or 1.0,
            groups=self._groups,
            blocked=blocked,
        )

    def rank(
        self,
        histories: Histories,
        as_of: Int64 | None,
        k: int,
        *,
        blocked: Blocked,
        owners: Int64,
        targets: Int32,
    ) -> Ranked:
        """The best items of each user, and ranks of others; see `RanksTargets.rank`."""
        return ranked(
            self._scorer(), histories, as_of, k,
            longest=self.config.training.longest_window,
            temperature=self.config.temperature or 1.0, groups=self._groups,
            blocked=blocked, owners=owners, targets=targets,
        )  # fmt: skip

    def searcher(self) -> Searcher:
        """The same in two steps; see `SearchesApart`."""
        return Searcher(
            self._scorer(),
            longest=self.config.training.longest_window,
            temperature=self.config.temperature or 1.0,
            groups=self._groups,
        )

    @property
    def network(self) -> Network:
        """The network with its weights; raises `NotFittedError` before there are any."""
        return self._fitted()[0]

    @property
    def groups(self) -> Int64:
        """Group of each item 0..V, see `item_groups`; raises `NotFittedError` before a fit."""
        shape = self._fitted()[1]
        return np.zeros(shape.num_items + 1, np.int64) if self._groups is None else self._groups

    def weights(self) -> Weights:
        """The weights, by name."""
        return self._fitted()[0].weights()

    def save(self, folder: Path) -> None:
        """Write `config.json` and `weights.safetensors`."""
        network, shape = self._fitted()
        config = {
            "config": self.config.model_dump(mode="json"),
            "shape": shape.model_dump(mode="json"),
        }
        storage.write_json(folder / "config.json", config)
        storage.write_arrays(folder / "weights.safetensors", network.weights())

    @classmethod
    def load(cls, folder: Path, catalog: Catalog) -> Self:
        """Read what `save` wrote; see `Model.load`."""
        stored = storage.read_json(folder / "config.json")
        if not isinstance(stored, dict) or set(stored) != {"config", "shape"}:
            found = sorted(stored) if isinstance(stored, dict) else type(stored).__name__
            raise BundleError(f"{folder / 'config.json'} has {found}; expected config and shape.")
        try:
            model = cls(cls.config_class.model_validate(stored["config"]))  # type: ignore[arg-type]
            shape: Any = cls.shape_class.model_validate(stored["shape"])
        except (KeyError, TypeError, ValidationError) as error:
            raise BundleError(
                f"{folder / 'config.json'} is no {cls.name} config: {error}"
            ) from error
        if shape.num_items != len(catalog):
            raise BundleError(
                f"{folder} has weights for {shape.num_items} items, the catalog has {len(catalog)}."
            )
        network = network_of(shape, item_codes(catalog)).to(_device_for(model.config, cls.name))
        network.load_weights(load_weights(folder, cls.weight_shapes(shape)))
        model._network, model._shape = network, shape
        model._groups = item_groups(catalog)
        return model

    def _fitted(self) -> tuple[Network, S]:
        if self._network is None or self._shape is None:
            raise NotFittedError(f"{self.name} has no weights yet: call fit or load first.")
        return self._network, self._shape

    def _scorer(self) -> FrozenNetwork:
        """The network, with what every question needs of it made once."""
        network = self._fitted()[0]
        if self._frozen is None or self._frozen.network is not network:
            self._frozen = FrozenNetwork(network)
        return self._frozen


def _network_and_weights(
    model: NeuralModel[C, S], shape: S, train: Histories, catalog: Catalog, options: FitOptions
) -> tuple[Network, Weights]:
    """The network, and the weights that training starts from."""
    options.progress.start("prepare", 1)  # TensorFlow takes seconds to come up afterwards
    config, counts = model.config, train.item_counts(len(catalog))
    longest = min(config.training.longest_window, int(train.lengths.max(initial=1)))
    drawn = model.first_weights(shape, seed=options.seed, item_counts=counts, longest=longest)
    network = network_of(shape, item_codes(catalog))
    if options.start is not None:
        return network, carried(drawn, options.start, catalog, network.item_tables())
    return network, with_items(drawn, config, train, options)


def _as_trained(config: NeuralConfig, shape: Shape, device: torch.device) -> TrainingConfig:
    """The config with what size and device decide, as the engine decides it too."""
    training = config.training
    precision = decided_precision(training, shape, device)
    sparse = config.engine == "torch" and training.has_sparse_rows(shape.num_items)
    return training.model_copy(update={"precision": precision, "sparse_rows": sparse})


def _device_for(config: NeuralConfig, name: str) -> torch.device:
    """Where a stored model answers: where it was trained if that is here, and says so if not."""
    device = nearest_device(config.device)
    if config.device not in {str(device), device.type}:
        logger.warning(
            "%s was trained on %s, which is not here; it answers on %s.",
            name, config.device, device,
        )  # fmt: skip
    return device


_train = train  # `train` is also the name of the training histories in `fit`


def _with_shuffle(
    training: TrainingConfig, train: Histories, validation: Cases, num_items: int, seed: int
) -> TrainingConfig:
    """The config with `shuffle="auto"` decided."""
    if training.shuffle != "auto":
        return training
    shuffle = "baskets"
    if not has_baskets(train):
        test = order_test(train, validation, num_items=num_items, seed=seed)
        shuffle = "baskets" if test.order_matters else "histories"
        logger.info(
            "Order is worth %.4f nats a case (standard error %.4f, %d cases): shuffling %s.",
            test.gain, test.standard_error, test.num_cases, shuffle,
        )  # fmt: skip
    return training.model_copy(update={"shuffle": shuffle})


def _with_period(training: TrainingConfig, validation: Cases) -> TrainingConfig:
    """The config with a period as long as that of validation, unless it has one."""
    asked, until = validation.as_of, validation.until
    if training.period_days is not None or training.loss != "softmax":
        return training
    if asked is None or until is None or len(asked) == 0:
        return training
    days = float((until - asked.min()) / DAY)
    return training.model_copy(update={"period_days": days if days > 0 else None})
