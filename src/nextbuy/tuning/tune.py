"""Tune one model on a log: search, one look at the test, a config file and pictures."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from optuna.trial import FrozenTrial

from nextbuy import storage
from nextbuy.data.fingerprint import fingerprint
from nextbuy.data.options import ReadOptions
from nextbuy.evaluation.comparison import compare
from nextbuy.evaluation.evaluate import Evaluation, evaluate
from nextbuy.models.protocol import FitOptions, FittedModel, Workers
from nextbuy.predictor.config import create_model
from nextbuy.predictor.learning import read_and_split
from nextbuy.predictor.refit import refit
from nextbuy.progress import Progress, SilentProgress
from nextbuy.training.checkpoint import run_lock
from nextbuy.tuning.config import TuningConfig
from nextbuy.tuning.drawing import draw
from nextbuy.tuning.journal import finished_trials, open_study
from nextbuy.tuning.search import METRICS, SECONDS, Search
from nextbuy.tuning.space import declared_space, default_values, distributions
from nextbuy.tuning.toml import to_toml
from nextbuy.tuning.verdict import verdict

BEST: Final = "best.toml"
_TEST: Final = "test.json"
_OF_A_STUDY: Final = {"model", "metric", "level", "epochs", "device", "seed"}
"""What of a config a study must agree with to go on; it may go on for longer."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Tuned:
    """What came of it.

    Attributes:
        trials: How many ended `complete`, `pruned` and `fail`.
        default: Number, values and validation scores of the default's trial.
        best: The same of the best trial.
        test: Scores of both, their difference and `verdict`; None where the default is the best,
            for then there is nothing to ask.
        looks: How often the test was asked for this study so far.
        config: The file that `nextbuy train --config` takes.
        pictures: SVG files.
        protocol: How it was split.
    """

    trials: Mapping[str, int]
    default: Mapping[str, Any]
    best: Mapping[str, Any]
    test: Mapping[str, Any] | None
    looks: int
    config: Path
    pictures: tuple[Path, ...]
    protocol: str


def tune(
    data: Any,
    out: Path,
    *,
    config: TuningConfig | None = None,
    options: ReadOptions | None = None,
    users: int | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Tuned:
    """Look for a better config of a model than its default.

    The same call with the same folder goes on after a kill, and loses no finished trial.

    Args:
        data: As for `Predictor.fit`.
        out: For the study, the config and the pictures; locked meanwhile.
        config: Model, metric, trials and so on.
        options: How to read the data.
        users: Number of users of a world.
        progress: Told about trials.
        workers: Fit the networks, one trial after the other; None fits them here.

    Raises:
        ConfigError: If there is no such model or nothing to tune in it.
        ResumeError: If the folder holds a study of other data, or of another model or metric.
        RunLockedError: If another process tunes there.
    """
    started = time.monotonic()
    config, progress = config or TuningConfig(), progress or SilentProgress()
    space = declared_space(config.model)  # refuses before anything is read
    _check(workers, config)
    source, _, split = read_and_split(
        data, config.predictor({}), options or ReadOptions(), users, progress
    )
    default = default_values(config.model, space, split.train, split.catalog)
    parts = distributions(space, default)
    limit = float("inf") if config.time_limit is None else config.time_limit
    with run_lock(out):
        identity = {
            "data": fingerprint(source.purchases),
            "split": split.name,
            **config.model_dump(include=_OF_A_STUDY),
            "space": {path: str(part) for path, part in parts.items()},
        }
        study = open_study(out, identity)
        search = Search(
            config=config, split=split, study=study, space=parts, default=default,
            progress=progress, workers=workers,
        )  # fmt: skip
        search.run(started + limit)
        test, looks = _tested(search, out)
        best = search.best_trial()
        (out / BEST).write_text(_best_config(search, best, test), encoding="utf-8")
        states = Counter(t.state.name.lower() for t in finished_trials(study))
        return Tuned(
            trials={name: states[name] for name in ("complete", "pruned", "fail")},
            default=_facts(search.default_trial()), best=_facts(best), test=test, looks=looks,
            config=out / BEST, pictures=tuple(draw(search, out)), protocol=split.description,
        )  # fmt: skip


def _check(workers: Workers | None, config: TuningConfig) -> None:
    if workers is not None:
        workers.check(create_model(config.model, config.predictor({})))


def _facts(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "values": dict(trial.params),
        "validation": {name: trial.user_attrs[name] for name in METRICS},
        "seconds": trial.user_attrs[SECONDS],
    }


def _tested(search: Search, out: Path) -> tuple[dict[str, Any] | None, int]:
    """What the test says of the best trial, asked only once for each best trial; and how often it
    was asked in all."""
    best, default = search.best_trial(), search.default_trial()
    path = out / _TEST
    stored = storage.read_json(path) if path.exists() else {"looks": 0}
    looks = int(stored["looks"])
    if best.number == default.number:
        return None, looks
    if stored.get("trial") != best.number:
        found = {"trial": best.number, "looks": looks + 1} | _compared(search, best, default)
        storage.write_json(path, found)
        stored = found
    return {k: v for k, v in stored.items() if k not in {"trial", "looks"}}, int(stored["looks"])


def _compared(search: Search, best: FrozenTrial, default: FrozenTrial) -> dict[str, Any]:
    """Both configs on the test period, case by case."""
    tuned, plain = _on_test(search, best), _on_test(search, default)
    differences = compare(tuned, plain, seed=search.config.seed)
    metric = search.config.metric
    return {
        "tuned": {name: tuned.metrics[name] for name in METRICS},
        "default": {name: plain.metrics[name] for name in METRICS},
        "difference": {name: differences[name].as_dict() for name in METRICS},
        "num_cases": len(search.split.test),
        "verdict": verdict(metric, differences[metric]),
    }


def _on_test(search: Search, trial: FrozenTrial) -> Evaluation:
    """Scores of a trial's config, as `Predictor.fit` would have them: fitted again on all that
    lies before the test where the split allows it."""
    split, config = search.split, search.config
    search.progress.about(f"trial {trial.number} on the test")
    fitted = search.kept.get(trial.number) or search.fit(trial.params, search.progress)
    model: FittedModel = fitted
    if split.before_test is not None:
        options = FitOptions(
            seed=config.seed, epochs=config.epochs, progress=search.progress,
            workers=search.workers,
        )  # fmt: skip
        again, _ = refit(
            {config.model: fitted}, split.before_test, split.catalog, options, stage="before-test"
        )
        model = again[config.model]
    return evaluate(model, split.test, split.catalog, seed=config.seed, progress=search.progress)


def _best_config(search: Search, best: FrozenTrial, test: Mapping[str, Any] | None) -> str:
    """The text of the config file."""
    config = search.config
    chosen = config.predictor(search.options_of(best.params))
    is_default = best.number == search.default_trial().number
    said = "the default is the best" if is_default else str((test or {})["verdict"])
    values = chosen.model_dump(
        mode="json", include={"models", "level", "split", "epochs", "seed", "options"}
    )
    found = len(finished_trials(search.study))
    return to_toml(
        values, comment=f"{config.model}, trial {best.number} of {found} by {config.metric}\n{said}"
    )
