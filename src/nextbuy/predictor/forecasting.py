"""What `Predictor.forecast` answers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from nextbuy.data.histories import Histories, Int64
from nextbuy.data.times import microseconds_of
from nextbuy.models.protocol import FittedModel
from nextbuy.predictor.amount_fit import next_item_values
from nextbuy.predictor.timing_fit import forecaster_and_end
from nextbuy.timing.amounts import Amounts
from nextbuy.timing.events import Float64
from nextbuy.timing.forecaster import Forecaster, ForecastOptions


def forecast_table(
    forecaster: Forecaster | None,
    facts: Mapping[str, Any],
    stored: Histories,
    who: Sequence[str] | Histories | None,
    *,
    as_of: datetime | int | Int64 | None,
    horizon_days: int,
    lifetime_days: int,
    discount: float,
    model: FittedModel,
) -> pl.DataFrame:
    """The answer of `Predictor.forecast`; `model`, of items, is asked where amounts need it.

    Raises:
        ConfigError: If there is no forecaster, with the reason.
    """
    forecaster, end = forecaster_and_end(forecaster, facts, "forecast")
    options = ForecastOptions(
        horizon_days=horizon_days, lifetime_days=lifetime_days, discount=discount
    )
    moments = end if as_of is None else as_of
    moments = microseconds_of(moments) if isinstance(moments, datetime) else moments
    if isinstance(who, Histories):
        known = asked = who
    elif who is None:
        known, asked = stored, forecaster.whole(stored)
    else:
        known, asked = stored.of_users(who), forecaster.whole(stored).of_users(who)
    next_item = next_item_costs(forecaster, model, known, moments)
    return forecaster.table(asked, moments, options, next_item=next_item)


def next_item_costs(
    forecaster: Forecaster, model: FittedModel, known: Histories, as_of: int | Int64
) -> Float64 | None:
    """What users' next items are expected to cost, if the amounts of a forecaster ask for it.

    Args:
        forecaster: Whose amounts.
        model: Of items.
        known: Histories in its catalog.
        as_of: UTC microseconds, one for all or one a user.
    """
    amounts = forecaster.amounts
    if not isinstance(amounts, Amounts) or not amounts.asks_items or known.prices is None:
        return None
    if amounts.item_values is None or known.time_kind != "dates":
        return None
    return next_item_values(model, known, as_of, amounts.item_values)
