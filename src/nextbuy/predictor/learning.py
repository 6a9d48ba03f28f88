"""What is learnt from a split: what is bought, when, and what a chance to buy is worth."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nextbuy.data.catalog import Catalog
from nextbuy.data.encoding import Encoded
from nextbuy.data.histories import Histories
from nextbuy.data.options import ReadOptions
from nextbuy.data.sources import Source, load_source
from nextbuy.evaluation.evaluate import Evaluation
from nextbuy.models.first_weights import Start
from nextbuy.models.protocol import FittedModel, Model, Workers
from nextbuy.predictor.amount_fit import Spending
from nextbuy.predictor.audience_fit import Studies
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.config import PredictorConfig, SplitName
from nextbuy.predictor.facts import results_facts
from nextbuy.predictor.fitting import Asked, Fitted, evaluate_all, fit_and_score, limited_world
from nextbuy.predictor.refit import refuse_seen
from nextbuy.predictor.timing_fit import FittedTiming, fit_timing
from nextbuy.progress import Progress
from nextbuy.splitting.cases import Split
from nextbuy.splitting.choice import choose_split
from nextbuy.splitting.temporal import split_after, split_since
from nextbuy.timing.item_cadence import ItemCadence
from nextbuy.training.checkpoint import run_lock


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Learnt:
    """What came of it.

    Attributes:
        models: Of what is bought.
        timing: Of when.
        facts: How good they are, and what was learnt of chances to buy: JSON.
    """

    models: Fitted
    timing: FittedTiming
    facts: dict[str, Any]


def read_and_split(
    data: Any,
    config: PredictorConfig,
    options: ReadOptions,
    users: int | None,
    progress: Progress,
    *,
    after: int | None = None,
    learnt: bool = False,
) -> tuple[Source, Encoded, Split]:
    """A log, in numbers, and split as the config says; arguments as for `Predictor.fit`.

    With `after`, UTC microseconds, the split is by time whatever the config says, and the test
    period begins later than that; with `learnt`, the validation period does, too, for models that
    have learnt from all before it.
    """
    source = load_source(data, users=users, seed=config.seed, options=options, progress=progress)
    encoded = source.encoded(config.level)
    if after is not None:
        divide = split_since if learnt else split_after
        return source, encoded, divide(encoded.catalog, encoded.histories, after)
    name = split_name(config.split, source)
    return source, encoded, choose_split(name, encoded.catalog, encoded.histories, seed=config.seed)


def split_name(asked: SplitName, source: Source) -> str:
    """The split that `auto` stands for: by time if there are dates, else as the source suggests."""
    if asked != "auto":
        return asked
    if source.name == "world:uniform":
        return "held-out-users"
    return "temporal" if source.purchases.time_kind == "dates" else "leave-last-out"


def learn(
    models: Mapping[str, Model],
    source: Source,
    encoded: Encoded,
    split: Split,
    config: PredictorConfig,
    *,
    run_folder: Path | None,
    budget: TimeBudget,
    progress: Progress,
    workers: Workers | None = None,
    starts: Mapping[str, Start] = MappingProxyType({}),
) -> Learnt:
    """Fit on training, choose on validation, fit again, and score on the test.

    Args:
        models: Not fitted yet.
        source: Of the log.
        encoded: The whole log.
        split: Of it.
        config: Of the predictor.
        run_folder: For checkpoints, or None; it is locked meanwhile.
        budget: Of time.
        progress: Told about the long parts.
        workers: Fit the networks of items; None fits them here.
        starts: Of networks that go on from what they were.
    """
    world = limited_world(source, config)
    studies = Studies.of(encoded, split, budget)
    spending = Spending.of(encoded, split, budget)
    timing = fit_timing(
        encoded, split, config, budget, progress, ask=studies.ask_timing, world=world
    )
    with nullcontext() if run_folder is None else run_lock(run_folder):
        fitted = fit_and_score(
            models, _mapped(split, run_folder), config, run_folder=run_folder, world=world,
            progress=progress, budget=budget, workers=workers, starts=starts,
            ask=lambda model: Asked(
                shares=studies.ask_model(model), next_item=spending.ask_model(model)
            ),
        )  # fmt: skip
    progress.about("audiences")
    best = min(fitted.rows, key=lambda row: row.validation.metrics["loss"])
    audience = studies.facts(
        fitted.asked.shares, timing.asked, model=fitted.models[best.model],
        forecaster=timing.forecaster, budget=budget,
    )  # fmt: skip
    timing = spending.weighed(
        timing, fitted.asked.next_item, model=fitted.models[best.model], budget=budget
    )
    facts = results_facts(fitted, split, config, world) | {"audience": audience}
    return Learnt(models=fitted, timing=timing, facts=facts)


def evaluate_log(
    data: Any,
    models: Mapping[str, FittedModel],
    catalog: Catalog,
    config: PredictorConfig,
    *,
    facts: Mapping[str, Any],
    cadence: ItemCadence | None,
    options: ReadOptions,
    users: int | None,
) -> dict[str, Evaluation]:
    """Scores of fitted models on a log, under the protocol of their training.

    Args:
        data: As for `Predictor.evaluate`.
        models: Fitted.
        catalog: Of the models.
        config: Of the predictor.
        facts: Of the predictor.
        cadence: Of the predictor.
        options: How to read the data.
        users: Number of users of a world.

    Raises:
        ConfigError: If the models were fitted again on this very log.
    """
    source = load_source(data, users=users, seed=config.seed, options=options)
    if config.refit_full:
        refuse_seen(source, facts["fingerprint"])
    encoded = source.encoded(config.level)
    name = facts["protocol"]["split"]
    split = choose_split(name, encoded.catalog, encoded.histories, seed=config.seed)
    cases = split.test.in_catalog(split.catalog, catalog)
    return evaluate_all(models, cases, catalog, config, cadence)


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
