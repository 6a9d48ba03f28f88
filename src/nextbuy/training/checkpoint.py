"""Checkpoints: the whole state of a run, published so that a kill at any moment loses nothing.

A run folder holds `lock`, `log.jsonl` and `checkpoints/step-000000123/`, each with its manifest.
Two are kept: should the newest turn out damaged, the one before it takes over.
"""

import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from filelock import FileLock, Timeout
from safetensors.numpy import load, save

from nextbuy import storage
from nextbuy.errors import DamagedError, ResumeError, RunLockedError, TrainingError
from nextbuy.nn.network import Weights
from nextbuy.training.engine import Arrays
from nextbuy.training.schedule import EarlyStopping

logger = logging.getLogger(__name__)

FORMAT = 1
KEPT = 2

_ARRAYS: Final = ("weights", "optimizer", "best_weights")
"""The parts of a state that are arrays by name."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingState:
    """Everything the rest of a run depends on.

    All randomness is drawn from streams that are named by seed, epoch and step, so `epoch` and
    `batch` are the state of every generator.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    num_targets: int = 0
    stopping: EarlyStopping
    finished: bool = False
    log_offset: int = 0
    weights: Weights = field(default_factory=dict)
    optimizer: Arrays = field(default_factory=dict)
    best_weights: Weights = field(default_factory=dict)


class Checkpoints:
    """Saves and finds the states of one run.

    Args:
        folder: The run folder.
        identity: What makes this run this run (configs, seed, data, engine, versions). A checkpoint
            of another identity is refused with the difference.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder / "checkpoints"
        self._identity = json.loads(json.dumps(identity))

    def save(self, state: TrainingState) -> None:
        """Publish a state; then drop all but the newest two.

        Raises:
            StorageError: If the disk is full or broken; older checkpoints are untouched.
        """
        for arrays in (state.weights, state.optimizer):
            _refuse_non_finite(arrays, state.step)
        name = f"step-{state.step:09d}-{state.epoch:04d}" + ("-end" if state.finished else "")
        if (self._folder / name).exists():
            return
        facts = {"format": FORMAT, "identity": self._identity, **_facts(state)}

        def write(folder: Path) -> None:
            storage.write_json(folder / "state.json", facts)
            storage.write_arrays(folder / "weights.safetensors", state.weights)
            storage.write_arrays(folder / "optimizer.safetensors", state.optimizer)
            storage.write_arrays(folder / "best.safetensors", state.best_weights)

        storage.publish(self._folder, name, write)
        for old in self._names()[:-KEPT]:
            shutil.rmtree(self._folder / old, ignore_errors=True)

    def newest(self, patience: int) -> TrainingState | None:
        """The newest whole checkpoint; None if there is none at all.

        Raises:
            ResumeError: If it belongs to another command, or code of another format wrote it.
            DamagedError: If there are checkpoints but not one is whole.
        """
        storage.remove_leftovers(self._folder)
        names = self._names()
        for name in reversed(names):
            try:
                storage.verify(self._folder / name)
                return self._read(self._folder / name, patience)
            except DamagedError as error:
                logger.warning("Checkpoint %s is damaged and passed over: %s", name, error)
        if names:
            raise DamagedError(
                f"All {len(names)} checkpoints in {self._folder} are damaged. Nothing was changed. "
                "Delete the folder to train from the start, or give another --out."
            )
        return None

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted(p.name for p in self._folder.iterdir() if p.name.startswith("step-"))

    def _read(self, folder: Path, patience: int) -> TrainingState:
        facts = storage.read_json(folder / "state.json")
        if facts["format"] != FORMAT:
            raise ResumeError(
                f"{folder} has checkpoint format {facts['format']}, this version reads {FORMAT}. "
                "Finish the run with the version that began it, or give another --out."
            )
        _refuse_other_run(facts["identity"], self._identity, folder)
        return replace(
            _told(facts, patience),
            weights=storage.read_arrays(folder / "weights.safetensors"),
            optimizer=storage.read_arrays(folder / "optimizer.safetensors"),
            best_weights=storage.read_arrays(folder / "best.safetensors"),
        )


def as_bytes(state: TrainingState) -> bytes:
    """A state to be sent to another process; equal states give equal bytes."""
    text = json.dumps(_facts(state), sort_keys=True).encode()
    arrays: Arrays = {"facts": np.frombuffer(text, np.uint8)}
    for part in _ARRAYS:
        arrays |= {f"{part}/{name}": array for name, array in getattr(state, part).items()}
    return save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})


def from_bytes(content: bytes, patience: int) -> TrainingState:
    """What `as_bytes` was given."""
    arrays = load(content)
    parts: dict[str, Arrays] = {part: {} for part in _ARRAYS}
    facts = json.loads(arrays.pop("facts").tobytes())
    for name, array in arrays.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = np.array(array)
    weights, optimizer, best = (parts[part] for part in _ARRAYS)
    return replace(_told(facts, patience), weights=weights, optimizer=optimizer, best_weights=best)


def clear_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run folder: what the run came to has been published.

    The log stays; the next run in this folder begins anew.
    """
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process; the lock dies with its owner.

    Raises:
        RunLockedError: If another process holds it; the message names its pid and host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / "lock"), folder / "owner.txt"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = owner.read_text(encoding="utf-8") if owner.exists() else "unknown"
        raise RunLockedError(
            f"{folder} is in use by another run ({who.strip()}). "
            "Wait for it, stop it, or give another --out."
        ) from None
    try:
        owner.write_text(f"pid {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _facts(state: TrainingState) -> dict[str, Any]:
    """A state but for its arrays, as JSON."""
    return {
        "epoch": state.epoch,
        "batch": state.batch,
        "step": state.step,
        # As text: exact, and infinity is not JSON.
        "loss_sum": state.loss_sum.hex(),
        "num_targets": state.num_targets,
        "best_score": state.stopping.best_score.hex(),
        "best_epoch": state.stopping.best_epoch,
        "stopping_epoch": state.stopping.epoch,
        "finished": state.finished,
        "log_offset": state.log_offset,
    }


def _told(facts: Mapping[str, Any], patience: int) -> TrainingState:
    """The state that `_facts` told of, without arrays."""
    return TrainingState(
        epoch=facts["epoch"],
        batch=facts["batch"],
        step=facts["step"],
        loss_sum=float.fromhex(facts["loss_sum"]),
        num_targets=facts["num_targets"],
        stopping=EarlyStopping(
            patience=patience,
            best_score=float.fromhex(facts["best_score"]),
            best_epoch=facts["best_epoch"],
            epoch=facts["stopping_epoch"],
        ),
        finished=facts["finished"],
        log_offset=facts["log_offset"],
    )


def _refuse_non_finite(arrays: Mapping[str, Any], step: int) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise TrainingError(
                f"{name} has values that are not finite after step {step}; this state is not "
                "saved. The last checkpoint is good: lower --learning-rate and give another --out."
            )


def _refuse_other_run(stored: Any, asked: Any, folder: Path) -> None:
    if stored == asked:
        return
    names = sorted(set(stored) | set(asked))
    changes = [
        f"{name}: was {stored.get(name)!r}, asked {asked.get(name)!r}"
        for name in names
        if stored.get(name) != asked.get(name)
    ]
    raise ResumeError(
        f"The unfinished run in {folder.parent.parent} was started differently: "
        f"{'; '.join(changes)}. Give the first command again, or another --out."
    )
