"""A study on disk: one journal file, whole after a kill at any moment.

Only the process that holds the lock of the folder may open it.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from nextbuy.errors import DamagedError, ResumeError

logger = logging.getLogger(__name__)

DEFAULT: Final = "default"
"""Marks the trial of the default config."""

JOURNAL: Final = "study.journal"
_NAME: Final = "nextbuy"
_IDENTITY: Final = "identity"
_CUT_OFF: Final = "cut off"
_AGAIN: Final = "again"
_ROOT: Final = "root"
_KILLED: Final = "killed"
_REASON: Final = "reason"
_FIRST_RUNG: Final = 2
"""Epochs after which a trial is first held against others: one favours whatever learns fast."""
_FACTOR: Final = 2
"""Of two trials that came as far, one goes on, to so many times the epochs."""


class _Held:
    """The lock of the journal, which the lock of the folder makes needless.

    Optuna's own is a file that outlives a killed process, and makes the next one wait half a
    minute.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def open_study(folder: Path, identity: Mapping[str, Any]) -> optuna.Study:
    """The study of a folder, a new one if there is none; lower is better.

    Trials that were running when their process ended are marked failed and queued again, but one
    whose process ended for the second time: its parameters may be the reason. The default is
    always queued again, for nothing can be said without it.

    Args:
        folder: Is there, and locked.
        identity: What makes this study this study: JSON.

    Raises:
        ResumeError: If the study there is another; the message names the first difference.
        DamagedError: If the journal is no journal.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / JOURNAL
    _drop_torn_line(path)
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_Held()))  # type: ignore[arg-type]  # has its two methods
        study = optuna.create_study(
            storage=storage,
            study_name=_NAME,
            direction="minimize",
            load_if_exists=True,
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=_FIRST_RUNG, reduction_factor=_FACTOR
            ),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path} is no journal of a study ({error}). Give another --out."
        ) from error
    wanted = json.loads(json.dumps(identity))
    found = study.user_attrs.get(_IDENTITY)
    if found is None:
        study.set_user_attr(_IDENTITY, wanted)
    elif found != wanted:
        raise ResumeError(_difference(folder, found, wanted))
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        put_back_killed(study, trial)
    return study


def put_back_killed(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Mark a trial whose process ended as failed, and queue its parameters once more.

    Returns:
        Whether it is queued; after a second end it counts as one that failed by itself.
    """
    if trial.user_attrs.get(_KILLED) and not trial.user_attrs.get(DEFAULT):
        logger.warning("Trial %d failed: its process ended twice.", trial.number)
        study.tell(trial.number, state=TrialState.FAIL)
        return False
    put_back(study, trial, {_KILLED: True})
    return True


def put_back(
    study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, Any] | None = None
) -> None:
    """Mark a trial that was cut off as failed, and queue its parameters again.

    Queued first: a kill between the two leaves both, and the next call sees that it is done.

    Args:
        study: Of the trial.
        trial: Was begun.
        attributes: More for the one in the queue.
    """
    queued = any(other.user_attrs.get(_AGAIN) == trial.number for other in study.get_trials())
    parameters = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    if parameters and not queued:
        told = {_AGAIN: trial.number, _ROOT: root_of(trial), **(attributes or {})}
        study.enqueue_trial(parameters, user_attrs={**trial.user_attrs, **told})
    study.set_user_attr(f"{_CUT_OFF} {trial.number}", True)
    study.tell(trial.number, state=TrialState.FAIL)


def root_of(trial: optuna.Trial | FrozenTrial) -> int:
    """The number under which a trial was begun first."""
    return int(trial.user_attrs.get(_ROOT, trial.number))


def earlier_part(study: optuna.Study, trial: optuna.Trial) -> dict[int, float]:
    """What a trial that was cut off came to, by epochs; empty for one that begins."""
    number = trial.user_attrs.get(_AGAIN)
    return {} if number is None else dict(study.get_trials()[number].intermediate_values)


def fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    """Mark a trial as failed by itself: its parameters cannot be trained."""
    trial.set_user_attr(_REASON, reason)
    study.tell(trial, state=TrialState.FAIL)


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Complete, pruned, or failed by themselves; in the order in which they began."""
    cut_off = {name for name in study.user_attrs if name.startswith(_CUT_OFF)}
    ended = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in ended if f"{_CUT_OFF} {trial.number}" not in cut_off]


def _drop_torn_line(path: Path) -> None:
    """Cut away what a kill left of a line: what is appended to it would be lost, too."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("rb+") as file:
            file.truncate(whole)


def _difference(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    name = next(n for n in [*wanted, *found] if found.get(n) != wanted.get(n))
    return (
        f"{folder} holds a study of another {name}: {found.get(name)!r} there, "
        f"{wanted.get(name)!r} asked for. Give another --out, or the same command to go on."
    )
