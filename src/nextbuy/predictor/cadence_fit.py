"""When items are due again: clocks beside the models, and the table of what is due."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import polars as pl

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories, Int64
from nextbuy.data.times import microseconds_of
from nextbuy.errors import ConfigError, DataError
from nextbuy.predictor.budget import TimeBudget
from nextbuy.splitting.cases import Cases, Split
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.timing.events import observed_until
from nextbuy.timing.forecaster import LONGEST
from nextbuy.timing.item_cadence import ItemCadence
from nextbuy.timing.item_clocks import ItemClocks
from nextbuy.timing.item_gaps import Float64

_SECONDS: Final = 60.0
"""A fit cannot be interrupted; on the products of the Complete Journey it takes ten seconds, which
should be a small part of what is left for all."""

_QUANTILES: Final = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FittedCadence:
    """What came of fitting.

    Attributes:
        cadence: None if there is nothing to learn from; the facts have the reason.
        facts: JSON: the reason, or what all items share.
    """

    cadence: ItemCadence | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def fit_cadence(histories: Histories, catalog: Catalog, as_of: int | Int64) -> FittedCadence:
    """The clocks of the items, or why there are none."""
    if histories.time_kind != "dates":
        return _nothing("time is only an order; what is due needs dates")
    try:
        cadence = ItemCadence().fit(histories, catalog, as_of)
    except DataError as error:
        return _nothing(str(error))
    shared = {} if cadence.parameters is None else cadence.parameters.model_dump(mode="json")
    return FittedCadence(cadence=cadence, facts={"reason": None, **shared})


def cadences_of(
    split: Split, policy: RepeatPolicy, budget: TimeBudget, *, refitted: bool
) -> tuple[FittedCadence, FittedCadence]:
    """The clocks for validation, and those for the test and afterwards.

    As the models, those for validation know the training histories, those for the test also the
    validation period if models are fitted again on it. Only a policy by clocks needs both: else
    they are the same, and under a short time limit there are none.
    """
    needed = policy.kind == "own"
    if not needed and time.monotonic() + _SECONDS >= budget.fitted:
        nothing = _nothing("the time limit left no time for it")
        return nothing, nothing
    later = split.before_test if refitted else None
    if later is None:
        only = fit_cadence(
            split.train, split.catalog, _end_of(split, split.train, split.validation)
        )
        return only, only
    final = fit_cadence(later, split.catalog, _end_of(split, later, split.test))
    if not needed:
        return final, final
    first = fit_cadence(split.train, split.catalog, _end_of(split, split.train, split.validation))
    return first, final


def refit_cadence(histories: Histories, catalog: Catalog) -> FittedCadence:
    """The clocks as the whole log tells them."""
    return fit_cadence(histories, catalog, observed_until(histories))


def moments_of(facts: Mapping[str, Any], stored: Histories, asked: Histories) -> Int64 | None:
    """When a question is asked that names no moment, one a user: at the end of the log, or, of a
    raw history that goes on after it, right after its last purchase. None where time is only an
    order."""
    if asked.time_kind != "dates":
        return None
    end = (facts.get("timing") or {}).get("observed_until")
    end = observed_until(stored) if end is None else int(end)
    moments = np.full(len(asked), end, dtype=np.int64)
    bought = np.flatnonzero(asked.lengths)
    last = asked.times[asked.offsets[bought + 1] - 1]
    moments[bought] = np.maximum(moments[bought], last + 1)
    return moments


def due_table(
    cadence: ItemCadence | None,
    facts: Mapping[str, Any],
    catalog: Catalog,
    asked: Histories,
    as_of: datetime | int | Int64 | None,
    *,
    within_days: float,
    k: int,
) -> pl.DataFrame:
    """Own items of each user, the most probable first.

    Only purchases before `as_of` count. Days are those of the calendar (UTC).

    Returns:
        `user_id, item_id, platform, category`; `times_bought`; `days_since_last`;
        `typical_gap_days`, half of this user's gaps for the item are shorter; `p_due_now`, share of
        the gaps that would have ended by now; `days_until_due_p10`, `_p50` and `_p90`, days by
        which the item has been bought again with that probability, if it ever is;
        `p_due_within`, the probability that it is bought again within `within_days`, never again
        included. Nothing of a user without purchases.

    Raises:
        ConfigError: If there are no clocks, with the reason, or a number is out of its range.
    """
    if cadence is None:
        told = facts.get("cadence") or {}
        why = told.get("reason") or "it was trained before items had clocks; train it again"
        raise ConfigError(f"This predictor cannot tell what is due: {why.rstrip('.')}.")
    if as_of is None:
        raise ConfigError("What is due needs dates, and these purchases have only an order.")
    if not 0 < within_days <= LONGEST or k < 1:
        raise ConfigError(
            f"What is due within {within_days} days was asked, at most {k} items a user. Days are "
            f"more than 0 and at most {LONGEST}, items at least 1."
        )
    moments = microseconds_of(as_of) if isinstance(as_of, datetime) else as_of
    clocks = cadence.clocks(asked, moments)
    p_P = clocks.probability_within(within_days)[:, 0]
    order = np.lexsort((clocks.gaps.items, -p_P, clocks.gaps.owners))
    owners = clocks.gaps.owners[order]
    first = np.searchsorted(owners, owners)
    best = order[np.arange(len(order)) - first < k]
    return _due_rows(clocks.take(best), catalog, asked, p_P[best])


def _due_rows(
    clocks: ItemClocks, catalog: Catalog, asked: Histories, p_within_P: Float64
) -> pl.DataFrame:
    days_PQ = clocks.days_until(_QUANTILES)
    values = {
        "times_bought": clocks.gaps.purchases,
        "days_since_last": clocks.gaps.days_since,
        "typical_gap_days": clocks.typical_days(),
        "p_due_now": clocks.p_due(),
        **{f"days_until_due_p{q * 100:.0f}": days_PQ[:, n] for n, q in enumerate(_QUANTILES)},
        "p_due_within": p_within_P,
    }
    users = asked.user_ids.gather(clocks.gaps.owners).alias(columns.USER)
    return pl.concat(
        [users.to_frame(), catalog.ids(clocks.gaps.items), pl.DataFrame(values)], how="horizontal"
    )


def _end_of(split: Split, histories: Histories, cases: Cases) -> int | Int64:
    """When observation of these histories ends: where the cases of a split in time begin, else
    after each user's last purchase, since what follows was taken away user by user."""
    if split.name == "temporal" and cases.as_of is not None:
        return int(cases.as_of[0])
    ends = np.zeros(len(histories), dtype=np.int64)
    bought = np.flatnonzero(histories.lengths)
    ends[bought] = histories.times[histories.offsets[bought + 1] - 1] + 1
    return ends


def _nothing(reason: str) -> FittedCadence:
    return FittedCadence(facts={"reason": reason})
