"""Fit when customers buy: members on training, weights on validation, scores on the test.

As the models of items, members are then fitted again, weights kept: on all that lies before the
test, and with `refit_full` on the whole log. Test purchases choose and teach nothing before they
are scored.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from nextbuy.audience.study import ExpectedDays
from nextbuy.data.catalog import Catalog
from nextbuy.data.encoding import Encoded
from nextbuy.data.histories import UNKNOWN, Histories
from nextbuy.data.recoding import index_map
from nextbuy.data.worlds.world import World
from nextbuy.errors import ConfigError, DataError, SplitError, TrainingError
from nextbuy.models.blend import BLEND
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.config import PredictorConfig
from nextbuy.predictor.timing_scores import evenly_spread, timing_scores
from nextbuy.progress import Progress
from nextbuy.splitting.cases import Split
from nextbuy.splitting.temporal import automatic_cutoffs
from nextbuy.timing.amounts import Amounts, item_values
from nextbuy.timing.basket_size import BasketSize
from nextbuy.timing.bg_nbd import BgNbd
from nextbuy.timing.blend import TimingBlend
from nextbuy.timing.events import events_before, observed_until
from nextbuy.timing.forecaster import Forecaster
from nextbuy.timing.mbg_nbd import MbgNbd
from nextbuy.timing.neural import NeuralTiming
from nextbuy.timing.pareto_nbd import ParetoNbd
from nextbuy.timing.protocol import TimingModel
from nextbuy.timing.renewal import Renewal, RenewalConfig
from nextbuy.timing.unlisted import Unlisted
from nextbuy.timing.waits import waits_after

Fit = Callable[[Histories, int, int, float], TimingModel]
MEMBERS: Final[dict[str, Fit]] = {
    "bg-nbd": lambda log, as_of, *_: BgNbd().fit(log, as_of),
    "mbg-nbd": lambda log, as_of, *_: MbgNbd().fit(log, as_of),
    "pareto-nbd": lambda log, as_of, *_: ParetoNbd().fit(log, as_of),
    "neural": lambda log, as_of, _, deadline: NeuralTiming().fit(log, as_of, deadline=deadline),
    "renewal": lambda log, as_of, most_users, _: Renewal(RenewalConfig(most_users=most_users)).fit(
        log, as_of
    ),
}
"""Fitted on the log before a moment; renewal on so many users, a network until a deadline, a moment
of `time.monotonic()`."""

_MOST_USERS: Final = 20_000
"""To fit renewal on, to weigh and to score with, evenly spread."""

_MOST_EVENTS: Final = 100_000
"""Renewal is fitted on fewer users where they have more purchases than that: some seconds."""

_SHARE_OF_TIME: Final = 0.1
_SECONDS: Final = {"neural": 5.0, "renewal": 30.0}
"""What a member needs to be begun at all. A fit of renewal cannot be interrupted: with one inside a
limit of 60 s, training on the Complete Journey took 79 s. The network stops when the time is up."""

_SLIGHT: Final = 0.02
"""A member of less weight costs time in each forecast and changes nothing in it."""

_REASONS: Final = (ConfigError, DataError, TrainingError)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FittedTiming:
    """What came of fitting.

    Attributes:
        forecaster: None if there is nothing to forecast with; the facts have the reason.
        facts: JSON: members, weights, periods, scores, what was left out and why.
        asked: What the blend said on validation, before anything was fitted again.
    """

    forecaster: Forecaster | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    asked: ExpectedDays | None = None


def fit_timing(
    encoded: Encoded,
    split: Split,
    config: PredictorConfig,
    budget: TimeBudget,
    progress: Progress,
    *,
    ask: Callable[[TimingModel], ExpectedDays | None],
    world: World | None = None,
) -> FittedTiming:
    """Fit, weigh, fit again up to the test, and score.

    Args:
        encoded: The whole log.
        split: Its moments are those of the periods, if it is temporal; else they are chosen.
        config: `refit` tells whether members learn from the validation period in the end.
        budget: Under a limit a tenth of what is left of it may be taken, and nothing is fitted
            again.
        progress: Told what is done.
        ask: Asks the weighed blend about validation.
        world: Where the log comes from, if its limit holds.
    """
    progress.about("timing")
    histories = encoded.histories
    if histories.time_kind != "dates":
        return _nothing("time is only an order; forecasts need dates")
    try:
        validation_start, test_start, end = _moments(histories, split)
    except SplitError as error:
        return _nothing(str(error))
    left = (budget.scored - time.monotonic()) * _SHARE_OF_TIME
    members, left_out = _members(histories, validation_start, time.monotonic() + left)
    if not members:
        return _nothing(next(iter(left_out.values())), left_out)
    try:
        blend = _weighed(members, histories, validation_start, test_start)
        asked, learned_until = ask(blend), validation_start
        if config.refit and not budget.is_limited:
            TimingBlend(members).fit(histories, test_start)
            learned_until = test_start
        forecaster, why_no_spend = _forecaster(blend, histories, learned_until)
    except _REASONS as error:
        return _nothing(str(error), left_out)
    facts = {
        "reason": None,
        "weights": blend.weights,
        "hours_of_week": blend.week is not None,
        "left_out": left_out,
        "validation_start": _date(validation_start),
        "test_start": _date(test_start),
        "learned_until": _date(learned_until),
        "observed_until": end,
        "spend": why_no_spend or "gamma-gamma",
        "undetermined": _undetermined(members),
        **timing_scores(
            {BLEND: blend, **members}, encoded, test_start, end, most_users=_MOST_USERS,
            world=world, seed=config.seed,
        ),
    }  # fmt: skip
    return FittedTiming(forecaster=forecaster, facts=facts, asked=asked)


def refit_timing(fitted: FittedTiming, encoded: Encoded, progress: Progress) -> FittedTiming:
    """Fitted again on the whole log, weights kept."""
    if fitted.forecaster is None:
        return fitted
    progress.about("timing, whole log")
    end = int(fitted.facts["observed_until"])
    histories, before = encoded.histories, fitted.forecaster
    forecaster, _ = _forecaster(before.blend.fit(histories, end), histories, end)
    forecaster.amounts = forecaster.amounts or before.amounts
    if isinstance(forecaster.amounts, Amounts) and isinstance(before.amounts, Amounts):
        forecaster.amounts.weights = before.amounts.weights
        if forecaster.amounts.asks_items:
            forecaster.amounts.item_values = item_values(histories, end, len(encoded.catalog))
    return replace(
        fitted, forecaster=forecaster, facts=fitted.facts | {"learned_until": _date(end)}
    )


def with_unlisted(
    forecaster: Forecaster | None, encoded: Encoded, known: Catalog
) -> Forecaster | None:
    """The forecaster with the purchases of the log that a catalog does not know."""
    if forecaster is None:
        return None
    rows = index_map(encoded.catalog, known)[encoded.histories.items] == UNKNOWN
    unlisted = Unlisted.of(encoded.histories, rows) if rows.any() else None
    return Forecaster(forecaster.blend, forecaster.amounts, forecaster.sizes, unlisted)


def forecaster_and_end(
    forecaster: Forecaster | None, facts: Mapping[str, Any], purpose: str
) -> tuple[Forecaster, int]:
    """The forecaster of a predictor with these facts, and the end of its log, UTC microseconds.

    Raises:
        ConfigError: If there is none: what was asked for, `purpose`, cannot be done, and why.
    """
    timing = facts.get("timing") or {}
    if forecaster is None or "observed_until" not in timing:
        why = timing.get("reason") or "it was trained before there were forecasts; train it again"
        raise ConfigError(f"This predictor cannot {purpose}: {why.rstrip('.')}.")
    return forecaster, int(timing["observed_until"])


def _moments(histories: Histories, split: Split) -> tuple[int, int, int]:
    """Start of validation, start of the test, and the end of observation."""
    end = observed_until(histories)
    validation, test = split.validation, split.test
    if split.name == "temporal" and validation.as_of is not None and test.as_of is not None:
        return int(validation.as_of[0]), int(test.as_of[0]), end
    test_start, validation_start = automatic_cutoffs(histories)
    return validation_start, test_start, end


def _members(
    histories: Histories, as_of: int, deadline: float
) -> tuple[dict[str, TimingModel], dict[str, str]]:
    """Those that could be fitted, and why others could not."""
    found: dict[str, TimingModel] = {}
    left_out: dict[str, str] = {}
    counts = events_before(histories, as_of).counts
    each = float(counts.sum()) / max(int((counts > 0).sum()), 1)
    most_users = min(_MOST_USERS, max(int(_MOST_EVENTS / max(each, 1.0)), 1))
    for name, fit in MEMBERS.items():
        if time.monotonic() + _SECONDS.get(name, 0.0) >= deadline:
            left_out[name] = "the time limit left no time for it"
            continue
        try:
            found[name] = fit(histories, as_of, most_users, deadline)
        except _REASONS as error:
            left_out[name] = str(error)
    return found, left_out


def _undetermined(members: Mapping[str, TimingModel]) -> dict[str, list[str]]:
    """Parameters that ran to the edge of what is tried, of each member that has some."""
    found = {name: getattr(model, "maximum", None) for name, model in members.items()}
    return {name: list(each.at_edge) for name, each in found.items() if each and each.at_edge}


def _weighed(
    members: Mapping[str, TimingModel], histories: Histories, validation_start: int, test_start: int
) -> TimingBlend:
    """The blend of the members that matter, weighed on validation."""
    sample = evenly_spread(histories, validation_start, _MOST_USERS)
    waits = waits_after(sample, validation_start, test_start)
    blend = TimingBlend(members).weigh(sample, validation_start, waits)
    weights = blend.weights or {}
    kept = {name: members[name] for name, weight in weights.items() if weight >= _SLIGHT}
    if len(kept) == len(weights):
        return blend
    return TimingBlend(kept).weigh(sample, validation_start, waits)


def _forecaster(
    blend: TimingBlend, histories: Histories, as_of: int
) -> tuple[Forecaster, str | None]:
    """A forecaster of a fitted blend, and why it does not know what a purchase is worth, if so."""
    amounts, reason = _amounts(histories, as_of)
    return Forecaster(blend, amounts, BasketSize.fitted(histories, as_of)), reason


def _amounts(histories: Histories, as_of: int) -> tuple[Amounts | None, str | None]:
    """What a purchase is worth, or why that is not known."""
    if histories.prices is None:
        return None, "the log has no prices"
    try:
        return Amounts.fitted(histories, as_of), None
    except _REASONS as error:
        return None, str(error)


def _nothing(reason: str, left_out: dict[str, str] | None = None) -> FittedTiming:
    return FittedTiming(facts={"reason": reason, "left_out": left_out or {}})


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1e6, tz=UTC).isoformat(timespec="seconds")
