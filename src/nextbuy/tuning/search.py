"""The search: which values are tried next, what becomes of each trial, and when it is enough."""

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nextbuy.errors import TimeIsUpError
from nextbuy.models.protocol import Model
from nextbuy.progress import Progress
from nextbuy.seeding import stream_seed
from nextbuy.storage import failpoint
from nextbuy.training.interruption import Interrupted
from nextbuy.tuning.config import METRICS
from nextbuy.tuning.fitting import PRUNE, Fitting, Outcome, Watched
from nextbuy.tuning.journal import (
    DEFAULT,
    earlier_part,
    fail,
    finished_trials,
    put_back,
    put_back_killed,
    root_of,
)
from nextbuy.tuning.limit import TimeLimit
from nextbuy.tuning.space import suggested

logger = logging.getLogger(__name__)

SECONDS: Final = "seconds"
SCORING: Final = "scoring"

_MOST_SEEDS: Final = 2**32
_FOLDER: Final = "trials"


@dataclass(slots=True, eq=False)
class Running:
    """A trial that was begun.

    Attributes:
        trial: Of the study.
        values: By their paths.
        before: Seconds that it took before it was cut off.
        known: What it came to by epochs before it was cut off.
        best: The lowest validation loss so far.
        started: Moment of `time.monotonic()`.
    """

    trial: optuna.Trial
    values: dict[str, Any]
    before: float
    known: dict[int, float]
    best: float = math.inf
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """That it took so far."""
        return self.before + time.monotonic() - self.started

    def judge(self, epoch: int, loss: float) -> str:
        """`PRUNE` if others were better after so many epochs."""
        self.best = min(self.best, loss, *(v for e, v in self.known.items() if e <= epoch))
        if epoch not in self.known:  # the weights of the best epoch are those that are kept
            self.trial.report(self.best, epoch)
            self.trial.set_user_attr(SECONDS, self.seconds)
        return PRUNE if self.trial.should_prune() else ""


@dataclass(slots=True, eq=False, kw_only=True)
class Search:
    """One model, looked for on one split.

    Attributes:
        fitting: Fits and judges; the test of its split is not used here.
        study: Where trials are kept.
        folder: Of the study; checkpoints of trials lie below.
        space: Of the trials.
        default: The first trial's values.
        limit: Of time.
        progress: Told about trials.
        say: Told a line about each trial that is finished and kept.
        kept: Fitted models of the default and of the best of this run, by the number of the trial.
    """

    fitting: Fitting
    study: optuna.Study
    folder: Path
    space: dict[str, BaseDistribution]
    default: dict[str, Any]
    limit: TimeLimit
    progress: Progress
    say: Callable[[str], None]
    kept: dict[int, Model] = field(default_factory=dict)

    def run(self, wanted: int) -> None:
        """Try one after the other until there are so many finished trials, or the time is up.

        What the time limit cuts off is queued again.

        Raises:
            TimeIsUpError: If there was no time for the default: all others are held against it.
        """
        if not any(trial.user_attrs.get(DEFAULT) for trial in self.study.get_trials()):
            self.study.enqueue_trial(self.default, user_attrs={DEFAULT: True})
        while self.num_finished() < wanted and self.has_time():
            if not self._try_one():
                break
        if not self.num_finished():
            raise TimeIsUpError(
                f"The time limit of {self.fitting.config.time_limit:g} s ended before the "
                "default config, the first trial, was fitted. A network's checkpoint is kept: give "
                "the same command again to go on, a longer --time-limit, or fewer --epochs."
            )

    def num_finished(self) -> int:
        """Trials that came to their end."""
        return len(finished_trials(self.study))

    def deadline(self) -> float:
        """When the trials have to end, so that there is time for the comparison; the default may
        take what there is."""
        if not self.num_finished():
            return self.limit.end
        return self.limit.of_trials(self.default_trial().user_attrs, self.best_trial().user_attrs)

    def has_time(self) -> bool:
        """Whether another trial may begin."""
        return time.monotonic() < self.deadline()

    def begin(self, num_running: int = 0) -> Running:
        """The next trial: what is queued, else what the sampler says."""
        # By the number of trials that were begun and not cut off, so that a killed search goes on
        # with the draws that it would have made, and does not begin its stream again.
        place = self.num_finished() + num_running
        seed = stream_seed(self.fitting.config.seed, "tuning", place) % _MOST_SEEDS
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self.study.ask()
        values = suggested(trial, self.space)
        known = earlier_part(self.study, trial)
        for epoch, loss in known.items():
            trial.report(loss, epoch)
        failpoint("mid_trial")
        return Running(trial, values, float(trial.user_attrs.get(SECONDS, 0.0)), known)

    def folder_of(self, trial: optuna.Trial | FrozenTrial) -> Path:
        """Where checkpoints of a trial go; the same for one that is tried again."""
        return self.folder / _FOLDER / f"{root_of(trial):06d}"

    def _try_one(self) -> bool:
        """Whether a trial came to its end; otherwise it was cut off by the deadline."""
        running = self.begin()
        watched = Watched(self.deadline(), alive=self.alive, judge=running.judge)
        try:
            outcome = self.fitting.attempt(running.values, self.folder_of(running.trial), watched)
        except (Interrupted, KeyboardInterrupt):
            self.put_back(running)
            raise
        return self.end(running, outcome)

    def put_back(self, running: Running) -> None:
        """Queue a trial again that was stopped, and is not to blame for it."""
        put_back(self.study, self.study.get_trials()[running.trial.number])

    def lose(self, running: Running) -> None:
        """A trial's process ended by itself: queue it once more, the second time it has failed."""
        number = running.trial.number
        if not put_back_killed(self.study, self.study.get_trials()[number]):
            self._tidy()
            failed = Outcome(state="failed", seconds=0.0)
            self._tell(number, failed, running.seconds)

    def alive(self) -> None:
        """A sign of life: a trial may take minutes."""
        self.progress.advance(0, {})

    def end(self, running: Running, outcome: Outcome) -> bool:
        """Keep what a trial came to; False if it was cut off.

        Raises:
            TrainingError: If the default cannot be trained.
        """
        trial = running.trial
        if outcome.state == "cut off":
            self.put_back(running)
            return False
        if outcome.error is not None and trial.user_attrs.get(DEFAULT):
            raise outcome.error
        seconds = running.before + outcome.seconds
        trial.set_user_attr(SECONDS, seconds)
        if outcome.state == "failed":
            logger.warning("Trial %d failed: %s", trial.number, outcome.error)
            fail(self.study, trial, str(outcome.error))
        elif outcome.state == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            for name in METRICS:
                trial.set_user_attr(name, outcome.scores[name])
            trial.set_user_attr(SCORING, outcome.scoring)
            self.study.tell(trial, objective(self.fitting.config.metric, outcome.scores))
            self._keep(trial.number, outcome.model)
        self._tidy()
        self._tell(trial.number, outcome, seconds)
        return True

    def _tell(self, number: int, outcome: Outcome, seconds: float) -> None:
        metric, best = self.fitting.config.metric, self.best_trial()
        words = f"trial {number} {outcome.state}"
        if outcome.state == "complete":
            words += f", validation {metric} {outcome.scores[metric]:.6f}"
        words += f", {seconds:.0f} s; best {best.user_attrs[metric]:.6f} (trial {best.number})"
        self.say(words)
        self.progress.advance(1, {"validation_loss": float(best.user_attrs["loss"])})

    def default_trial(self) -> FrozenTrial:
        """The finished trial of the default config."""
        return next(trial for trial in finished_trials(self.study) if trial.user_attrs.get(DEFAULT))

    def best_trial(self) -> FrozenTrial:
        """The best complete trial on validation; the earlier one of two that are equal."""
        complete = [t for t in finished_trials(self.study) if t.state == TrialState.COMPLETE]
        return min(complete, key=lambda trial: (trial.value, trial.number))

    def _keep(self, number: int, model: Model | None) -> None:
        """Remember the models that the test will be asked about."""
        if model is not None:
            self.kept[number] = model
        wanted = {self.default_trial().number, self.best_trial().number}
        self.kept = {n: m for n, m in self.kept.items() if n in wanted}

    def _tidy(self) -> None:
        """Remove the checkpoints of trials that are over, but of the default and the best."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        open_ones = [t for t in self.study.get_trials() if t.state not in ended]
        wanted = {
            self.folder_of(trial).name
            for trial in (self.default_trial(), self.best_trial(), *open_ones)
        }
        for folder in (self.folder / _FOLDER).glob("*"):
            if folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)


def objective(metric: str, scores: Mapping[str, float]) -> float:
    """What the study makes low: the loss itself, or minus a metric that should be high."""
    return scores[metric] if metric == "loss" else -scores[metric]
