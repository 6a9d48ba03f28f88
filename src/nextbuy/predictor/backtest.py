"""Rolling backtest: what the same config would have scored, had it been trained earlier."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from nextbuy.data.encoding import Encoded
from nextbuy.data.histories import DAY
from nextbuy.data.options import ReadOptions
from nextbuy.data.sources import load_source
from nextbuy.errors import ConfigError, SplitError
from nextbuy.predictor.config import PredictorConfig, create_model
from nextbuy.predictor.fitting import LeaderboardRow, fit_and_score
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Split
from nextbuy.splitting.temporal import automatic_cutoffs, split_by_time


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fold:
    """One moment at which everything was trained anew.

    Attributes:
        test_start: That moment.
        test_end: End of the period in which answers counted.
        rows: The leaderboard of that period.
    """

    test_start: datetime
    test_end: datetime
    rows: list[LeaderboardRow]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "test_start": self.test_start.isoformat(),
            "test_end": self.test_end.isoformat(),
            "leaderboard": [row.as_dict() for row in self.rows],
        }


def backtest(
    data: Any,
    *,
    folds: int,
    config: PredictorConfig | None = None,
    options: ReadOptions | None = None,
    users: int | None = None,
    progress: Progress | None = None,
) -> list[Fold]:
    """Train and score at several moments, the oldest first; each sees only what lay before it.

    The newest fold is the automatic temporal split. Each one before it ends where the next begins
    and is as long.

    Args:
        data: As for `Predictor.fit`.
        folds: How many moments.
        config: Models, level and so on; the split is temporal.
        options: How to read the data.
        users: Number of users of a world.
        progress: Told about the long parts.

    Raises:
        ConfigError: If there is not at least one fold.
        SplitError: If time is only an order, or so many folds leave nothing to learn from.
    """
    if folds < 1:
        raise ConfigError(f"A backtest has at least 1 fold; asked for {folds}.")
    config, progress = config or PredictorConfig(), progress or SilentProgress()
    source = load_source(data, users=users, seed=config.seed, options=options or ReadOptions())
    encoded = source.encoded(config.level)
    found = []
    for split, start, end in fold_splits(encoded, folds):
        models = {name: create_model(name, config) for name in config.chosen_models}
        fitted = fit_and_score(
            models, split, config, run_folder=None, world=None, progress=progress
        )
        found.append(Fold(test_start=_date(start), test_end=_date(end), rows=fitted.rows))
    return found


def fold_splits(encoded: Encoded, folds: int) -> list[tuple[Split, int, int]]:
    """The split of each fold with start and end of its test period, UTC microseconds.

    Raises:
        SplitError: If time is only an order, or a fold has an empty side.
    """
    histories = encoded.histories
    if histories.time_kind != "dates":
        raise SplitError("A backtest needs dates, but this log has only an order of purchases.")
    newest, validation = automatic_cutoffs(histories)
    end = int(histories.times.max()) + 1
    period, before = end - newest, newest - validation
    found = []
    for back in range(folds - 1, -1, -1):
        start = newest - back * period
        seen = histories.keep(histories.times < start + period)
        try:
            split = split_by_time(
                encoded.catalog, seen,
                test_start=start, validation_start=start - before,
            )  # fmt: skip
        except SplitError as error:
            raise SplitError(
                f"{folds} folds of {period / DAY:.0f} days reach back to "
                f"{_date(start):%Y-%m-%d}, and that leaves too little. Ask for fewer. {error}"
            ) from error
        found.append((split, start, start + period))
    return found


def mean_scores(found: list[Fold], metric: str) -> dict[str, float]:
    """The mean of a test metric over folds, by model."""
    by_model: dict[str, list[float]] = {}
    for fold in found:
        for row in fold.rows:
            by_model.setdefault(row.model, []).append(row.test.metrics[metric])
    return {name: float(np.mean(values)) for name, values in by_model.items()}


def _date(moment: int) -> datetime:
    return datetime.fromtimestamp(moment / 1e6, tz=UTC)
