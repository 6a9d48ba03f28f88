"""Fit again on the whole log, with everything that validation chose kept.

Scores are measured on what came after training; what answers customers should have learnt from that
too. Nothing can be measured on the log any more then.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from nextbuy.data.encoding import Encoded
from nextbuy.data.fingerprint import fingerprint
from nextbuy.data.purchases import Purchases
from nextbuy.errors import ConfigError
from nextbuy.models.lstm_rnn import LstmRnn
from nextbuy.models.protocol import FitOptions, Model
from nextbuy.models.registry import create
from nextbuy.models.scored import ScoredModel
from nextbuy.splitting.cases import Cases


def refit(
    members: Mapping[str, Model], encoded: Encoded, nothing: Cases, options: FitOptions
) -> dict[str, Model]:
    """The same models, fitted on all histories.

    Configs (with what validation chose: trust, decay, half-life), calibration and the number of
    epochs are those of the fitted ones.

    Args:
        members: Fitted.
        encoded: The whole log.
        nothing: Cases without any case.
        options: Of the run; `run_folder` is for checkpoints.
    """
    found: dict[str, Model] = {}
    for name, model in members.items():
        options.progress.about(f"{name}, whole log")
        mine = replace(
            options,
            run_folder=full_folder(options.run_folder, name),
            epochs=_epochs_of(model, options.epochs),
        )
        config = getattr(model, "config", None)
        settings = {} if config is None else config.model_dump()
        again = create(model.name, **settings)
        again.fit(encoded.histories, nothing, encoded.catalog, mine)
        if isinstance(model, ScoredModel) and isinstance(again, ScoredModel):
            again.calibration = model.calibration
        found[name] = again
    return found


def refuse_seen(purchases: Purchases, seen: str) -> None:
    """Refuse to score on the log that everything was fitted on.

    Raises:
        ConfigError: If the purchases have the fingerprint that was seen.
    """
    if fingerprint(purchases) == seen:
        raise ConfigError(
            "This bundle was fitted again on the whole log (refit_full), so nothing in it is new "
            "to the models. Its scores are in the bundle; score it on later purchases, or use "
            "--backtest."
        )


def full_folder(run_folder: Path | None, name: str) -> Path | None:
    """Where the checkpoints of the second fit go."""
    return None if run_folder is None else run_folder / "whole-log" / name


def nothing_of(cases: Cases) -> Cases:
    """None of the cases."""
    return cases.take(np.array([], dtype=np.int64))


def _epochs_of(model: Model, asked: int | None) -> int | None:
    """As many epochs as were best on validation."""
    if isinstance(model, LstmRnn) and model.result is not None:
        return model.result.best_epoch + 1
    return asked
