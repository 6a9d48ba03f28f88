"""The predictor: what a user holds. Fit on a log, read the scores, predict, save, load."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import polars as pl
from pydantic import ValidationError

from nextbuy.bundle import Bundle, load_bundle, save_bundle
from nextbuy.data.catalog import Catalog
from nextbuy.data.encoding import Encoded, encode
from nextbuy.data.histories import Histories, Int64
from nextbuy.data.options import ReadOptions
from nextbuy.data.recoding import in_catalog
from nextbuy.data.sources import Source, load_source
from nextbuy.errors import BundleError, ConfigError
from nextbuy.evaluation.evaluate import Evaluation
from nextbuy.models.blend import BLEND, Blend, BlendWeights
from nextbuy.models.protocol import FittedModel, Model
from nextbuy.predictor.answers import Moment, best_offers
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.cadence_fit import due_table, moments_of, refit_cadence
from nextbuy.predictor.config import PredictorConfig, SplitName, create_model
from nextbuy.predictor.facts import apart, results_facts, source_facts, together, versions
from nextbuy.predictor.fitting import (
    LeaderboardRow,
    evaluate_all,
    fit_and_score,
    limited_world,
)
from nextbuy.predictor.refit import clear_run, refit_on_all, refuse_seen
from nextbuy.predictor.timing_fit import (
    fit_timing,
    forecast_table,
    refit_timing,
    with_unlisted,
)
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Cases, Split
from nextbuy.splitting.choice import choose_split
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.splitting.rules import Rules
from nextbuy.timing.forecaster import Forecaster
from nextbuy.timing.item_cadence import ItemCadence
from nextbuy.training.checkpoint import run_lock


class Predictor:
    """Data description, catalog and fitted models, with the scores that they earned."""

    def __init__(
        self,
        *,
        config: PredictorConfig,
        catalog: Catalog,
        histories: Histories,
        models: Mapping[str, Model],
        facts: Mapping[str, Any],
        forecaster: Forecaster | None = None,
        cadence: ItemCadence | None = None,
    ) -> None:
        self.config = config
        self.catalog = catalog
        self.histories = histories
        self.models = with_blend(models, facts.get("blend"))
        self._members: dict[str, Model] = dict(models)
        self.facts = dict(facts)
        self.forecaster, self.cadence = forecaster, cadence
        self.leaderboard: list[LeaderboardRow] = []
        self.split: Split | None = None
        self.source: Source | None = None
        self._run_folder: Path | None = None

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

        Raises:
            NextbuyError: With the reason, for anything that the data or config make impossible.
        """
        started = time.monotonic()
        config = config or PredictorConfig()
        progress, options = progress or SilentProgress(), options or ReadOptions()
        models = {name: create_model(name, config) for name in config.chosen_models}
        source = load_source(
            data, users=users, seed=config.seed, options=options, progress=progress
        )
        encoded = encode(source.purchases, level=config.level)
        split = choose_split(
            split_name(config.split, source), encoded.catalog, encoded.histories, seed=config.seed
        )
        predictor = cls(
            config=config,
            catalog=split.catalog,
            histories=in_catalog(encoded.histories, encoded.catalog, split.catalog),
            models={},
            facts=source_facts(source, options),
        )
        predictor.split, predictor.source, predictor._run_folder = split, source, run_folder
        world = limited_world(source, config)
        budget = TimeBudget.of(config.time_limit, started)
        timing = fit_timing(encoded.histories, split, config, budget, progress)
        with nullcontext() if run_folder is None else run_lock(run_folder):
            fitted = fit_and_score(
                models, _mapped(split, run_folder), config,
                run_folder=run_folder, world=world, progress=progress, budget=budget,
            )  # fmt: skip
        predictor.models, predictor.leaderboard = fitted.models, fitted.rows
        predictor._members, predictor.cadence = fitted.members, fitted.cadence.cadence
        predictor.facts |= results_facts(fitted, split, config, world)
        if config.refit_full:
            _refit(predictor, encoded, progress)
            timing = refit_timing(timing, encoded.histories, progress)
        predictor.forecaster = with_unlisted(timing.forecaster, encoded, predictor.catalog)
        predictor.facts["timing"] = timing.facts
        return predictor

    @property
    def best_model(self) -> str:
        """The model with the lowest loss on validation: the blend, if there is one."""
        rows = self.facts["leaderboard"]
        return str(min(rows, key=lambda row: row["validation"]["loss"])["model"])

    @property
    def blend_in_words(self) -> str:
        """`bought again: 62 % tifu-knn, 38 % lstm-rnn; new: 100 % ease`; empty without a blend."""
        blend = self.models.get(BLEND)
        return blend.in_words() if isinstance(blend, Blend) else ""

    def predict(
        self,
        who: Sequence[str] | Histories,
        *,
        k: int = 5,
        model: str | None = None,
        as_of: Int64 | None = None,
        rules: Rules | None = None,
    ) -> pl.DataFrame:
        """The k most probable next purchases of users by id, or of raw histories.

        Args:
            who: User ids of the training log (one that is not in it has an empty history), or
                histories in this predictor's catalog, as `encode_histories` makes them.
            k: Items a user.
            model: One of `models`; the best on validation if not told.
            as_of: The moment of the question, UTC microseconds, one a user.
            rules: Of the shop; those of the config if not told.

        Returns:
            Columns `user_id, rank, item_id, platform, category, probability, reason`.

        Raises:
            ConfigError: If k is not positive or there is no such model.
        """
        if k < 1:
            raise ConfigError(f"k is the number of items a user; asked for {k}, it starts at 1.")
        name = model or self.best_model
        if name not in self.models:
            raise ConfigError(f"No model {name!r} here; there is {', '.join(self.models)}.")
        histories = who if isinstance(who, Histories) else self.histories_of(who)
        followed = self.config.rules if rules is None else rules
        assumed = moments_of(self.facts, self.histories, histories)
        moment = Moment(told=as_of, assumed=assumed, cadence=self.cadence)
        return best_offers(
            self.models[name], histories, self.catalog, moment,
            k=k, policy=RepeatPolicy.parse(self.config.repeat).by(self.cadence), rules=followed,
        )  # fmt: skip

    def forecast(
        self,
        who: Sequence[str] | Histories | None = None,
        *,
        as_of: datetime | int | Int64 | None = None,
        horizon_days: int = 90,
    ) -> pl.DataFrame:
        """When users buy next, how often and for how much, one row a user.

        Args:
            who: As for `predict`; everybody in the training log if not told.
            as_of: The moment from which days count, one for all (a datetime without a zone is UTC)
                or, in UTC microseconds, one a user; the end of the training log if not told.
            horizon_days: Over which purchases and spend are expected.

        Returns:
            See `Forecaster.table`; only purchases before `as_of` count.

        Raises:
            ConfigError: If there is nothing to forecast with, as without dates, with the reason.
        """
        return forecast_table(
            self.forecaster, self.facts, self.histories, who,
            as_of=as_of, horizon_days=horizon_days,
        )  # fmt: skip

    def due(
        self,
        who: Sequence[str] | Histories | None = None,
        *,
        as_of: datetime | int | Int64 | None = None,
        within_days: float = 30.0,
        k: int = 10,
    ) -> pl.DataFrame:
        """The k own items that each user most probably buys again `within_days`, by the items' own
        clocks; `who` and `as_of` as for `forecast`. For columns and errors see `due_table`.
        """
        whole = Bundle(
            catalog=self.catalog, histories=self.histories, models={}, facts=self.facts,
            cadence=self.cadence,
        )  # fmt: skip
        return due_table(whole, who, as_of=as_of, within_days=within_days, k=k)

    def histories_of(self, user_ids: Sequence[str]) -> Histories:
        """The known histories of some users; empty for users that the log does not have."""
        return self.histories.of_users(user_ids)

    def encode_histories(
        self, data: Any, options: ReadOptions | None = None
    ) -> tuple[Histories, int]:
        """Read raw histories into this predictor's catalog.

        Returns:
            The histories, and how many of their purchases the catalog does not know (left out).
        """
        purchases = load_source(data, options=options or self.read_options()).purchases
        encoded = encode(purchases, level=self.config.level)
        histories = in_catalog(encoded.histories, encoded.catalog, self.catalog)
        return histories, encoded.histories.num_purchases - histories.num_purchases

    def read_options(self) -> ReadOptions:
        """How the training log was read."""
        return ReadOptions(**self.facts["read_options"])

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
        cases = _test_cases(self, data, options or self.read_options(), users)
        return evaluate_all(self.models, cases, self.catalog, self.config, self.cadence)

    def save(self, directory: Path) -> Path:
        """Publish a bundle in `directory`, and remove the checkpoints; gives the new folder."""
        facts, run = apart(self.facts)
        facts |= {"config": self.config.model_dump(mode="json"), "versions": versions()}
        run |= {"created": datetime.now(UTC).isoformat(timespec="seconds")}
        bundle = Bundle(
            catalog=self.catalog, models=self._members, facts=facts, histories=self.histories,
            forecaster=self.forecaster, cadence=self.cadence, run=run,
        )  # fmt: skip
        published = save_bundle(directory, bundle)
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
            return cls(**_parts(bundle))
        except (KeyError, TypeError, ValidationError, ConfigError) as error:
            raise BundleError(
                f"The bundle in {directory} has no usable config or blend: {error}"
            ) from error


def split_name(asked: SplitName, source: Source) -> str:
    """The split that `auto` stands for: by time if there are dates, else as the source suggests."""
    if asked != "auto":
        return asked
    if source.name == "world:uniform":
        return "held-out-users"
    return "temporal" if source.purchases.time_kind == "dates" else "leave-last-out"


def _parts(bundle: Bundle) -> dict[str, Any]:
    """What a predictor is made from."""
    return {
        "config": PredictorConfig.of(**bundle.facts["config"]),
        "facts": together(bundle.facts, bundle.run),
        **{
            name: getattr(bundle, name)
            for name in ("catalog", "histories", "models", "forecaster", "cadence")
        },
    }


def _refit(predictor: Predictor, encoded: Encoded, progress: Progress) -> None:
    """Fit the members again on the whole log, and answer with its whole catalog."""
    predictor._members = refit_on_all(
        predictor._members, encoded, predictor.config, predictor._run_folder, progress
    )
    predictor.catalog, predictor.histories = encoded.catalog, encoded.histories
    predictor.models = with_blend(predictor._members, predictor.facts.get("blend"))
    if predictor.cadence is not None:
        again = refit_cadence(encoded.histories, encoded.catalog)
        predictor.cadence, predictor.facts["cadence"] = again.cadence, again.facts


def _test_cases(predictor: Predictor, data: Any, options: ReadOptions, users: int | None) -> Cases:
    """Those of a log, under the protocol of the training and in the predictor's catalog."""
    config = predictor.config
    source = load_source(data, users=users, seed=config.seed, options=options)
    if config.refit_full:
        refuse_seen(source.purchases, predictor.facts["fingerprint"])
    encoded = encode(source.purchases, level=config.level)
    name = predictor.facts["protocol"]["split"]
    split = choose_split(name, encoded.catalog, encoded.histories, seed=config.seed)
    return split.test.in_catalog(split.catalog, predictor.catalog)


def _mapped(split: Split, run_folder: Path | None) -> Split:
    """The same split, its histories mapped from files when there is a place for them."""
    if run_folder is None:
        return split
    train = _mapped_histories(split.train, run_folder / "histories")
    if split.before_test is None:
        return replace(split, train=train)
    later = _mapped_histories(split.before_test, run_folder / "histories-before-test")
    return replace(split, train=train, before_test=later)


def _mapped_histories(histories: Histories, folder: Path) -> Histories:
    histories.save(folder)
    return Histories.load(folder)


def with_blend(models: Mapping[str, Model], weights: Any) -> dict[str, FittedModel]:
    """The models, and their blend if there are weights, as they are stored."""
    if not weights:
        return dict(models)
    return {**models, BLEND: Blend(models, BlendWeights.model_validate(weights))}
