"""Fit what a purchase is worth: weights on validation, scores on the test.

Users who buy in a period are asked at its start what their next purchase will be worth, and held
against what came. As everywhere, validation is asked before anything is fitted again, and test
purchases teach nothing.

Legend: U users, V items.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np

from nextbuy.audience.study import sums_over_items
from nextbuy.data.encoding import Encoded
from nextbuy.data.histories import Float32, Histories, Int64
from nextbuy.data.recoding import in_catalog
from nextbuy.errors import DataError, TrainingError
from nextbuy.models.blend import BLEND
from nextbuy.models.protocol import FittedModel
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.timing_fit import FittedTiming
from nextbuy.splitting.cases import Split
from nextbuy.timing.amounts import GAMMA_GAMMA, Amounts, deviance, item_values
from nextbuy.timing.basket_size import BasketSize, items_of_each_event, units_of_each_event
from nextbuy.timing.events import Float64, events_before, observed_until, value_of_each_event

_MOST_USERS, _LEAST_USERS, _MOST_CELLS = 1_000, 300, 3 * 10**7
"""Users of a period: a model of items is asked for a whole row of the catalog of each, so that a
large catalog has fewer."""

_MOST_USERS_IN_A_HURRY: Final = 200
_FEWEST_USERS: Final = 30
"""To weigh with; with fewer Gamma-Gamma stays alone."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Period:
    """Users who bought before a moment and buy after it something of known value.

    Attributes:
        whole: Their purchases, before and after.
        known: Those that the catalog knows.
        start: The moment, UTC microseconds.
        item_values: What a purchase of each item index costs, by what lies before it.
        came: What the next purchase event was worth, [U].
        items: How many purchases (rows) it had, [U].
        units: How many units, [U]; None without quantities.
    """

    whole: Histories
    known: Histories
    start: int
    item_values: Float32
    came: Float64
    items: Float64
    units: Float64 | None

    def next_item(self, model: FittedModel) -> Float64:
        """What the next item of each user is expected to cost, [U]."""
        return next_item_values(model, self.known, self.start, self.item_values)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Spending:
    """Who is asked on the two periods; None where nobody can be.

    Attributes:
        amounts: Fitted on what lies before validation.
        validation: To weigh with.
        test: To score with.
        reason: Why nothing is weighed, if so.
    """

    amounts: Amounts | None = None
    validation: Period | None = None
    test: Period | None = None
    reason: str | None = None

    @classmethod
    def of(cls, encoded: Encoded, split: Split, budget: TimeBudget) -> Self:
        """Under a temporal split; other kinds of split teach models what comes after."""
        if encoded.histories.prices is None:
            return cls(reason="the log has no prices")
        if split.name != "temporal" or split.validation.as_of is None or split.test.as_of is None:
            return cls(reason=f"amounts are weighed under a temporal split, not {split.name}")
        starts = int(split.validation.as_of[0]), int(split.test.as_of[0])
        known = in_catalog(encoded.histories, encoded.catalog, split.catalog)
        most = min(_MOST_USERS, max(_LEAST_USERS, _MOST_CELLS // len(split.catalog)))
        most = min(most, _MOST_USERS_IN_A_HURRY) if budget.is_limited else most
        ends = starts[1], observed_until(encoded.histories)
        validation, test = (
            _period(
                encoded.histories, known, len(split.catalog),
                start=start, end=end, most_users=most,
            )
            for start, end in zip(starts, ends, strict=True)
        )  # fmt: skip
        if len(validation.came) < _FEWEST_USERS:
            reason = f"{len(validation.came)} users with known prices bought in the validation"
            return cls(reason=f"{reason}; to weigh, {_FEWEST_USERS} are needed")
        try:
            amounts = Amounts.fitted(encoded.histories, starts[0])
        except (DataError, TrainingError) as error:
            return cls(reason=str(error))
        return cls(amounts=amounts, validation=validation, test=test if len(test.came) else None)

    def ask_model(self, model: FittedModel) -> Float64 | None:
        """What users' next items cost, on validation."""
        return None if self.validation is None else self.validation.next_item(model)

    def weighed(
        self,
        timing: FittedTiming,
        next_item: Float64 | None,
        *,
        model: FittedModel,
        budget: TimeBudget,
    ) -> FittedTiming:
        """The same forecaster with weighed amounts, and facts about them.

        Args:
            timing: Fitted; its amounts get their weights here.
            next_item: What `ask_model` gave.
            model: Of items, fitted for the test.
            budget: The test is not asked once its time is up.
        """
        early, forecaster, period = self.amounts, timing.forecaster, self.validation
        if forecaster is None or not isinstance(forecaster.amounts, Amounts):
            return timing
        if early is None or period is None:
            return replace(timing, facts=timing.facts | {"amount": {"reason": self.reason}})
        estimates = early.estimates(period.whole, period.start, next_item)
        early.weigh(estimates, period.came)
        final, test = forecaster.amounts, self.test
        final.weights = early.weights
        if final.asks_items:
            refitted = timing.facts["learned_until"] == timing.facts["test_start"]
            final.item_values = (test if refitted and test is not None else period).item_values
        facts: dict[str, Any] = {
            "reason": None,
            "weights": early.weights,
            "validation": scores(early, estimates, period),
            "test": None,
        }
        if test is not None and time.monotonic() < budget.scored:
            asked = final.estimates(test.whole, test.start, test.next_item(model))
            facts["test"] = scores(final, asked, test)
        alone = final.weights.get(GAMMA_GAMMA, 0.0) == 1.0
        spend = GAMMA_GAMMA if alone else BLEND
        return replace(timing, facts=timing.facts | {"amount": facts, "spend": spend})


def next_item_values(
    model: FittedModel, known: Histories, as_of: int | Int64, values_V: Float32
) -> Float64:
    """sum_i P(next item is i) w_i, [U]: exact, some users at a time."""
    return sums_over_items(model, known, as_of, values_V[:, None])[:, 0]


def _period(
    whole: Histories,
    known: Histories,
    num_items: int,
    *,
    start: int,
    end: int,
    most_users: int,
) -> Period:
    """Of at most so many users, evenly spread."""
    later = whole.keep((whole.times >= start) & (whole.times < end))
    events = events_before(later, end)
    values_E = value_of_each_event(later, events)
    has_next = events.counts > 0
    firsts = events.offsets[:-1][has_next]
    users = np.flatnonzero(has_next)
    with np.errstate(invalid="ignore"):
        fits = (values_E[firsts] > 0) & (events_before(whole, start).counts[users] > 0)
    users, firsts = users[fits], firsts[fits]
    if len(users) > most_users:
        some = np.linspace(0, len(users) - 1, most_users).astype(np.int64)
        users, firsts = users[some], firsts[some]
    units_E = units_of_each_event(later, events)
    return Period(
        whole=whole.take(users),
        known=known.take(users),
        start=start,
        item_values=item_values(known, start, num_items),
        came=values_E[firsts],
        items=items_of_each_event(later, events)[firsts],
        units=None if units_E is None else units_E[firsts],
    )


def scores(
    amounts: Amounts, estimates: Mapping[str, Float64], period: Period
) -> dict[str, dict[str, float]]:
    """Of each member and the blend, and of the size of the basket."""
    blend = amounts.blended(estimates)
    found = {name: errors(said, period.came) for name, said in {**estimates, BLEND: blend}.items()}
    sizes: BasketSize = amounts.sizes
    found["items"] = errors(sizes.expected_items(period.whole, period.start), period.items)
    units_U = sizes.expected_units(period.whole, period.start)
    if units_U is not None and period.units is not None:
        found["units"] = errors(units_U, period.units)
    return found


def errors(said_U: Float64, came_U: Float64) -> dict[str, float]:
    """What was said of users beside what came; `said` and `came` are totals."""
    return {
        "num_users": len(came_U),
        "deviance": deviance(said_U, came_U),
        "mae": float(np.abs(said_U - came_U).mean()),
        "rmse": float(np.sqrt(((said_U - came_U) ** 2).mean())),
        "said": float(said_U.sum()),
        "came": float(came_U.sum()),
    }
