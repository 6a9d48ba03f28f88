"""A bundle: a predictor on disk, as JSON, Parquet and safetensors with a SHA-256 manifest.

A directory holds `versions/000001/`, `versions/000002/`, ... and `versions/LATEST`. Each version
appears whole and never changes; `LATEST` is replaced in one step. A rename alone could not do that:
it cannot replace a folder that is not empty, and a reader would see a mix.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from nextbuy import storage
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.errors import BundleError, ConfigError, DamagedError
from nextbuy.models import registry
from nextbuy.models.protocol import Model
from nextbuy.timing.forecaster import Forecaster
from nextbuy.timing.item_cadence import ItemCadence

FORMAT: Final = 1
_ARRAYS: Final = {
    "items": np.int32, "times": np.int64, "baskets": np.int32, "offsets": np.int64,
    "prices": np.float32, "quantities": np.float32,
}  # fmt: skip
_TEXT: Final = (pa.string(), pa.large_string(), pa.string_view())
_RUN: Final = "run.json"
_TIMING: Final = "timing"
_CADENCE: Final = "cadence"
_KEYS: Final = {"format", "facts", "models", "time_kind"}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Bundle:
    """What is stored.

    Attributes:
        catalog: What all item indices refer to.
        histories: Of the known users, so that they can be asked for by id.
        models: By the name under which they are shown; `kinds` tells the registry's name.
        facts: Configs, protocol, scores, fingerprint, versions: JSON. The same data, config and
            machine give the same facts.
        run: What differs from run to run: the moment, the name of the file, seconds; JSON.
        forecaster: When customers buy; None where there is nothing to tell it from, and in bundles
            that are older.
        cadence: When items are due again; None as for the forecaster.
    """

    catalog: Catalog
    histories: Histories
    models: Mapping[str, Model]
    facts: Mapping[str, Any]
    run: Mapping[str, Any] = field(default_factory=dict)
    forecaster: Forecaster | None = None
    cadence: ItemCadence | None = None


def save_bundle(directory: Path, bundle: Bundle, *, latest: bool = True) -> Path:
    """Publish a new version in a directory, and make it the latest unless told not to.

    Raises:
        StorageError: If the disk refuses or another writer was first; nothing that was there is
            changed.
    """
    versions = directory / "versions"
    taken = [int(p.name) for p in versions.glob("[0-9]*") if p.name.isdigit()]
    name = f"{max(taken, default=0) + 1:06d}"

    def write(folder: Path) -> None:
        bundle.catalog.save(folder / "catalog.parquet")
        _write_histories(folder, bundle.histories)
        for shown, model in bundle.models.items():
            (folder / "models" / storage.check_name(shown)).mkdir(parents=True)
            model.save(folder / "models" / shown)
        if bundle.forecaster is not None:
            (folder / _TIMING).mkdir()
            bundle.forecaster.save(folder / _TIMING)
        if bundle.cadence is not None:
            (folder / _CADENCE).mkdir()
            bundle.cadence.save(folder / _CADENCE)
        facts = {
            "format": FORMAT,
            "facts": _as_json(bundle.facts),
            "models": {shown: model.name for shown, model in bundle.models.items()},
            "time_kind": bundle.histories.time_kind,
        }
        storage.write_json(folder / "nextbuy.json", facts)
        storage.write_json(folder / _RUN, _as_json(bundle.run))

    published = storage.publish(versions, name, write, facts={"nextbuy_format": FORMAT})
    if latest:
        storage.point_latest(versions, name)
    return published


def content_hash(folder: Path) -> str:
    """SHA-256 over the names and hashes of a version's files, what differs from run to run aside.

    Two fits on the same data, in whatever order its rows are, have the same.

    Raises:
        DamagedError: If the version is not whole.
    """
    files = storage.verify(folder)["files"]
    lines = [f"{name} {entry['sha256']}\n" for name, entry in sorted(files.items()) if name != _RUN]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_bundle(path: Path) -> Bundle:
    """Load the latest version of a directory, or the version that `path` is.

    Everything is verified against the manifest first and read into memory; nothing of the bundle is
    executed or stays mapped.

    Raises:
        BundleError: If there is no bundle, it is damaged, or of another format.
    """
    folder = version_folder(path)
    try:
        manifest = storage.verify(folder)
        stored = storage.read_json(folder / "nextbuy.json")
        _check_facts(stored, folder)
        if manifest["facts"] != {"nextbuy_format": FORMAT}:
            raise BundleError(f"{folder / storage.MANIFEST} has the facts {manifest['facts']}.")
        run = storage.read_json(folder / _RUN) if (folder / _RUN).exists() else {}
        if not isinstance(run, dict):
            raise BundleError(f"{folder / _RUN} is no object.")
        catalog = Catalog.load(folder / "catalog.parquet")
        histories = _read_histories(folder, stored["time_kind"], len(catalog))
        models = {
            storage.check_name(shown): registry.load(kind, folder / "models" / shown, catalog)
            for shown, kind in stored["models"].items()
        }
        timing = folder / _TIMING
        forecaster = None
        if timing.exists():
            forecaster = Forecaster.load(timing, histories, len(catalog))
        clocks = folder / _CADENCE
        cadence = ItemCadence.load(clocks, len(catalog)) if clocks.exists() else None
    except BundleError:
        raise
    except (DamagedError, ConfigError) as error:
        raise BundleError(f"The bundle cannot be loaded. {error}") from error
    return Bundle(
        catalog=catalog, histories=histories, models=models, facts=stored["facts"], run=run,
        forecaster=forecaster, cadence=cadence,
    )  # fmt: skip


def version_folder(path: Path) -> Path:
    """The folder of the latest version in a directory, or the version that `path` is.

    Raises:
        BundleError: If there is none.
    """
    if (path / "nextbuy.json").exists():
        return path
    try:
        name = storage.latest(path / "versions")
    except DamagedError as error:
        raise BundleError(f"{path} names no version: {error}") from error
    if name is None:
        raise BundleError(
            f"There is no bundle in {path}: no versions/{storage.LATEST}. "
            f"Make one with: nextbuy train DATA --out {path}"
        )
    return path / "versions" / name


def _check_facts(stored: Any, folder: Path) -> None:
    place = folder / "nextbuy.json"
    if not isinstance(stored, dict) or "format" not in stored:
        raise BundleError(f"{place} has no format.")
    if stored["format"] != FORMAT:
        raise BundleError(
            f"{place} has format {stored['format']!r}, this version reads format {FORMAT}. "
            "Use the nextbuy that wrote it, or train again."
        )
    if set(stored) != _KEYS:
        raise BundleError(f"{place} has the keys {sorted(stored)}; expected {sorted(_KEYS)}.")
    if not (
        isinstance(stored["facts"], dict)
        and isinstance(stored["models"], dict)
        and all(isinstance(kind, str) for kind in stored["models"].values())
        and stored["time_kind"] in ("dates", "order")
    ):
        raise BundleError(f"{place} holds values of the wrong kind.")


def _write_histories(folder: Path, histories: Histories) -> None:
    arrays = {name: getattr(histories, name) for name in _ARRAYS}
    storage.write_arrays(
        folder / "histories.safetensors", {n: a for n, a in arrays.items() if a is not None}
    )
    users = histories.user_ids.alias("user_id").to_frame().to_arrow()
    pq.write_table(users, folder / "users.parquet", write_page_checksum=True)


def _read_histories(folder: Path, time_kind: Any, num_items: int) -> Histories:
    arrays = storage.read_arrays(folder / "histories.safetensors")
    user_ids = _read_users(folder / "users.parquet")
    wrong = [n for n, a in arrays.items() if a.ndim != 1 or a.dtype != _ARRAYS.get(n)]
    try:
        histories = Histories(user_ids=user_ids, time_kind=time_kind, **arrays)
    except TypeError as error:
        raise BundleError(f"{folder} has histories of arrays {sorted(arrays)}.") from error
    if wrong:
        found = {name: (str(arrays[name].dtype), arrays[name].shape) for name in wrong}
        raise BundleError(f"The histories in {folder} have arrays of the wrong kind: {found}.")
    items, offsets = histories.items, histories.offsets
    sizes = {len(array) for name, array in arrays.items() if name != "offsets"}
    fits = len(offsets) == len(user_ids) + 1 and sizes == {int(offsets[-1])} and offsets[0] == 0
    if not fits or (np.diff(offsets) < 0).any():
        raise BundleError(f"The histories in {folder} do not fit together.")
    if len(items) and (items.min() < 1 or items.max() > num_items):
        raise BundleError(
            f"The histories in {folder} name items {items.min()} to {items.max()}, "
            f"the catalog has {num_items}."
        )
    return histories


def _read_users(path: Path) -> pl.Series:
    try:  # by Arrow, which refuses damaged files where Polars panics
        table = pq.read_table(path, page_checksum_verification=True)
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BundleError(f"{path} is no readable Parquet file: {error}") from error
    users = table.column(0) if table.column_names == ["user_id"] else None
    if users is None or users.null_count or users.type not in _TEXT:
        raise BundleError(f"{path} has {table.schema}; expected user_id as text, no nulls.")
    return pl.Series("user_id", users)


def _as_json(value: Any) -> Any:
    """JSON has no NaN, so a score that does not exist is null; nor has it bytes that are no text,
    as a file may have in its name: they are written as `\\udce9`.
    """
    if isinstance(value, Mapping):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return None if isinstance(value, float) and not np.isfinite(value) else value
