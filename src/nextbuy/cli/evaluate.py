"""`nextbuy evaluate DIR DATA`: score a bundle on a log."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from nextbuy.cli import options
from nextbuy.cli.leaderboard import SCORE_COLUMNS, print_protocol, print_timing, score_cells
from nextbuy.cli.rendering import ProgressBar, number, print_json, print_line, print_table

if TYPE_CHECKING:
    from nextbuy.predictor import Predictor

_BACKTESTED: Final = ("loss", "accuracy", "recall@10", "ndcg@10")


@options.reads_data
def evaluate(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder that train wrote.", metavar="DIR")],
    data: Annotated[str, typer.Argument(help="A source, as in train.")],
    model: Annotated[
        str | None, typer.Option("--model", help="The model of the JSON; default the best.")
    ] = None,
    backtest: Annotated[
        int | None,
        typer.Option(
            "--backtest",
            min=1,
            metavar="N",
            help="Train the bundle's config anew at N moments of the log, and score each.",
        ),
    ] = None,
    users: options.Users = None,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Score every model of a bundle on the purchases that came next in a log.

    With --backtest nothing of the bundle but its config is used.
    """
    from nextbuy.errors import ConfigError
    from nextbuy.predictor import Predictor

    predictor = Predictor.load(directory)
    if backtest is not None:
        _backtest(predictor, read, data, folds=backtest, users=users, json=json)
        return
    with ProgressBar():
        found = predictor.evaluate(
            read.source(data),
            options=read.options() if read.any_given() else None,
            users=users,
        )
    chosen = model or predictor.best_model
    if chosen not in found:
        raise ConfigError(f"No model {chosen!r} in {directory}; there is {', '.join(found)}.")
    if json:
        scores = found[chosen]
        print_json(
            {
                "model": chosen,
                "protocol": predictor.facts["protocol"],
                "metrics": scores.metrics,
                "intervals": scores.intervals,
                "slices": scores.slices,
                "models": {name: each.metrics for name, each in found.items()},
            }
        )
        return
    print_protocol(predictor.facts)
    order = sorted(found, key=lambda name: found[name].metrics["loss"])
    rows = [score_cells(name, found[name].metrics, None) for name in order]
    print_table(SCORE_COLUMNS, rows, title=f"Scores on {data}", bold=[0])
    if predictor.facts.get("timing"):
        print_line("\nwhen customers buy, as scored in training:")
        print_timing(predictor.facts)


def _backtest(
    predictor: "Predictor",
    read: options.DataFlags,
    data: str,
    *,
    folds: int,
    users: int | None,
    json: bool,
) -> None:
    from nextbuy.predictor.backtest import backtest, mean_scores

    asked = read.options() if read.any_given() else predictor.read_options()
    with ProgressBar() as progress:
        found = backtest(
            read.source(data), folds=folds, config=predictor.config, options=asked, users=users,
            progress=progress,
        )  # fmt: skip
    means = {name: mean_scores(found, name) for name in _BACKTESTED}
    if json:
        print_json({"folds": [fold.as_dict() for fold in found], "means": means})
        return
    print_line(f"{folds} moments, at each everything was trained anew on what lay before")
    order = sorted(means["loss"], key=means["loss"].__getitem__)
    for metric in _BACKTESTED:
        heads = [f"{fold.test_start:%Y-%m-%d}" for fold in found]
        scores = [{row.model: row.test.metrics[metric] for row in fold.rows} for fold in found]
        rows = [
            [name, *(number(each[name], 4) for each in scores), number(means[metric][name], 4)]
            for name in order
        ]
        print_table(["model", *heads, "mean"], rows, title=f"{metric}, test from", bold=[0])
