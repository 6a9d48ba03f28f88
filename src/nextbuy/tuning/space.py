"""From the space that a config declares to trials: the default first, then what the sampler says"""

from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError
from nextbuy.models.neural import NeuralModel
from nextbuy.models.registry import create, search_space
from nextbuy.models.search_space import Range, SearchSpace, value_at


def declared_space(name: str) -> SearchSpace:
    """What the config of a model declares.

    Raises:
        ConfigError: If there is no such model, or nothing of it is left to look for.
    """
    space = search_space(name)
    if not space:
        raise ConfigError(
            f"There is nothing to tune in {name}: whatever its config leaves open is chosen on "
            "validation in every fit."
        )
    return space


def default_values(name: str, space: SearchSpace, train: Histories, catalog: Catalog) -> Any:
    """The values of the default config by their paths, with what it leaves to the data decided."""
    model: Any = create(name)
    config = model.config
    if isinstance(model, NeuralModel):
        config = model.decided(config, train, catalog)
        training = config.training.decided(len(catalog))
        config = config.model_copy(update={"training": training})
    return {path: value_at(config, path) for path in space}


def distributions(space: SearchSpace, default: dict[str, Any]) -> dict[str, BaseDistribution]:
    """The space as Optuna takes it, wide enough for the default."""
    found: dict[str, BaseDistribution] = {}
    for path, declared in space.items():
        part = declared.including(default[path])
        if not isinstance(part, Range):
            found[path] = CategoricalDistribution(part.values)
        elif part.is_whole:
            found[path] = IntDistribution(int(part.low), int(part.high), log=part.log)
        else:
            found[path] = FloatDistribution(part.low, part.high, log=part.log)
    return found


def suggested(trial: optuna.Trial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
    """The values of a trial by their paths."""
    return {path: _suggest(trial, path, part) for path, part in space.items()}


def _suggest(trial: optuna.Trial, path: str, part: BaseDistribution) -> Any:
    if isinstance(part, CategoricalDistribution):
        return trial.suggest_categorical(path, part.choices)
    if isinstance(part, IntDistribution):
        return trial.suggest_int(path, part.low, part.high, log=part.log)
    if isinstance(part, FloatDistribution):
        return trial.suggest_float(path, part.low, part.high, log=part.log)
    raise TypeError(f"{path} has a {type(part).__name__}")
