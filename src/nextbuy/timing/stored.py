"""How a timing model lies in a folder: one JSON file, checked when it is read."""

from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from nextbuy import storage
from nextbuy.errors import BundleError, DamagedError, NotFittedError

FILE: Final = "timing.json"
M = TypeVar("M", bound=BaseModel)
C = TypeVar("C", bound=BaseModel)


class Stored(BaseModel):
    """Base of what is stored: frozen, finite numbers, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def save(folder: Path, name: str, **parts: BaseModel | None) -> None:
    """Write the parts of the model `name` to `timing.json` of an existing folder."""
    stored = {key: part and part.model_dump(mode="json") for key, part in parts.items()}
    storage.write_json(folder / FILE, {"model": name} | stored)


def found(parameters: M | None, name: str) -> M:
    """The parameters of the model `name`.

    Raises:
        NotFittedError: If there are none.
    """
    if parameters is None:
        raise NotFittedError(f"{name} was asked before it was fitted. Call fit or load.")
    return parameters


def load(folder: Path, name: str, **classes: type[M]) -> dict[str, M]:
    """Read the parts of the model `name` that `save` wrote.

    Raises:
        BundleError: If the file is another model's, or a part does not fit its class.
    """
    path = folder / FILE
    try:
        stored: Any = storage.read_json(path)  # whatever the file says
    except DamagedError as error:
        raise BundleError(str(error)) from error
    expected = {"model", *classes}
    if not isinstance(stored, dict) or set(stored) != expected:
        found = sorted(stored) if isinstance(stored, dict) else type(stored).__name__
        raise BundleError(f"{path} holds {found}; expected {sorted(expected)}.")
    if stored["model"] != name:
        raise BundleError(f"{path} holds the model {stored['model']!r}, not {name!r}.")
    try:
        return {key: wanted.model_validate(stored[key]) for key, wanted in classes.items()}
    except ValidationError as error:
        raise BundleError(f"{path} is no {name}: {error}") from error


def load_fitted(folder: Path, name: str, config: type[C], parameters: type[M]) -> tuple[C, M]:
    """Config and parameters of the model `name`; see `load`."""
    parts = load(folder, name, config=config, parameters=parameters)
    return cast("C", parts["config"]), cast("M", parts["parameters"])
