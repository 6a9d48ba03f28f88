"""`--config FILE`: a predictor's config as TOML. Flags that are given go before what it says."""

import tomllib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import typer

from nextbuy.errors import ConfigError

_OF_NETWORKS = frozenset({"engine", "device", "learning_rate", "tokens", "dropout"})


def given_flags(context: typer.Context) -> set[str]:
    """Names of the parameters that were typed, not left to their defaults."""
    return {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name != "DEFAULT"
    }


def with_file(path: Path | None, flags: Mapping[str, Any], given: Set[str]) -> Mapping[str, Any]:
    """Values for `PredictorConfig.of`: those of a file, under the flags that were given.

    Args:
        path: Of the file; None gives the flags as they are.
        flags: All values that the flags have, also by default; `options` by model.
        given: Names of the flags that were typed.

    Raises:
        ConfigError: If the file cannot be read, is no TOML, or names a model or an option of a
            model that is not there.
    """
    if path is None:
        return flags
    values = _read(path)
    if "preset" in given and "models" not in given:
        values.pop("models", None)
    options = values.get("options", {})
    told = {name: value for name, value in flags.items() if name != "options" and name in given}
    if given & _OF_NETWORKS:
        told["options"] = _merged(options, flags["options"])
    return {**values, **told}


def _read(path: Path) -> dict[str, Any]:
    from nextbuy.models.registry import create

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--config {path} is no TOML: {error}.") from error
    options = values.get("options", {})
    if not isinstance(options, dict):
        raise ConfigError(f"--config {path}: options is a table of models, not {options!r}.")
    for model, fields in options.items():
        if not isinstance(fields, dict):
            raise ConfigError(f"--config {path}: options.{model} is a table, not {fields!r}.")
        create(model, **fields)  # also of models that are not chosen: a misspelt name does nothing
    return values


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of values; where both have one, that of `above`."""
    found = dict(below)
    for name, value in above.items():
        old = found.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            found[name] = _merged(old, value)
        else:
            found[name] = value
    return found
