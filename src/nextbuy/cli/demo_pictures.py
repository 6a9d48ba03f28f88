"""The pictures of a demo run: training curves, reliability, distance to the limit."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nextbuy.evaluation import pictures
from nextbuy.training.log import read_log

if TYPE_CHECKING:
    from nextbuy.predictor import Predictor


def draw_pictures(
    predictor: "Predictor", folder: Path, run_folder: Path, names: Mapping[str, str]
) -> list[Path]:
    """Write SVG files into a folder.

    Args:
        predictor: Fitted in this process.
        folder: Is made when missing.
        run_folder: Where the training logs lie.
        names: How to show a model's name, where differently.

    Raises:
        MissingExtraError: If the extra `pictures` is not installed.
    """
    drawn = []
    limit = predictor.facts["limit"] or {}
    for row in predictor.leaderboard:
        shown = names.get(row.model, row.model)
        log = [line for line in read_log(run_folder / row.model / "log.jsonl")
               if "validation_loss" in line]  # fmt: skip
        epochs = [{k: float(v) for k, v in line.items() if k != "step"} for line in log]
        if not epochs:
            continue
        curve = pictures.training_curve(
            epochs, limit=limit.get("loss"), title=f"Training of {shown}"
        )
        drawn.append(pictures.save_svg(curve, folder / f"training-{row.model}.svg"))
        diagram = pictures.reliability_diagram(
            row.test.reliability, title=f"Calibration of {shown}, first offer"
        )
        drawn.append(pictures.save_svg(diagram, folder / f"reliability-{row.model}.svg"))
    scores = {names.get(row.model, row.model): row.test.metrics for row in predictor.leaderboard}
    if limit:
        distance = pictures.distance_to_limit(
            scores, limit, title=f"Distance to the limit of {predictor.facts['source']}"
        )
        drawn.append(pictures.save_svg(distance, folder / "distance-to-limit.svg"))
    intervals = {names.get(r.model, r.model): r.test.intervals for r in predictor.leaderboard}
    dots = pictures.leaderboard_dots(
        scores, intervals, metric="ndcg@10", limit=limit.get("ndcg@10")
    )
    drawn.append(pictures.save_svg(dots, folder / "leaderboard.svg"))
    return drawn
