"""Fit every model, blend them, fit them again up to the test, and score each on it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from nextbuy.data.catalog import Catalog
from nextbuy.data.sources import Source
from nextbuy.data.worlds.world import World
from nextbuy.errors import MemoryIsShortError, TimeIsUpError, TrainingError
from nextbuy.evaluation.comparison import Difference, compare
from nextbuy.evaluation.evaluate import Evaluation, evaluate
from nextbuy.memory import MIB
from nextbuy.metrics.calibration import reliability
from nextbuy.metrics.ranking import Float64, mean
from nextbuy.models.blend import BLEND, Blend, BlendWeights
from nextbuy.models.first_weights import Start
from nextbuy.models.protocol import FitOptions, FittedModel, Model, RanksTargets, Workers
from nextbuy.models.sharing import fit_model
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.cadence_fit import FittedCadence, cadences_of
from nextbuy.predictor.config import PredictorConfig
from nextbuy.predictor.refit import refit
from nextbuy.progress import Progress
from nextbuy.splitting.cases import Cases, Split
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.timing.item_cadence import ItemCadence

_MOST_CELLS: Final = 10**10
_MOST_CELLS_OF_ROWS: Final = 10**9
_FEWEST_CASES: Final = 1_000
"""So many cases times items of the catalog are scored, evenly spread, but some cases in any case:
10,000 of a million items, which leaves an error of half a point at most. Fewer where a model makes
a row of all items for each, some tens of milliseconds at that size."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LeaderboardRow:
    """One model's scores.

    Attributes:
        model: Its name.
        weight: Its overall share of the blend; None for the blend itself and where there is none.
        fit_seconds: What fitting it took, both times; for the blend, weighing its members.
        validation: Scores on the cases that choices were made on.
        test: Scores on the cases that were looked at once.
        minus_best: Test scores minus those of the model that is best on validation, case by case;
            empty for that model itself.
    """

    model: str
    weight: float | None
    fit_seconds: float
    validation: Evaluation
    test: Evaluation
    minus_best: Mapping[str, Difference] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "model": self.model,
            "weight": self.weight,
            "fit_seconds": round(self.fit_seconds, 2),
            "validation": dict(self.validation.metrics),
            "test": dict(self.test.metrics),
            "minus_best": {name: found.as_dict() for name, found in self.minus_best.items()},
            "intervals": {k: list(v) for k, v in self.test.intervals.items()},
        }


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Asked:
    """What a model said of validation; None where it was not asked.

    Attributes:
        shares: Probabilities of targets of audiences.
        next_item: What each user's next item costs.
    """

    shares: Float64 | None = None
    next_item: Float64 | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fitted:
    """What came of fitting.

    Attributes:
        members: The models that were scored on the test, by name.
        models: The same and their blend, if there is one.
        rows: Their scores.
        weights: Of the blend, or None.
        skipped: Models that there was no time or no memory for, with the reason.
        scored_share: Share of the cases that were scored; below 1 under a time limit or where the
            catalog is large.
        refitted: Whether the members learnt from everything before the test.
        asked: What the best on validation said of it, before it learnt from that.
        cadence: Clocks of the items, learnt from what the members learnt from.
    """

    members: dict[str, Model]
    models: dict[str, FittedModel]
    rows: list[LeaderboardRow]
    weights: BlendWeights | None
    skipped: dict[str, str]
    scored_share: float
    refitted: bool
    asked: Asked
    cadence: FittedCadence


def fit_and_score(
    models: Mapping[str, Model],
    split: Split,
    config: PredictorConfig,
    *,
    run_folder: Path | None,
    world: World | None,
    progress: Progress,
    budget: TimeBudget = TimeBudget(),  # noqa: B008  (frozen)
    ask: Callable[[FittedModel], Asked] = lambda _: Asked(),
    workers: Workers | None = None,
    starts: Mapping[str, Start] = MappingProxyType({}),
) -> Fitted:
    """Fit the models one after the other, then blend them if there are several.

    Where the split says what lies before the test, the members are then fitted again on all of it,
    with every choice kept: validation scores are of the first fit, test scores of the second. A
    time limit leaves no room for that.

    Args:
        models: Not fitted yet.
        split: Learn from its training histories, choose on its validation cases.
        config: Of the predictor.
        run_folder: For checkpoints, or None.
        world: Where the cases come from, if its limit holds.
        progress: Told about the long parts.
        budget: Of time.
        ask: Asks the best model about validation.
        workers: Fit the networks; None fits them here.
        starts: Of networks that go on from what they were, in both fits.

    Raises:
        TrainingError: If there was no time or memory for any model.
    """
    options = replace(_options(config, run_folder, progress, budget), workers=workers)
    refitted = config.refit and not budget.is_limited and split.before_test is not None
    policy = RepeatPolicy.parse(config.repeat)
    early, final = cadences_of(split, policy, budget, refitted=refitted)
    members, seconds, skipped = _fit_each(models, split, options, starts)
    fitted: dict[str, FittedModel] = {**members}
    share = _scored_share(fitted, split, budget)
    split = _thinned(split, budget, share)
    weights: BlendWeights | None = None
    if config.blend and len(members) > 1:
        blend, seconds[BLEND] = _blended(members, split, progress)
        weights, fitted[BLEND] = blend.weights, blend
    validation = _score(fitted, split, config, policy.by(early.cadence))
    asked = ask(fitted[min(validation, key=lambda name: validation[name].metrics["loss"])])
    if refitted:
        members = _fit_again(members, seconds, split, options, goes_on=bool(starts))
        fitted = {**members} if weights is None else {**members, BLEND: Blend(members, weights)}
    test = {
        name: _score_test(model, split, config, final.cadence, world=world, progress=progress)
        for name, model in fitted.items()
    }
    rows = _rows(test, validation, {} if weights is None else weights.overall(), seconds)
    return Fitted(
        members=members, models=fitted, rows=_compared(rows, config.seed), weights=weights,
        skipped=skipped, scored_share=share, refitted=refitted, asked=asked, cadence=final,
    )  # fmt: skip


def _rows(
    test: Mapping[str, Evaluation],
    validation: Mapping[str, Evaluation],
    shares: Mapping[str, float],
    seconds: Mapping[str, float],
) -> list[LeaderboardRow]:
    return [
        LeaderboardRow(
            model=name, weight=shares.get(name), fit_seconds=seconds[name],
            validation=validation[name], test=found,
        )
        for name, found in test.items()
    ]  # fmt: skip


def _options(
    config: PredictorConfig, run_folder: Path | None, progress: Progress, budget: TimeBudget
) -> FitOptions:
    return FitOptions(
        seed=config.seed, epochs=config.epochs, run_folder=run_folder, progress=progress,
        deadline=budget.fitted if budget.is_limited else None,
        memory_limit=None if config.memory_limit is None else int(config.memory_limit * MIB),
    )  # fmt: skip


def _scored_share(fitted: Mapping[str, FittedModel], split: Split, budget: TimeBudget) -> float:
    """Which share of the cases is scored, in (0, 1]: what time and the size of the catalog leave
    room for."""
    in_time = budget.share_of_cases(fitted, split.validation, split.test, split.catalog)
    by_rows = not all(isinstance(model, RanksTargets) for model in fitted.values())
    cells = _MOST_CELLS_OF_ROWS if by_rows else _MOST_CELLS
    most = max(_FEWEST_CASES, cells // len(split.catalog))
    return min(in_time, most / max(len(split.validation), len(split.test), most))


def _thinned(split: Split, budget: TimeBudget, share: float) -> Split:
    """The split with the cases that there is time for."""
    return replace(
        split,
        validation=budget.cases(split.validation, share),
        test=budget.cases(split.test, share),
    )


def _blended(members: Mapping[str, Model], split: Split, progress: Progress) -> tuple[Blend, float]:
    """The blend of the members, and the seconds that weighing them took."""
    progress.about(BLEND)
    started = time.monotonic()
    blend = Blend.of(members, split.validation, progress)
    return blend, time.monotonic() - started


def _fit_again(
    members: Mapping[str, Model],
    seconds: dict[str, float],
    split: Split,
    options: FitOptions,
    *,
    goes_on: bool,
) -> dict[str, Model]:
    """The members, fitted on all that lies before the test; adds the seconds that it took."""
    assert split.before_test is not None, "the caller asks"  # noqa: S101
    options = replace(options, memory_limit=None)  # what was fitted once fits again
    found, more = refit(
        members, split.before_test, split.catalog, options, stage="before-test",
        known=split.catalog if goes_on else None, since=split.validation.since,
    )  # fmt: skip
    for name, taken in more.items():
        seconds[name] += taken
    return found


def _fit_each(
    models: Mapping[str, Model],
    split: Split,
    options: FitOptions,
    starts: Mapping[str, Start],
) -> tuple[dict[str, Model], dict[str, float], dict[str, str]]:
    """The models that were fitted in time, the seconds of each, and why others were not."""
    seconds: dict[str, float] = {}
    members: dict[str, Model] = {}
    skipped: dict[str, str] = {}
    for name, model in models.items():
        options.progress.about(name)
        folder = None if options.run_folder is None else options.run_folder / name
        started = time.monotonic()
        try:
            options.check_time()
            mine = replace(options, run_folder=folder, start=starts.get(name))
            members[name] = fit_model(model, split.train, split.validation, split.catalog, mine)
        except (TimeIsUpError, MemoryIsShortError) as error:
            skipped[name] = str(error)
        seconds[name] = time.monotonic() - started
    if not members:
        name, reason = next(iter(skipped.items()))
        raise TrainingError(
            f"The limits leave no room for any model; {name} was first: {reason} "
            "Raise the limit, or name smaller models."
        )
    return members, seconds, skipped


def _compared(rows: list[LeaderboardRow], seed: int) -> list[LeaderboardRow]:
    """The same rows, each held against the best on validation."""
    best = min(rows, key=lambda row: row.validation.metrics["loss"])
    return [
        row if row is best else replace(row, minus_best=compare(row.test, best.test, seed=seed))
        for row in rows
    ]


def _score(
    fitted: Mapping[str, FittedModel], split: Split, config: PredictorConfig, policy: RepeatPolicy
) -> dict[str, Evaluation]:
    """Scores for choices, on validation: without intervals."""
    return {
        name: evaluate(
            model, split.validation, split.catalog,
            repeat=policy, rules=config.rules, num_resamples=0,
        )
        for name, model in fitted.items()
    }  # fmt: skip


def _score_test(
    model: FittedModel,
    split: Split,
    config: PredictorConfig,
    cadence: ItemCadence | None,
    *,
    world: World | None,
    progress: Progress,
) -> Evaluation:
    progress.about(model.name)
    policy = RepeatPolicy.parse(config.repeat).by(cadence)
    test = evaluate(
        model, split.test, split.catalog, repeat=policy, rules=config.rules, seed=config.seed,
        progress=progress,
    )  # fmt: skip
    if world is not None:
        truth = world.probabilities_of(test.first_offers, split.test, split.catalog)
        test.metrics["expected_accuracy"] = mean(truth)
        test.metrics["expected_ece"] = reliability(test.confidence, truth).ece
    return test


def evaluate_all(
    models: Mapping[str, FittedModel],
    cases: Cases,
    catalog: Catalog,
    config: PredictorConfig,
    cadence: ItemCadence | None,
) -> dict[str, Evaluation]:
    """Score models as the config says: repeat policy (with the clocks of items), rules, seed."""
    policy = RepeatPolicy.parse(config.repeat).by(cadence)
    return {
        name: evaluate(model, cases, catalog, repeat=policy, rules=config.rules, seed=config.seed)
        for name, model in models.items()
    }


def limited_world(source: Source, config: PredictorConfig) -> World | None:
    """The world that the data come from, if its limit holds for what is asked."""
    if config.level != "item" or config.repeat != "allow" or config.rules:
        return None
    return source.world
