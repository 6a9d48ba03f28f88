"""The predictor: what a user holds. Fit on a log, read the scores, predict, save, load."""

import time
from collections.abc import Mapping, Sequence
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
from nextbuy.predictor.answers import best_offers
from nextbuy.predictor.audience import AudienceRequest, audience_table
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.config import PredictorConfig, create_model
from nextbuy.predictor.facts import apart, source_facts, together, versions
from nextbuy.predictor.fitting import LeaderboardRow
from nextbuy.predictor.learning import evaluate_log, learn, read_and_split
from nextbuy.predictor.refit import clear_run, refit_on_all
from nextbuy.predictor.timing_fit import forecast_table, refit_timing, with_unlisted
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Split
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.splitting.rules import Rules
from nextbuy.timing.forecaster import Forecaster


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
    ) -> None:
        self.config = config
        self.catalog = catalog
        self.histories = histories
        self.models = with_blend(models, facts.get("blend"))
        self._members: dict[str, Model] = dict(models)
        self.facts = dict(facts)
        self.forecaster = forecaster
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
        config, options = config or PredictorConfig(), options or ReadOptions()
        progress = progress or SilentProgress()
        models = {name: create_model(name, config) for name in config.chosen_models}
        source, encoded, split = read_and_split(data, config, options, users, progress)
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
            budget=TimeBudget.of(config.time_limit, started), progress=progress,
        )  # fmt: skip
        fitted, timing = learnt.models, learnt.timing
        predictor.models, predictor._members = fitted.models, fitted.members
        predictor.leaderboard, predictor.facts = fitted.rows, predictor.facts | learnt.facts
        if config.refit_full:
            predictor._refit(encoded, progress)
            timing = refit_timing(timing, encoded.histories, progress)
        predictor.forecaster = with_unlisted(timing.forecaster, encoded, predictor.catalog)
        predictor.facts["timing"] = timing.facts
        return predictor

    def _refit(self, encoded: Encoded, progress: Progress) -> None:
        """Fit the members again on the whole log, and answer with its whole catalog."""
        folder = self._run_folder
        self._members = refit_on_all(self._members, encoded, self.config, folder, progress)
        self.catalog, self.histories = encoded.catalog, encoded.histories
        self.models = with_blend(self._members, self.facts.get("blend"))

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
        policy = RepeatPolicy.parse(self.config.repeat)
        return best_offers(
            self.models[name], histories, self.catalog, as_of, k=k, policy=policy, rules=followed
        )

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

    def audience(self, *, as_of: datetime | int | None = None, **asked: Any) -> pl.DataFrame:
        """The users most likely to buy an item, platform or category within some days, best first.

        Args:
            as_of: From when days count (a datetime without a zone is UTC; UTC microseconds); the
                end of the training log if not told.
            asked: Fields of `AudienceRequest`: one of `item`, `platform` and `category`, and
                `within_days`; perhaps `size`, `min_probability`, `exclude`, `holdout_share`, ...

        Returns, raises:
            See `audience_table`. Users who never bought before `as_of` are not in it.
        """
        return audience_table(
            AudienceRequest.of(**asked), model=self.models[self.best_model],
            forecaster=self.forecaster, facts=self.facts, catalog=self.catalog,
            histories=self.histories, as_of=as_of,
        )  # fmt: skip

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
        return evaluate_log(
            data, self.models, self.catalog, self.config, facts=self.facts,
            options=options or self.read_options(), users=users,
        )  # fmt: skip

    def save(self, directory: Path) -> Path:
        """Publish a bundle in `directory`, and remove the checkpoints; gives the new folder."""
        facts, run = apart(self.facts)
        facts |= {"config": self.config.model_dump(mode="json"), "versions": versions()}
        run |= {"created": datetime.now(UTC).isoformat(timespec="seconds")}
        bundle = Bundle(
            catalog=self.catalog, models=self._members, facts=facts, histories=self.histories,
            forecaster=self.forecaster, run=run,
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
            return cls(
                config=PredictorConfig.of(**bundle.facts["config"]),
                catalog=bundle.catalog,
                histories=bundle.histories,
                models=bundle.models,
                facts=together(bundle.facts, bundle.run),
                forecaster=bundle.forecaster,
            )
        except (KeyError, TypeError, ValidationError, ConfigError) as error:
            raise BundleError(
                f"The bundle in {directory} has no usable config or blend: {error}"
            ) from error


def with_blend(models: Mapping[str, Model], weights: Any) -> dict[str, FittedModel]:
    """The models, and their blend if there are weights, as they are stored."""
    if not weights:
        return dict(models)
    return {**models, BLEND: Blend(models, BlendWeights.model_validate(weights))}
