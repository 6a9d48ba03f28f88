"""How small models lie in a bundle: a config and some arrays, checked when they are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from nextbuy import storage
from nextbuy.errors import BundleError

C = TypeVar("C", bound=BaseModel)


def save_model(folder: Path, config: BaseModel, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write `config.json` and `weights.safetensors` into an existing folder."""
    storage.write_json(folder / "config.json", config.model_dump(mode="json"))
    storage.write_arrays(folder / "weights.safetensors", weights)


def load_model(
    folder: Path, config_class: type[C], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[C, dict[str, NDArray[np.float32]]]:
    """Read what `save_model` wrote.

    Raises:
        BundleError: If the config has unknown keys or the arrays are not of these names and
            shapes, finite and float32.
    """
    stored = storage.read_json(folder / "config.json")
    try:
        config = config_class.model_validate(stored)
    except ValidationError as error:
        raise BundleError(
            f"{folder / 'config.json'} is no {config_class.__name__}: {error}"
        ) from error
    return config, load_weights(folder, shapes)


def load_weights(
    folder: Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.float32]]:
    """The arrays of `weights.safetensors`, which must be of these names and shapes.

    Raises:
        BundleError: If they are not, or a value is not a finite float32.
    """
    weights = storage.read_arrays(folder / "weights.safetensors")
    found = {name: array.shape for name, array in weights.items()}
    if found != dict(shapes):
        raise BundleError(f"{folder} has weights of shapes {found}; expected {dict(shapes)}.")
    for name, array in weights.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise BundleError(
                f"{name} in {folder} is {array.dtype} or not finite; expected finite float32."
            )
    return weights
