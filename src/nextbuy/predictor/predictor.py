"""The predictor: what a user holds. Fit on a log, read the scores, predict, save, load."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from nextbuy.bundle import Bundle, load_bundle, save_bundle
from nextbuy.data.encoding import Encoded
from nextbuy.data.options import ReadOptions
from nextbuy.data.recoding import in_catalog
from nextbuy.data.sources import Source
from nextbuy.errors import BundleError, ConfigError
from nextbuy.evaluation.evaluate import Evaluation
from nextbuy.models.first_weights import Start
from nextbuy.models.protocol import Model, Workers
from nextbuy.predictor.answering import Answering, with_blend
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.cadence_fit import refit_cadence
from nextbuy.predictor.config import PredictorConfig, create_model
from nextbuy.predictor.facts import apart, source_facts, together, versions
from nextbuy.predictor.fitting import LeaderboardRow
from nextbuy.predictor.learning import evaluate_log, learn, read_and_split
from nextbuy.predictor.refit import clear_run, going_on, refit_on_all
from nextbuy.predictor.timing_fit import refit_timing, with_unlisted
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Split


class Predictor(Answering):
    """Data description, catalog and fitted models, with the scores that they earned.

    Fits, measures, saves and loads; `Answering` has what it is asked.
    """

    leaderboard: Sequence[LeaderboardRow] = ()
    split: Split | None = None
    source: Source | None = None
    _run_folder: Path | None = None

    @classmethod
    def fit(
        cls,
        data: Any,
        *,
        config: PredictorConfig | None = None,
        options: ReadOptions | None = None,
        users: int | None = None,
        run_folder: Path | None = None,
        progress: Progress | None = None,
        workers: Workers | None = None,
    ) -> Self:
        """Read, split, fit every model, and score each on validation and test.

        Args:
            data: A named source (`world:uniform`, `world:market`, `complete-journey`), a path, an
                SQL source, or a frame.
            config: Models, level, split and so on.
            options: How to read the data.
            users: Number of users of a world.
            run_folder: For checkpoints: the same call with the same folder goes on after a kill.
            progress: Told about the long parts.
            workers: Fit the networks of items; None fits them here.

        Raises:
            NextbuyError: With the reason, for anything that the data or config make impossible.
        """
        started = time.monotonic()
        config, options = config or PredictorConfig(), options or ReadOptions()
        progress = progress or SilentProgress()
        if workers is not None and config.time_limit is not None:
            raise ConfigError(
                f"A time limit ends training by the clock of one machine; asked for "
                f"{config.time_limit:g} s and workers on a cluster. Leave one of them out."
            )
        for name in config.chosen_models:
            model = create_model(name, config)  # refuses before anything is read
            if workers is not None:
                workers.check(model)
        source, encoded, split = read_and_split(data, config, options, users, progress)
        return cls.fit_split(
            source, encoded, split, config=config, options=options, run_folder=run_folder,
            progress=progress, started=started, workers=workers,
        )  # fmt: skip

    @classmethod
    def fit_split(
        cls,
        source: Source,
        encoded: Encoded,
        split: Split,
        *,
        config: PredictorConfig,
        options: ReadOptions,
        run_folder: Path | None = None,
        progress: Progress | None = None,
        started: float | None = None,
        scored: Callable[[Self], None] = lambda _: None,
        workers: Workers | None = None,
        champion: "Predictor | None" = None,
    ) -> Self:
        """What `fit` does once a log is read and split.

        Args:
            source: The log.
            encoded: The same in numbers.
            split: Of it.
            config: As for `fit`.
            options: How the log was read.
            run_folder: As for `fit`.
            progress: As for `fit`.
            started: When the work began, by `time.monotonic()`; now if not told.
            scored: Sees the predictor when all is scored, before `refit_full` lets it learn from
                the test period.
            workers: As for `fit`.
            champion: Networks go on from those of this one and learn what was bought since, instead
                of learning all anew.
        """
        progress = progress or SilentProgress()
        started = time.monotonic() if started is None else started
        models, starts = _models(config, champion)
        predictor = cls(
            config=config,
            catalog=split.catalog,
            histories=in_catalog(encoded.histories, encoded.catalog, split.catalog),
            models={},
            facts=source_facts(source, options),
        )
        predictor.split, predictor.source, predictor._run_folder = split, source, run_folder
        learnt = learn(
            models, source, encoded, split, config, run_folder=run_folder,
            budget=TimeBudget.of(config.time_limit, started), progress=progress, workers=workers,
            starts=starts,
        )  # fmt: skip
        fitted, timing = learnt.models, learnt.timing
        predictor.models, predictor._members = fitted.models, fitted.members
        predictor.cadence = fitted.cadence.cadence
        predictor.leaderboard, predictor.facts = fitted.rows, predictor.facts | learnt.facts
        scored(predictor)
        if config.refit_full:
            predictor._refit(encoded, progress, workers, goes_on=bool(starts))
            timing = refit_timing(timing, encoded, progress)
        predictor.forecaster = with_unlisted(timing.forecaster, encoded, predictor.catalog)
        predictor.facts["timing"] = timing.facts
        return predictor

    def _refit(
        self, encoded: Encoded, progress: Progress, workers: Workers | None, *, goes_on: bool
    ) -> None:
        """Fit the members again on the whole log, and answer with its whole catalog."""
        folder = self._run_folder
        self._members = refit_on_all(
            self._members, encoded, self.config, folder, progress, workers=workers,
            known=self.catalog if goes_on else None,
            since=self.facts["protocol"]["learned_until"],
        )  # fmt: skip
        if encoded.histories.time_kind == "dates":
            self.facts["protocol"]["learned_until"] = int(encoded.histories.times.max()) + 1
        self.catalog, self.histories = encoded.catalog, encoded.histories
        self.models = with_blend(self._members, self.facts.get("blend"))
        if self.cadence is not None:
            again = refit_cadence(encoded.histories, encoded.catalog)
            self.cadence, self.facts["cadence"] = again.cadence, again.facts

    def evaluate(
        self, data: Any, *, options: ReadOptions | None = None, users: int | None = None
    ) -> dict[str, Evaluation]:
        """Score every model on the test cases of a log, under the protocol of the training.

        On the log it was trained on this gives the scores of the training; on another log the same
        kind of split is made there. Items that the predictor does not know are misses.

        Raises:
            ConfigError: If the models were fitted again on this very log: it has nothing that they
                have not seen.
        """
        return evaluate_log(
            data, self.models, self.catalog, self.config, facts=self.facts, cadence=self.cadence,
            options=options or self.read_options(), users=users,
        )  # fmt: skip

    def save(
        self, directory: Path, *, latest: bool = True, run: Mapping[str, Any] | None = None
    ) -> Path:
        """Publish a bundle in `directory`, and remove the checkpoints; gives the new folder.

        Args:
            directory: Where the versions lie.
            latest: Make it the version that answers; without, that stays the one it is.
            run: More to be kept about how it came about, JSON.
        """
        facts, about = apart(self.facts)
        facts |= {"config": self.config.model_dump(mode="json"), "versions": versions()}
        about |= {"created": datetime.now(UTC).isoformat(timespec="seconds"), **(run or {})}
        bundle = Bundle(
            catalog=self.catalog, models=self._members, facts=facts, histories=self.histories,
            forecaster=self.forecaster, cadence=self.cadence, run=about,
        )  # fmt: skip
        published = save_bundle(directory, bundle, latest=latest)
        if self._run_folder is not None:
            clear_run(self._run_folder, self._members)
        return published

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Load the newest bundle of a directory, or one version of it.

        Raises:
            BundleError: If it is damaged or not what it says.
        """
        bundle = load_bundle(directory)
        try:
            return cls(
                config=PredictorConfig.of(**bundle.facts["config"]),
                catalog=bundle.catalog,
                histories=bundle.histories,
                models=bundle.models,
                facts=together(bundle.facts, bundle.run),
                forecaster=bundle.forecaster,
                cadence=bundle.cadence,
            )
        except (KeyError, TypeError, ValidationError, ConfigError) as error:
            raise BundleError(
                f"The bundle in {directory} has no usable config or blend: {error}"
            ) from error


def _models(
    config: PredictorConfig, champion: Predictor | None
) -> tuple[dict[str, Model], dict[str, Start]]:
    """Models to fit, and where networks start that go on from a champion's."""
    models = {name: create_model(name, config) for name in config.chosen_models}
    if champion is None:
        return models, {}
    since = champion.facts["protocol"].get("learned_until")
    return going_on(models, champion._members, champion.catalog, since)
