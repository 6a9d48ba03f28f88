"""`nextbuy train DATA --out DIR`: fit models, score them, publish a bundle."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nextbuy.cli import options
from nextbuy.cli.leaderboard import print_leaderboard, print_reading
from nextbuy.cli.rendering import ProgressBar, print_json, print_line


@options.reads_data
def train(
    *,
    data: Annotated[
        str,
        typer.Argument(
            help="world:uniform, world:market, complete-journey, a path, or an SQL URL."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle and its checkpoints.")],
    models: options.Models = "popularity,personal-frequency,lstm-rnn",
    engine: options.EngineChoice = "torch",
    level: options.Level = "item",
    split: options.SplitChoice = "auto",
    repeat: options.Repeat = "allow",
    epochs: options.Epochs = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Highest rate of lstm-rnn.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Positions in a batch of lstm-rnn.")
    ] = None,
    dropout: Annotated[
        float | None, typer.Option("--dropout", min=0, max=0.95, help="Of lstm-rnn.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda, for lstm-rnn.")] = "cpu",
    seed: options.Seed = 0,
    users: options.Users = None,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Fit models on purchases, score them on what came next, and publish a bundle.

    A run that was stopped goes on when the same command is given again.
    """
    from nextbuy.predictor import Predictor, PredictorConfig

    training: dict[str, Any] = {"learning_rate": learning_rate, "tokens": tokens}
    network: dict[str, Any] = {
        "engine": engine,
        "device": device,
        "training": {name: value for name, value in training.items() if value is not None},
    }
    if dropout is not None:
        network["dropout"] = dropout
    config = PredictorConfig(
        models=tuple(name.strip() for name in models.split(",") if name.strip()),
        level=level,
        split=split,
        repeat=repeat,
        epochs=epochs,
        seed=seed,
        options={"lstm-rnn": network},
    )
    with ProgressBar() as progress:
        predictor = Predictor.fit(
            read.source(data),
            config=config,
            options=read.options(),
            users=users,
            run_folder=out / "run",
            progress=progress,
        )
        version = predictor.save(out)
    if predictor.source is not None and read.rejects is not None:
        from nextbuy.data.reading import write_rejects

        write_rejects(predictor.source.purchases, read.rejects)
    if json:
        best = predictor.best_model
        rows = [row | {"weight": float(row["model"] == best)}
                for row in predictor.facts["leaderboard"]]  # fmt: skip
        print_json(
            {
                "bundle": str(version),
                "protocol": predictor.facts["protocol"],
                "rows": predictor.facts["rows"],
                "limit": predictor.facts["limit"],
                "leaderboard": rows,
            }
        )
        return
    print_reading(predictor)
    print_leaderboard(predictor)
    print_line(f"\nbundle: {version}")
    print_line(f"next:   nextbuy predict {out} --user ID --k 5")
