"""Models by name. A model's module is imported when it is asked for, so counting needs no torch."""

import difflib
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError

from nextbuy.data.catalog import Catalog
from nextbuy.errors import ConfigError
from nextbuy.models.protocol import Model
from nextbuy.models.search_space import SearchSpace

MODELS: Final = {
    "popularity": ("nextbuy.models.popularity", "Popularity"),
    "personal-frequency": ("nextbuy.models.personal_frequency", "PersonalFrequency"),
    "recency-popularity": ("nextbuy.models.recency_popularity", "RecencyPopularity"),
    "markov": ("nextbuy.models.markov", "Markov"),
    "item-knn": ("nextbuy.models.item_knn", "ItemKnn"),
    "ease": ("nextbuy.models.ease", "Ease"),
    "tifu-knn": ("nextbuy.models.tifu_knn", "TifuKnn"),
    "up-cf": ("nextbuy.models.up_cf", "UpCf"),
    "lstm-rnn": ("nextbuy.models.lstm_rnn", "LstmRnn"),
    "gru": ("nextbuy.models.gru", "Gru"),
    "transformer": ("nextbuy.models.transformer", "Transformer"),
}
"""Module and class of each model; the config class is called like the class plus `Config`."""


def create(name: str, **config: Any) -> Model:
    """A model that is not fitted yet.

    Args:
        name: One of `MODELS`.
        config: Fields of the model's config.

    Raises:
        ConfigError: If there is no such model, or its config has no such field or value.
    """
    module, class_name = _find(name)
    try:
        settings = getattr(module, f"{class_name}Config")(**config)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"The config of {name} is wrong at {place!r}: {first['msg']} (got {first['input']!r})."
        ) from error
    return cast("Model", getattr(module, class_name)(settings))


def load(name: str, folder: Path, catalog: Catalog) -> Model:
    """A fitted model from its folder in a bundle.

    Raises:
        ConfigError: If there is no model of this name.
        BundleError: If the folder is not what `save` wrote.
    """
    module, class_name = _find(name)
    return cast("Model", getattr(module, class_name).load(folder, catalog))


def search_space(name: str) -> SearchSpace:
    """What of a model's config is worth looking for; empty where validation chooses all of it.

    Raises:
        ConfigError: If there is no model of this name.
    """
    module, class_name = _find(name)
    config = getattr(module, f"{class_name}Config")
    return cast("SearchSpace", getattr(config, "search_space", {}))


def _find(name: str) -> tuple[Any, str]:
    if name not in MODELS:
        near = difflib.get_close_matches(name.lower(), MODELS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"No model is called {name!r}.{hint} There is {', '.join(MODELS)}.")
    module, class_name = MODELS[name]
    return import_module(module), class_name
