"""Fit again on more, with everything that validation chose kept.

Validation is spent once choices are made: before the test, models learn from it, too, so that they
are asked about the days right after those they know. After the test they may learn from the whole
log to answer customers; nothing can be measured on it any more then.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from nextbuy.data.catalog import Catalog
from nextbuy.data.encoding import Encoded
from nextbuy.data.histories import Histories
from nextbuy.data.sources import Source
from nextbuy.errors import ConfigError
from nextbuy.models.first_weights import Start
from nextbuy.models.neural import NeuralModel
from nextbuy.models.protocol import FitOptions, Model, Workers
from nextbuy.models.registry import create
from nextbuy.models.scored import ScoredModel
from nextbuy.models.sharing import fit_model
from nextbuy.predictor.config import PredictorConfig
from nextbuy.progress import Progress
from nextbuy.splitting.cases import Cases
from nextbuy.training.checkpoint import clear_checkpoints, run_lock

Stage = Literal["before-test", "whole-log"]
STAGES: Final[tuple[Stage, ...]] = ("before-test", "whole-log")
"""What models may be fitted again on."""


def refit(
    members: Mapping[str, Model],
    histories: Histories,
    catalog: Catalog,
    options: FitOptions,
    *,
    stage: Stage,
    known: Catalog | None = None,
    since: int | None = None,
) -> tuple[dict[str, Model], dict[str, float]]:
    """The same models, fitted on these histories, and the seconds that each took.

    Configs (with what validation chose: trust, decay, half-life, whether order matters),
    calibration and the number of epochs are those of the fitted ones.

    Args:
        members: Fitted.
        histories: What to learn from.
        catalog: Of these histories.
        options: Of the run; `run_folder` is for checkpoints.
        stage: What the histories are.
        known: Catalog of the members, whose networks then go on from their weights; without it they
            learn anew.
        since: Moment up to which the members have learnt; see `Start`.
    """
    nothing = no_cases(histories)
    found: dict[str, Model] = {}
    seconds: dict[str, float] = {}
    for name, model in members.items():
        options.progress.about(f"{name}, {stage.replace('-', ' ')}")
        started = time.monotonic()
        mine = replace(
            options,
            run_folder=options.run_folder and stage_folder(options.run_folder, stage) / name,
            epochs=_epochs_of(model, options.epochs),
            start=start_of(model, known, since),
        )
        config = getattr(model, "config", None)
        settings = {} if config is None else config.model_dump()
        again = create(model.name, **settings)
        again = fit_model(again, histories, nothing, catalog, mine)
        if isinstance(model, ScoredModel) and isinstance(again, ScoredModel):
            again.calibration = model.calibration
        found[name] = again
        seconds[name] = time.monotonic() - started
    return found, seconds


def refit_on_all(
    members: Mapping[str, Model],
    encoded: Encoded,
    config: PredictorConfig,
    run_folder: Path | None,
    progress: Progress,
    *,
    workers: Workers | None = None,
    known: Catalog | None = None,
    since: int | None = None,
) -> dict[str, Model]:
    """The same models, fitted on the whole log; a run with a folder locks it meanwhile. `known` and
    `since` are as for `refit`."""
    options = FitOptions(
        seed=config.seed, epochs=config.epochs, run_folder=run_folder, progress=progress,
        workers=workers,
    )  # fmt: skip
    with nullcontext() if run_folder is None else run_lock(run_folder):
        found, _ = refit(
            members, encoded.histories, encoded.catalog, options, stage="whole-log",
            known=known, since=since,
        )  # fmt: skip
    return found


def refuse_seen(source: Source, seen: str) -> None:
    """Refuse to score on the log that everything was fitted on.

    Raises:
        ConfigError: If the log has the fingerprint that was seen.
    """
    if source.fingerprint() == seen:
        raise ConfigError(
            "This bundle was fitted again on the whole log (refit_full), so nothing in it is new "
            "to the models. Its scores are in the bundle; score it on later purchases, or use "
            "--backtest."
        )


def stage_folder(run_folder: Path, stage: Stage) -> Path:
    """Where the checkpoints of a later fit go, a folder a model."""
    return run_folder / stage


def clear_run(run_folder: Path, names: Iterable[str]) -> None:
    """Remove the checkpoints of models, of the first fit and of later ones."""
    for name in names:
        clear_checkpoints(run_folder / name)
        for stage in STAGES:
            clear_checkpoints(stage_folder(run_folder, stage) / name)


def no_cases(histories: Histories) -> Cases:
    """Validation without a single case."""
    return Cases(
        histories=histories.take(np.array([], dtype=np.int64)),
        as_of=None,
        target_items=np.array([], dtype=np.int32),
        target_offsets=np.zeros(1, dtype=np.int64),
    )


def going_on(
    models: Mapping[str, Model], fitted: Mapping[str, Model], known: Catalog, since: int | None
) -> tuple[dict[str, Model], dict[str, Start]]:
    """The models, networks with the configs that were decided, and where these start.

    Args:
        models: Not fitted yet.
        fitted: The same, fitted; a network that is not among them learns anew.
        known: Catalog of the fitted ones.
        since: Moment up to which they have learnt, UTC microseconds, if that is known.
    """
    found, starts = dict(models), {}
    for name, model in models.items():
        before = fitted.get(name)
        start = start_of(before, known, since)
        if start is not None and isinstance(model, NeuralModel) and isinstance(before, NeuralModel):
            asked = {"temperature": model.config.temperature}  # is chosen again
            found[name] = type(before)(before.config.model_copy(update=asked))
            starts[name] = start
    return found, starts


def start_of(model: Model | None, known: Catalog | None, since: int | None) -> Start | None:
    """Where a fit goes on from, if it does and the model is a network."""
    if known is None or not isinstance(model, NeuralModel):
        return None
    return Start(weights=model.weights(), catalog=known, since=since)


def _epochs_of(model: Model, asked: int | None) -> int | None:
    """As many epochs as were best on validation."""
    if isinstance(model, NeuralModel) and model.result is not None:
        return model.result.best_epoch + 1
    return asked
