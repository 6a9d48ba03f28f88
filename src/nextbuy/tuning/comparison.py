"""The one look at the test: the best config against the default, case by case."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from optuna.trial import FrozenTrial

from nextbuy import storage
from nextbuy.errors import TimeIsUpError
from nextbuy.evaluation.comparison import compare
from nextbuy.evaluation.evaluate import Evaluation, evaluate
from nextbuy.models.protocol import FitOptions, FittedModel, Model
from nextbuy.predictor.refit import refit
from nextbuy.tuning.config import METRICS
from nextbuy.tuning.fitting import Watched
from nextbuy.tuning.search import Search
from nextbuy.tuning.verdict import verdict

_TEST: Final = "test.json"
NOTHING_TO_ASK: Final = "the default is the best on validation; the test was not asked"
NO_TIME: Final = (
    "no time was left to ask the test: give the same command again with a longer --time-limit"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What the test says.

    Attributes:
        facts: Scores of both, their differences, and whether both were fitted again on everything
            before the test; None where it was not asked.
        verdict: In words; why it was not asked, if so.
        looks: How often the test was asked in this study so far.
    """

    facts: Mapping[str, Any] | None
    verdict: str
    looks: int


def tested(search: Search) -> Tested:
    """Ask the test about the best trial and the default, once for each best trial."""
    best, default = search.best_trial(), search.default_trial()
    path = search.folder / _TEST
    stored = storage.read_json(path) if path.exists() else {"looks": 0}
    looks = int(stored["looks"])
    if best.number == default.number:
        return Tested(facts=None, verdict=NOTHING_TO_ASK, looks=looks)
    if stored.get("trial") != best.number:
        try:
            found = _compared(search, best, default)
        except TimeIsUpError:
            return Tested(facts=None, verdict=NO_TIME, looks=looks)
        stored = {"trial": best.number, "looks": looks + 1} | found
        storage.write_json(path, stored)
    facts = {k: v for k, v in stored.items() if k not in {"trial", "looks"}}
    return Tested(facts=facts, verdict=str(facts["verdict"]), looks=int(stored["looks"]))


def _compared(search: Search, best: FrozenTrial, default: FrozenTrial) -> dict[str, Any]:
    """Both configs on the test period, case by case."""
    limit = search.limit
    models = [_model(search, trial) for trial in (best, default)]
    again: list[Model] | None = None
    if limit.can_refit(default.user_attrs, best.user_attrs):
        until = limit.of_refits(default.user_attrs, best.user_attrs)
        again = _fitted_again(search, (best, default), models, until)
    tuned, plain = (_on_test(search, model) for model in again or models)
    config = search.fitting.config
    differences = compare(tuned, plain, seed=config.seed)
    return {
        "tuned": {name: tuned.metrics[name] for name in METRICS},
        "default": {name: plain.metrics[name] for name in METRICS},
        "difference": {name: differences[name].as_dict() for name in METRICS},
        "num_cases": len(search.fitting.split.test),
        "fitted_again": again is not None,
        "verdict": verdict(config.metric, differences[config.metric]),
    }


def _model(search: Search, trial: FrozenTrial) -> Model:
    """The model of a trial, as it was judged on validation."""
    if trial.number in search.kept:
        return search.kept[trial.number]
    watched = Watched(search.limit.end, alive=search.alive)
    return search.fitting.fit(trial.params, search.folder_of(trial), watched)


def _fitted_again(
    search: Search, trials: tuple[FrozenTrial, ...], models: list[Model], until: float
) -> list[Model] | None:
    """The models as `Predictor.fit` would have them for the test: fitted again on all that lies
    before it. None if the time does not suffice for both."""
    config, split = search.fitting.config, search.fitting.split
    if split.before_test is None:
        return None
    found = []
    for trial, model in zip(trials, models, strict=True):
        options = FitOptions(
            seed=config.seed, epochs=config.epochs, run_folder=search.folder_of(trial),
            progress=Watched(until, alive=search.alive),
        )  # fmt: skip
        try:
            again, _ = refit(
                {config.model: model}, split.before_test, split.catalog, options,
                stage="before-test",
            )  # fmt: skip
        except TimeIsUpError:
            return None
        found.append(again[config.model])
    return found


def _on_test(search: Search, model: FittedModel) -> Evaluation:
    config, split = search.fitting.config, search.fitting.split
    watched = Watched(search.limit.end, alive=search.alive)
    return evaluate(model, split.test, split.catalog, seed=config.seed, progress=watched)
