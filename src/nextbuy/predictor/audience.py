"""Who will buy a target: the users most likely to, within limits, with some held out to compare."""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nextbuy import columns
from nextbuy.audience.calibration import Calibration, Views
from nextbuy.audience.chances import basket_sizes, buying_chances, day_chances
from nextbuy.audience.own_shares import TargetPurchases, population_share, shrunk
from nextbuy.audience.study import sums_over_items
from nextbuy.audience.target import Target
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories, Int64
from nextbuy.data.times import microseconds_of
from nextbuy.errors import BundleError, ConfigError
from nextbuy.models.protocol import FittedModel
from nextbuy.predictor.config import checked
from nextbuy.predictor.timing_fit import forecaster_and_end
from nextbuy.seeding import stream_seed
from nextbuy.timing.events import Float64, events_before
from nextbuy.timing.forecaster import LONGEST, Forecaster

TARGET_GROUP: Final = "target"
HOLDOUT_GROUP: Final = "holdout"
COLUMNS: Final = (
    columns.USER,
    columns.RANK,
    columns.PROBABILITY,
    "expected_purchases",
    "expected_value",
    "group",
)

_CHUNK: Final = 4_096


class AudienceRequest(BaseModel):
    """What is asked for; unknown keys are errors. One of `item`, `platform` and `category`.

    `size` counts the holdout group, which is drawn from those who would have been addressed: who is
    in it depends on the seed and the user's id alone, so that a user stays in it from one campaign
    to the next.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: str | None = None
    platform: str | None = None
    category: str | None = None
    within_days: int = Field(ge=1, le=LONGEST)
    size: int | None = Field(default=None, ge=1, description="most users; None is no limit")
    min_probability: float = Field(default=0.0, ge=0, le=1)
    min_expected_value: float | None = Field(default=None, ge=0, description="money")
    exclude: frozenset[str] = Field(default=frozenset(), description="ids of users to leave out")
    holdout_share: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, description="of the holdout group")

    @classmethod
    def of(cls, **asked: Any) -> Self:
        """A request from plain values.

        Raises:
            ConfigError: In one line, for any value or key that is wrong.
        """
        return checked(cls, asked, "audience, ")

    @property
    def target(self) -> Target:
        """What is to be bought."""
        return Target.of(item=self.item, platform=self.platform, category=self.category)


def audience_table(
    request: AudienceRequest,
    *,
    model: FittedModel,
    forecaster: Forecaster | None,
    facts: Mapping[str, Any],
    catalog: Catalog,
    histories: Histories,
    as_of: datetime | int | None,
    progress: Callable[[float], None] = lambda _: None,
) -> pl.DataFrame:
    """The answer of `Predictor.audience`.

    Users are asked some thousand at a time; what is held of each are a few numbers.

    Args:
        request: What is asked for.
        model: Of what is bought next.
        forecaster: Of when.
        facts: Of the predictor.
        catalog: Of the model.
        histories: The stored ones, in that catalog.
        as_of: The moment of the question; the end of the log if not told.
        progress: Told the share of the users that were asked about; what it raises ends the work.

    Returns:
        Columns `user_id, rank, probability, expected_purchases, expected_value, group`.

    Raises:
        ConfigError: If there is no such target, or nothing to tell when users buy.
        BundleError: If what was learnt of chances is not what it says.
    """
    members_V = request.target.members(catalog)
    found, end = forecaster_and_end(forecaster, facts, "name audiences")
    moment = end if as_of is None else as_of
    moment = microseconds_of(moment) if isinstance(moment, datetime) else moment
    whole = found.whole(histories)
    asked = np.flatnonzero(events_before(whole, moment).counts > 0)
    if request.exclude:
        ids = histories.user_ids.gather(asked)
        asked = asked[~ids.is_in(list(request.exclude)).to_numpy()]
    table = _chances(
        request, members_V, asked, model=model, timing=found, whole=whole, known=histories,
        catalog=catalog, as_of=moment, learnt=calibration_of(facts), progress=progress,
    )  # fmt: skip
    return _limited(table, request)


def calibration_of(facts: Mapping[str, Any]) -> Calibration:
    """What was learnt of chances; nothing in bundles that are older than audiences.

    Raises:
        BundleError: If the facts hold something else.
    """
    learnt = (facts.get("audience") or {}).get("calibration") or {}
    try:
        return Calibration.model_validate(learnt)
    except ValidationError as error:
        raise BundleError(
            f"What the bundle holds of audiences is no calibration: {error}"
        ) from error


def _chances(
    request: AudienceRequest,
    members_V: NDArray[np.bool_],
    users: Int64,
    *,
    model: FittedModel,
    timing: Forecaster,
    whole: Histories,
    known: Histories,
    catalog: Catalog,
    as_of: int,
    learnt: Calibration,
    progress: Callable[[float], None],
) -> pl.DataFrame:
    """Of each user whether they buy, how often and for how much; unsorted.

    `expected_purchases` are days with a purchase of the target: as many, given any, as the formula
    says. `expected_value` is their number times the price that the next purchase of the target is
    expected to have.
    """
    days = float(request.within_days)
    sizes = basket_sizes(whole, as_of)
    own, everybody = TargetPurchases.of(known, as_of, members_V).shares(days, learnt.half_life)
    population = population_share(own, everybody)
    own = shrunk(own, everybody, population)
    weights = _weights(members_V, catalog)
    columns_found: list[tuple[Float64, Float64, Float64]] = []
    for start in range(0, max(len(users), 1), _CHUNK):
        some = users[start : start + _CHUNK]
        outlook = timing.blend.outlook(whole.take(some), as_of)
        within = outlook.probability_within(days)[:, 0]
        expected = outlook.expected_purchases(days)[:, 0]
        sums = sums_over_items(model, known.take(some), as_of, weights)
        per_day = day_chances(sums[:, 0], sizes[some])
        formula = buying_chances(within, expected, per_day)
        views = Views(
            formula=formula, own=own[some], population=np.full(len(some), population),
            days=np.full(len(some), days),
        )  # fmt: skip
        told = learnt.probabilities(views)
        times = np.maximum(_ratio(np.maximum(expected, within) * per_day, formula), 1.0)
        price = np.where(sums[:, 1] > 0, _ratio(sums[:, 2], sums[:, 1]), np.nan)
        columns_found.append((told, told * times, told * times * price))
        progress(min(start + _CHUNK, len(users)) / max(len(users), 1))
    probability, purchases, value = (
        np.concatenate(part) for part in zip(*columns_found, strict=True)
    )
    return pl.DataFrame(
        {
            columns.USER: known.user_ids.gather(users),
            columns.PROBABILITY: probability,
            "expected_purchases": purchases,
            "expected_value": pl.Series(value).fill_nan(None),
        }
    )


def _weights(members_V: NDArray[np.bool_], catalog: Catalog) -> NDArray[np.float32]:
    """Of each item index, [V + 1, 3]: in the target; in it and of known price; and that price."""
    prices_V = catalog.prices
    priced_V = members_V & ~np.isnan(prices_V)
    return np.stack([members_V, priced_V, np.where(priced_V, prices_V, 0.0)], axis=1).astype(
        np.float32
    )


def _ratio(value: Float64, of: Float64) -> Float64:
    return np.divide(value, of, out=np.zeros_like(value), where=of > 0)


def _limited(table: pl.DataFrame, request: AudienceRequest) -> pl.DataFrame:
    """Best first, ties in the order of the log, within the limits."""
    table = table.filter(pl.col(columns.PROBABILITY) >= request.min_probability)
    if request.min_expected_value is not None:
        if table.height and table["expected_value"].null_count() == table.height:
            raise ConfigError(
                f"An expected value of at least {request.min_expected_value} was asked for, but "
                "the price of what was asked for is not known. Limit by probability instead."
            )
        table = table.filter(pl.col("expected_value") >= request.min_expected_value)
    table = table.sort(columns.PROBABILITY, descending=True, maintain_order=True)
    table = table if request.size is None else table.head(request.size)
    held = held_out(table[columns.USER], request.holdout_share, request.seed)
    return table.with_columns(
        pl.int_range(1, pl.len() + 1).alias(columns.RANK),
        pl.when(held).then(pl.lit(HOLDOUT_GROUP)).otherwise(pl.lit(TARGET_GROUP)).alias("group"),
    ).select(COLUMNS)


def held_out(user_ids: pl.Series, share: float, seed: int) -> pl.Series:
    """Which users are not addressed, so that it can be seen what addressing the others did.

    A user is held out if a number that seed and id alone decide, uniform in [0, 1), is below the
    share. So about that share of any users is, and the same ones whoever else is asked about.

    Args:
        user_ids: Ids.
        share: In [0, 1).
        seed: Another seed, another group.
    """
    bar = math.floor(share * 2**63)
    return pl.Series(
        [stream_seed(seed, "holdout", user) < bar for user in user_ids], dtype=pl.Boolean
    )
