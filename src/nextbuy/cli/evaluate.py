"""`nextbuy evaluate DIR DATA`: score a bundle on a log."""

from pathlib import Path
from typing import Annotated

import typer

from nextbuy.cli import options
from nextbuy.cli.leaderboard import SCORE_COLUMNS, print_protocol, score_cells
from nextbuy.cli.rendering import ProgressBar, print_json, print_table


@options.reads_data
def evaluate(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder that train wrote.", metavar="DIR")],
    data: Annotated[str, typer.Argument(help="A source, as in train.")],
    model: Annotated[
        str | None, typer.Option("--model", help="The model of the JSON; default the best.")
    ] = None,
    users: options.Users = None,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Score every model of a bundle on the purchases that came next in a log."""
    from nextbuy.errors import ConfigError
    from nextbuy.predictor import Predictor

    predictor = Predictor.load(directory)
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
