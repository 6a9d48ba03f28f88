"""What a fitted predictor answers: what, when, for how much, and who."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories, Int64
from nextbuy.data.options import ReadOptions
from nextbuy.data.recoding import in_catalog
from nextbuy.data.sources import load_source
from nextbuy.errors import ConfigError
from nextbuy.models.blend import BLEND, Blend, BlendWeights
from nextbuy.models.protocol import FittedModel, Model
from nextbuy.predictor.answers import Moment, best_offers
from nextbuy.predictor.audience import AudienceRequest, audience_table
from nextbuy.predictor.cadence_fit import due_table, moments_of
from nextbuy.predictor.config import PredictorConfig
from nextbuy.predictor.forecasting import forecast_table
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.splitting.rules import Rules
from nextbuy.timing.forecaster import Forecaster
from nextbuy.timing.item_cadence import ItemCadence


class Answering:
    """Catalog, histories and fitted models, and the questions that they answer."""

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

    @property
    def best_model(self) -> str:
        """The model with the lowest loss on validation: the blend, if there is one."""
        rows = self.facts["leaderboard"]
        return str(min(rows, key=lambda row: row["validation"]["loss"])["model"])

    def named_model(self, name: str | None) -> str:
        """The name itself, or that of the best model if there is none.

        Raises:
            ConfigError: If there is no such model.
        """
        name = name or self.best_model
        if name not in self.models:
            raise ConfigError(f"No model {name!r} here; there is {', '.join(self.models)}.")
        return name

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
        name = self.named_model(model)
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
        lifetime_days: int = 365,
        discount: float = 0.1,
    ) -> pl.DataFrame:
        """When users buy next, how often and for how much, one row a user.

        Args:
            who: As for `predict`; everybody in the training log if not told.
            as_of: The moment from which days count, one for all (a datetime without a zone is UTC)
                or, in UTC microseconds, one a user; the end of the training log if not told.
            horizon_days: And `lifetime_days` and `discount`: see `ForecastOptions`.

        Returns:
            See `Forecaster.table`; only purchases before `as_of` count.

        Raises:
            ConfigError: If there is nothing to forecast with, as without dates, with the reason.
        """
        return forecast_table(
            self.forecaster, self.facts, self.histories, who, as_of=as_of,
            horizon_days=horizon_days, lifetime_days=lifetime_days, discount=discount,
            model=self.models[self.best_model],
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
        asked = self.histories if who is None else who
        asked = asked if isinstance(asked, Histories) else self.histories_of(asked)
        moments = moments_of(self.facts, self.histories, asked) if as_of is None else as_of
        return due_table(
            self.cadence, self.facts, self.catalog, asked, moments, within_days=within_days, k=k
        )

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
        source = load_source(data, options=options or self.read_options())
        encoded = source.encoded(self.config.level)
        histories = in_catalog(encoded.histories, encoded.catalog, self.catalog)
        return histories, encoded.histories.num_purchases - histories.num_purchases

    def read_options(self) -> ReadOptions:
        """How the training log was read."""
        return ReadOptions(**self.facts["read_options"])


def with_blend(models: Mapping[str, Model], weights: Any) -> dict[str, FittedModel]:
    """The models, and their blend if there are weights, as they are stored."""
    if not weights:
        return dict(models)
    return {**models, BLEND: Blend(models, BlendWeights.model_validate(weights))}
