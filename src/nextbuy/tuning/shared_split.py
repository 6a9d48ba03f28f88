"""What of a split workers need, in files: what models learn from and are judged on, not the test.

A folder holds `catalog.parquet`, `train/` and `validation/` (see `Histories.save`), and
`cases.safetensors` with the arrays of the cases. Workers map the histories, so that they are in
memory once.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np

from nextbuy import storage
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.splitting.cases import Cases, Split

_ARRAYS: Final = ("as_of", "target_items", "target_offsets", "target_values", "target_times")


def save_split(split: Split, folder: Path) -> None:
    """Write it; what was there before is overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    split.catalog.save(folder / "catalog.parquet")
    split.train.save(folder / "train")
    cases = split.validation
    cases.histories.save(folder / "validation")
    arrays = {name: getattr(cases, name) for name in _ARRAYS}
    arrays["until"] = None if cases.until is None else np.array([cases.until], np.int64)
    present = {name: array for name, array in arrays.items() if array is not None}
    storage.write_arrays(folder / "cases.safetensors", present)
    words = {"name": split.name, "description": split.description}
    storage.write_json(folder / "split.json", words)


def load_split(folder: Path) -> Split:
    """Read what `save_split` wrote; it has no test case."""
    arrays: dict[str, Any] = dict(storage.read_arrays(folder / "cases.safetensors"))
    until = arrays.get("until")
    validation = Cases(
        histories=Histories.load(folder / "validation"),
        until=None if until is None else int(until[0]),
        as_of=arrays.get("as_of"),
        target_items=arrays["target_items"],
        target_offsets=arrays["target_offsets"],
        target_values=arrays.get("target_values"),
        target_times=arrays.get("target_times"),
    )
    words = storage.read_json(folder / "split.json")
    return Split(
        name=words["name"],
        description=words["description"],
        catalog=Catalog.load(folder / "catalog.parquet"),
        train=Histories.load(folder / "train"),
        validation=validation,
        test=validation.take(np.array([], dtype=np.int64)),
    )
