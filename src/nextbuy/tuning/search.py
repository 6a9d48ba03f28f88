"""The search: trials one after the other, each fitted on training and judged on validation."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nextbuy.errors import ConfigError, TimeIsUpError, TrainingError
from nextbuy.evaluation.evaluate import evaluate
from nextbuy.models.protocol import FitOptions, Model, Workers
from nextbuy.models.search_space import nested
from nextbuy.models.sharing import fit_model
from nextbuy.predictor.config import create_model
from nextbuy.progress import Progress
from nextbuy.seeding import stream_seed
from nextbuy.splitting.cases import Split
from nextbuy.storage import failpoint
from nextbuy.training.interruption import Interrupted
from nextbuy.tuning.config import TuningConfig
from nextbuy.tuning.journal import fail, finished_trials, put_back
from nextbuy.tuning.space import suggested

logger = logging.getLogger(__name__)

DEFAULT: Final = "default"
SECONDS: Final = "seconds"
METRICS: Final = ("loss", "ndcg@10")
"""What a complete trial remembers of validation."""

_MOST_SEEDS: Final = 2**32


@dataclass(slots=True, eq=False, kw_only=True)
class Search:
    """One model, looked for on one split.

    Attributes:
        config: What is asked.
        split: Its training and validation are used here, its test is not.
        study: Where trials are kept.
        space: Of the trials.
        default: The first trial's values.
        progress: Told about trials.
        workers: Fit the networks; None fits them here.
        kept: Fitted models of the default and of the best of this run, by the number of the trial.
    """

    config: TuningConfig
    split: Split
    study: optuna.Study
    space: dict[str, BaseDistribution]
    default: dict[str, Any]
    progress: Progress
    workers: Workers | None = None
    kept: dict[int, Model] = field(default_factory=dict)

    def run(self, deadline: float) -> None:
        """Try until there are `config.trials` finished trials, or the time is up.

        What the time limit cuts off is queued again. The default trial is never cut off: all
        others are held against it.

        Args:
            deadline: Moment of `time.monotonic()`.
        """
        if not any(trial.user_attrs.get(DEFAULT) for trial in self.study.get_trials()):
            self.study.enqueue_trial(self.default, user_attrs={DEFAULT: True})
        done = len(finished_trials(self.study))
        self.progress.about("")
        self.progress.start("trials", max(self.config.trials, done), done=done)
        try:
            while done < self.config.trials and (done == 0 or time.monotonic() < deadline):
                # By the number of finished trials, so that a killed search goes on with the draws
                # that it would have made, and does not begin its stream again.
                seed = stream_seed(self.config.seed, "tuning", done) % _MOST_SEEDS
                self.study.sampler = optuna.samplers.TPESampler(seed=seed)
                if not self._try_one(math.inf if done == 0 else deadline):
                    break
                done += 1
                self.progress.advance(1, {"validation_loss": self._best_loss()})
        finally:
            self.progress.finish()

    def _try_one(self, deadline: float) -> bool:
        """Whether a trial came to its end; otherwise it was cut off by the deadline."""
        trial = self.study.ask()
        values = suggested(trial, self.space)
        started = time.monotonic()
        reporting = _Reporting(trial, self.progress, deadline)
        failpoint("mid_trial")
        try:
            model = self.fit(values, reporting)
            scores = self._validated(model)
        except optuna.TrialPruned:
            trial.set_user_attr(SECONDS, time.monotonic() - started)
            self.study.tell(trial, state=TrialState.PRUNED)
            return True
        except TimeIsUpError:
            put_back(self.study, self.study.get_trials()[trial.number])
            return False
        except Interrupted:
            raise
        except (TrainingError, ConfigError) as error:
            if trial.user_attrs.get(DEFAULT):
                raise
            logger.warning("Trial %d failed: %s", trial.number, error)
            fail(self.study, trial, str(error))
            return True
        trial.set_user_attr(SECONDS, time.monotonic() - started)
        for name in METRICS:
            trial.set_user_attr(name, scores[name])
        self.study.tell(trial, objective(self.config.metric, scores))
        self._keep(trial.number, model)
        return True

    def fit(self, values: Mapping[str, Any], progress: Progress) -> Model:
        """A model with these values, fitted on training."""
        options = FitOptions(
            seed=self.config.seed, epochs=self.config.epochs, progress=progress,
            workers=self.workers,
        )  # fmt: skip
        model = create_model(self.config.model, self.config.predictor(self.options_of(values)))
        split = self.split
        return fit_model(model, split.train, split.validation, split.catalog, options)

    def _validated(self, model: Model) -> dict[str, float]:
        """Scores on validation.

        Raises:
            TrainingError: If they are no numbers.
        """
        cases = self.split.validation
        scores = evaluate(model, cases, self.split.catalog, num_resamples=0).metrics
        if not all(math.isfinite(scores[name]) for name in METRICS):
            said = ", ".join(f"{name} {scores[name]}" for name in METRICS)
            raise TrainingError(
                f"Nothing can be chosen on the {len(cases)} cases of validation: {said}. "
                "Give a longer log or another --split."
            )
        return scores

    def options_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the model: what was tried, and where it is computed."""
        place = {} if self.config.device == "cpu" else {"device": self.config.device}
        return {**place, **nested(values)}

    def default_trial(self) -> FrozenTrial:
        """The finished trial of the default config."""
        return next(t for t in finished_trials(self.study) if t.user_attrs.get(DEFAULT))

    def best_trial(self) -> FrozenTrial:
        """The best complete trial on validation; the earlier one of two that are equal."""
        complete = [t for t in finished_trials(self.study) if t.state == TrialState.COMPLETE]
        return min(complete, key=lambda trial: (trial.value, trial.number))

    def _keep(self, number: int, model: Model) -> None:
        """Remember the models that the test will be asked about."""
        self.kept[number] = model
        wanted = {self.default_trial().number, self.best_trial().number}
        self.kept = {n: m for n, m in self.kept.items() if n in wanted}

    def _best_loss(self) -> float:
        return float(self.best_trial().user_attrs["loss"])


def objective(metric: str, scores: Mapping[str, float]) -> float:
    """What the study makes low: the loss itself, or minus a metric that should be high."""
    return scores[metric] if metric == "loss" else -scores[metric]


class _Reporting:
    """Hears of each epoch's validation loss while a model is fitted, and stops what is not worth
    its time; shows nothing of the steps."""

    def __init__(self, trial: optuna.Trial, progress: Progress, deadline: float) -> None:
        self._trial, self._progress, self._deadline = trial, progress, deadline
        self._epochs, self._steps_left = 0, 0
        self._best = math.inf

    def about(self, subject: str) -> None:
        """Nothing: the bar is about trials."""

    def start(self, name: str, total: int, done: int = 0) -> None:  # noqa: ARG002
        """A piece of work begins: what is over needs no pruning."""
        self._steps_left = total - done

    def advance(self, units: int, facts: dict[str, float]) -> None:
        """Look at the clock and, after an epoch, whether to go on.

        Raises:
            TimeIsUpError: If the deadline has passed.
            TrialPruned: If others were better by then.
        """
        if time.monotonic() >= self._deadline:
            raise TimeIsUpError("The time for the search is up.")
        self._progress.advance(0, {})  # a sign of life: a trial may take minutes
        self._steps_left -= units
        loss = facts.get("validation_loss")
        if loss is None:
            return
        self._epochs += 1
        self._best = min(self._best, loss)  # the weights of the best epoch are those that are kept
        self._trial.report(self._best, self._epochs)
        if self._steps_left > 0 and self._trial.should_prune():
            raise optuna.TrialPruned

    def finish(self) -> None:
        """Nothing: the bar is about trials."""
