"""The pictures of a study, from its trials."""

from pathlib import Path

import optuna
from optuna.trial import TrialState

from nextbuy.evaluation import tuning_pictures
from nextbuy.evaluation.pictures import save_svg
from nextbuy.tuning.journal import DEFAULT, finished_trials
from nextbuy.tuning.search import SECONDS, Search

_FEWEST = 4
"""Complete trials from which on importance says anything."""


def draw(search: Search, folder: Path) -> list[Path]:
    """History and trade-off of quality and time, and importance where there are enough trials.

    Raises:
        MissingExtraError: If the extra `pictures` is not installed.
    """
    metric = search.fitting.config.metric
    sign = 1.0 if metric == "loss" else -1.0
    rows = [
        tuning_pictures.TrialPoint(
            number=place,
            value=sign * float(trial.value),
            seconds=float(trial.user_attrs[SECONDS]),
            is_default=bool(trial.user_attrs.get(DEFAULT)),
        )
        for place, trial in enumerate(finished_trials(search.study), 1)
        if trial.state == TrialState.COMPLETE and trial.value is not None
    ]
    name = search.fitting.config.model
    drawn = [
        save_svg(tuning_pictures.history(rows, metric, name), folder / "history.svg"),
        save_svg(tuning_pictures.trade_off(rows, metric, name), folder / "trade-off.svg"),
    ]
    if len(rows) >= _FEWEST:
        shares = optuna.importance.get_param_importances(search.study)
        drawn.append(
            save_svg(tuning_pictures.importance(shares, len(rows), name), folder / "importance.svg")
        )
    return drawn
