"""One trial: fitted on training, judged on validation; the same here and in a worker."""

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from nextbuy.errors import ConfigError, DamagedError, ResumeError, TimeIsUpError, TrainingError
from nextbuy.evaluation.evaluate import evaluate
from nextbuy.models.neural import NeuralModel
from nextbuy.models.protocol import FitOptions, Model
from nextbuy.models.search_space import nested
from nextbuy.predictor.config import create_model
from nextbuy.progress import Progress
from nextbuy.splitting.cases import Split
from nextbuy.training.interruption import Interrupted
from nextbuy.tuning.config import METRICS, TuningConfig

logger = logging.getLogger(__name__)

PRUNE: Final = "prune"
"""What `Watched` is told of a trial that is not worth its time."""


class PrunedError(TrainingError):
    """Others were better by then."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: `cut off` is neither good nor bad: the time was up.
        seconds: Of fitting and scoring.
        scoring: Of them, for scoring.
        scores: On validation, by `METRICS`; of a complete one.
        error: Why it failed.
        model: Fitted, where it was fitted in this process.
    """

    state: Literal["complete", "pruned", "failed", "cut off"]
    seconds: float
    scoring: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    error: Exception | None = None
    model: Model | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fitting:
    """What all trials share: training and validation of a split, and what is asked."""

    config: TuningConfig
    split: Split

    def attempt(self, values: Mapping[str, Any], folder: Path, watched: "Watched") -> Outcome:
        """Fit and score; what the values are to blame for becomes the outcome.

        Args:
            values: By their paths.
            folder: For checkpoints; a trial that was killed goes on from the newest.
            watched: Hears of it, and may end it.
        """
        started = time.monotonic()

        def passed() -> float:
            return time.monotonic() - started

        try:
            model = self.fit(values, folder, watched)
            fitted = passed()
            scores = self._validated(model, watched)
        except PrunedError:
            return Outcome(state="pruned", seconds=passed())
        except TimeIsUpError:
            return Outcome(state="cut off", seconds=passed())
        except Interrupted:
            raise
        except (TrainingError, ConfigError) as error:
            return Outcome(state="failed", seconds=passed(), error=error)
        return Outcome(
            state="complete", seconds=passed(), scoring=passed() - fitted, scores=scores,
            model=model,
        )  # fmt: skip

    def fit(self, values: Mapping[str, Any], folder: Path, progress: "Watched") -> Model:
        """A model with these values, fitted on training.

        Raises:
            TimeIsUpError: At the deadline of `progress`. A network does not stop with what it has:
                two that were stopped at different places could not be compared.
        """
        model = create_model(self.config.model, self.config.predictor(self.options_of(values)))
        deadline = None if isinstance(model, NeuralModel) else progress.deadline
        options = FitOptions(
            seed=self.config.seed, epochs=self.config.epochs, run_folder=folder, progress=progress,
            deadline=deadline if deadline is not None and math.isfinite(deadline) else None,
        )  # fmt: skip
        split = self.split
        try:
            return model.fit(split.train, split.validation, split.catalog, options)
        except (ResumeError, DamagedError) as error:
            logger.warning("Checkpoints in %s are of no use (%s); it begins anew.", folder, error)
            shutil.rmtree(folder)
            return model.fit(split.train, split.validation, split.catalog, options)

    def _validated(self, model: Model, progress: Progress) -> dict[str, float]:
        """Scores on validation.

        Raises:
            TrainingError: If they are no numbers.
        """
        cases = self.split.validation
        found = evaluate(model, cases, self.split.catalog, num_resamples=0, progress=progress)
        scores: dict[str, float] = {name: found.metrics[name] for name in METRICS}
        if not all(math.isfinite(value) for value in scores.values()):
            said = ", ".join(f"{name} {value}" for name, value in scores.items())
            raise TrainingError(
                f"Nothing can be chosen on the {len(cases)} cases of validation: {said}. "
                "Give a longer log or another --split."
            )
        return scores

    def options_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the model: what was tried, and where it is computed."""
        place = {} if self.config.device == "cpu" else {"device": self.config.device}
        return {**place, **nested(values)}


class Watched:
    """Hears of each epoch's validation loss while a model is fitted, and stops what is not worth
    its time; a Progress that shows nothing of the steps.

    Args:
        deadline: Moment of `time.monotonic()`.
        alive: Called often: a trial may take minutes.
        judge: Told the epoch, from 1, and its validation loss; `PRUNE` ends the trial.
    """

    def __init__(
        self,
        deadline: float = math.inf,
        *,
        alive: Callable[[], None] = lambda: None,
        judge: Callable[[int, float], str] = lambda _epoch, _loss: "",
    ) -> None:
        self.deadline = deadline
        self._alive, self._judge = alive, judge
        self._steps_left = 0

    def about(self, subject: str) -> None:
        """Nothing: the bar is about trials."""

    def start(self, name: str, total: int, done: int = 0) -> None:  # noqa: ARG002
        """A piece of work begins: what is over needs no pruning."""
        self._steps_left = total - done

    def advance(self, units: int, facts: dict[str, float]) -> None:
        """Look at the clock and, after an epoch, whether to go on.

        Raises:
            TimeIsUpError: If the deadline has passed.
            PrunedError: If others were better by then.
        """
        if time.monotonic() >= self.deadline:
            raise TimeIsUpError("The time for the search is up.")
        self._alive()
        self._steps_left -= units
        if "validation_loss" not in facts:
            return
        said = self._judge(int(facts["epoch"]) + 1, facts["validation_loss"])
        if said == PRUNE and self._steps_left > 0:
            raise PrunedError("Others were better by then.")

    def finish(self) -> None:
        """Nothing: the bar is about trials."""
