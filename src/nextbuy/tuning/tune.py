"""Tune one model on a log: search, one look at the test, a config file and pictures."""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from optuna.trial import FrozenTrial

from nextbuy.data.options import ReadOptions
from nextbuy.errors import ConfigError
from nextbuy.predictor.learning import read_and_split
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Split
from nextbuy.training.checkpoint import run_lock
from nextbuy.tuning.comparison import tested
from nextbuy.tuning.config import METRICS, TuningConfig
from nextbuy.tuning.drawing import draw
from nextbuy.tuning.fitting import Fitting
from nextbuy.tuning.journal import finished_trials, open_study
from nextbuy.tuning.limit import TimeLimit
from nextbuy.tuning.search import SECONDS, Search
from nextbuy.tuning.space import declared_space, default_values, distributions
from nextbuy.tuning.toml import to_toml
from nextbuy.tuning.workers import StartsProcess, Workers, start_here

BEST: Final = "best.toml"
_OF_A_STUDY: Final = {"model", "metric", "level", "epochs", "device", "seed"}
"""What of a config a study must agree with to go on; it may go on for longer."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Tuned:
    """What came of it.

    Attributes:
        trials: How many ended `complete`, `pruned` and `fail`.
        default: Number, values and validation scores of the default's trial.
        best: The same of the best trial.
        test: Scores of both, their difference, `verdict`, and whether both were `fitted_again` on
            everything before the test; None where it was not asked.
        verdict: Of the test, in words, or why it was not asked.
        looks: How often the test was asked for this study so far.
        config: The file that `nextbuy train --config` takes.
        pictures: SVG files.
        protocol: How it was split.
    """

    trials: Mapping[str, int]
    default: Mapping[str, Any]
    best: Mapping[str, Any]
    test: Mapping[str, Any] | None
    verdict: str
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
    say: Callable[[str], None] | None = None,
    start: StartsProcess | None = None,
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
        say: Told a line about each trial when it is finished and on disk.
        start: Starts the workers, who must see `out` under the same name; without it they are
            processes of this machine.

    Raises:
        ConfigError: If there is no such model, nothing to tune in it, or `out` is no folder.
        TimeIsUpError: If the time limit ends before the default config is fitted.
        ResumeError: If the folder holds a study of other data, or of another model or metric.
        RunLockedError: If another process tunes there.
    """
    started = time.monotonic()
    config, progress = config or TuningConfig(), progress or SilentProgress()
    space = declared_space(config.model)  # refuses before anything is read
    _check_folder(out)
    out = out if start is None else out.absolute()
    source, _, split = read_and_split(
        data, config.predictor({}), options or ReadOptions(), users, progress
    )
    default = default_values(config.model, space, split.train, split.catalog)
    parts = distributions(space, default)
    with run_lock(out):
        identity = {
            "data": source.fingerprint(),
            "split": split.name,
            **config.model_dump(include=_OF_A_STUDY),
            "space": {path: str(part) for path, part in parts.items()},
        }
        study = open_study(out, identity)
        search = Search(
            fitting=Fitting(config=config, split=split), study=study, folder=out, space=parts,
            default=default, limit=_limit(config, split, started), progress=progress,
            say=say or (lambda _line: None),
        )  # fmt: skip
        _run(search, start)
        return _concluded(search)


def _concluded(search: Search) -> Tuned:
    """Ask the test; write the config and the pictures."""
    search.progress.start("comparison on the test", 1)
    test = tested(search)
    search.progress.advance(1, {})
    search.progress.finish()
    best, out = search.best_trial(), search.folder
    (out / BEST).write_text(_best_config(search, best, test.verdict), encoding="utf-8")
    states = Counter(t.state.name.lower() for t in finished_trials(search.study))
    return Tuned(
        trials={name: states[name] for name in ("complete", "pruned", "fail")},
        default=_facts(search.default_trial()), best=_facts(best), test=test.facts,
        verdict=test.verdict, looks=test.looks, config=out / BEST,
        pictures=tuple(draw(search, out, test.verdict)),
        protocol=search.fitting.split.description,
    )  # fmt: skip


def _check_folder(out: Path) -> None:
    """Refuse what cannot become a folder, without making one: the data may not be there."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(
            f"{out} cannot be the folder of a study: {there} is a file. Give another --out."
        )
    if not os.access(there, os.W_OK):
        raise ConfigError(
            f"{out} cannot be the folder of a study: {there} may not be written to. Give another "
            "--out."
        )


def _run(search: Search, start: StartsProcess | None) -> None:
    """The default alone, since all else is held against it; then the others, perhaps several at a
    time."""
    config, done = search.fitting.config, search.num_finished()
    by_workers = config.workers > 1 or start is not None
    search.progress.about("")
    search.progress.start("trials", max(config.trials, done), done=done)
    try:
        search.run(1 if by_workers else config.trials)
        if by_workers and search.num_finished() < config.trials and search.has_time():
            with Workers(search, start or start_here) as workers:
                workers.run()
    finally:
        search.progress.finish()


def _limit(config: TuningConfig, split: Split, started: float) -> TimeLimit:
    if config.time_limit is None:
        return TimeLimit(refits=split.before_test is not None)
    return TimeLimit(
        end=started + config.time_limit,
        seconds=config.time_limit,
        refits=split.before_test is not None,
        test_share=len(split.test) / max(1, len(split.validation)),
    )


def _facts(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "values": dict(trial.params),
        "validation": {name: trial.user_attrs[name] for name in METRICS},
        "seconds": trial.user_attrs[SECONDS],
    }


def _best_config(search: Search, best: FrozenTrial, said: str) -> str:
    """The text of the config file."""
    config = search.fitting.config
    chosen = config.predictor(search.fitting.options_of(best.params))
    values = chosen.model_dump(
        mode="json", include={"models", "level", "split", "epochs", "seed", "options"}
    )
    return to_toml(
        values,
        comment=f"{config.model}, trial {best.number} of {search.num_finished()} by "
        f"{config.metric}\n{said}",
    )
