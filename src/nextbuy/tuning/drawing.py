"""The pictures of a study, from its trials."""

import warnings
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from nextbuy.evaluation import tuning_pictures
from nextbuy.evaluation.pictures import save_svg
from nextbuy.evaluation.tuning_pictures import TrialPoint
from nextbuy.tuning.journal import DEFAULT, finished_trials
from nextbuy.tuning.search import SECONDS, Search

_FEWEST = 4
"""Complete trials from which on importance says anything."""


def draw(search: Search, folder: Path, said: str) -> list[Path]:
    """History and trade-off of quality and time, and importance where there are enough trials.

    Args:
        search: Has at least the default's trial.
        folder: For SVG files.
        said: What the test says, in short.

    Raises:
        MissingExtraError: If the extra `pictures` is not installed.
    """
    config = search.fitting.config
    points = [_point(trial, config.metric) for trial in finished_trials(search.study)]
    rows = [point for point in points if point is not None]
    complete = sum(point.kind != "pruned" for point in rows)
    name = config.model
    drawn = [
        save_svg(tuning_pictures.history(rows, config.metric, name, said), folder / "history.svg"),
        save_svg(tuning_pictures.trade_off(rows, config.metric, name), folder / "trade-off.svg"),
    ]
    shares = _importance(search.study) if complete >= _FEWEST else None
    if shares is not None:
        chart = tuning_pictures.importance(shares, complete, name)
        drawn.append(save_svg(chart, folder / "importance.svg"))
    return drawn


def _importance(study: optuna.Study) -> dict[str, float] | None:
    """None where the best trials are not told apart from the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            return optuna.importance.get_param_importances(study)
        except UserWarning:
            return None


def _point(trial: FrozenTrial, metric: str) -> TrialPoint | None:
    """None for one that failed, or was pruned by a loss where another metric is drawn."""
    seconds = float(trial.user_attrs.get(SECONDS, 0.0))
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        value = trial.value if metric == "loss" else -trial.value
        return TrialPoint(
            number=trial.number, value=value, seconds=seconds,
            kind="default" if trial.user_attrs.get(DEFAULT) else "tried",
        )  # fmt: skip
    if trial.state == TrialState.PRUNED and metric == "loss" and trial.intermediate_values:
        value = min(trial.intermediate_values.values())
        return TrialPoint(number=trial.number, value=value, seconds=seconds, kind="pruned")
    return None
