"""`nextbuy train DATA --out DIR`: fit models, score them, publish a bundle."""

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextbuy.cli import options
from nextbuy.cli.clusters import on_cluster, workers_of
from nextbuy.cli.config_file import given_flags, with_file
from nextbuy.cli.leaderboard import print_leaderboard, print_reading
from nextbuy.cli.rendering import ProgressBar, print_json, print_line

if TYPE_CHECKING:
    from nextbuy.predictor import Predictor


@options.reads_data
def train(
    *,
    context: typer.Context,
    data: options.Data,
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle and its checkpoints.")],
    config_file: options.ConfigFile = None,
    preset: options.Preset = "balanced",
    models: options.Models = None,
    time_limit: options.TimeLimit = None,
    memory_limit: options.MemoryLimit = None,
    refit: options.Refit = True,
    refit_full: options.RefitFull = False,
    engine: options.EngineChoice = "torch",
    level: options.Level = "item",
    split: options.SplitChoice = "auto",
    repeat: options.Repeat = "allow",
    rules: options.RulesFile = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    tokens: options.Tokens = None,
    dropout: options.Dropout = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    users: options.Users = None,
    cluster: options.Cluster = None,
    workers: options.Workers = 2,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Fit models on purchases, score them on what came next, and publish a bundle.

    A run that was stopped goes on when the same command is given again.
    """
    from nextbuy.predictor import Predictor, PredictorConfig

    given = given_flags(context)
    of_file = set() if config_file is None else {"engine", "device"} - given
    networks = _network_options(engine, device, learning_rate, tokens, dropout, without=of_file)
    flags = {
        "preset": preset,
        "models": models and [name.strip() for name in models.split(",") if name.strip()],
        "level": level, "split": split, "repeat": repeat, "epochs": epochs, "seed": seed,
        "time_limit": time_limit, "memory_limit": memory_limit, "rules": options.read_rules(rules),
        "refit": refit, "refit_full": refit_full, "options": networks,
    }  # fmt: skip
    config = PredictorConfig.of(**with_file(config_file, flags, given))
    with on_cluster(cluster, workers) as found, ProgressBar() as progress:
        predictor = Predictor.fit(
            read.source(data), config=config, options=read.options(), users=users,
            run_folder=out / "run", progress=progress, workers=workers_of(found),
        )  # fmt: skip
        version = predictor.save(out)
    read.write_rejects(predictor.source)
    if json:
        print_json(_report(predictor, version))
        return
    _print(predictor, out, version)


def _print(predictor: "Predictor", out: Path, version: Path) -> None:
    """What a person wants to know, and what to type next."""
    print_reading(predictor)
    print_leaderboard(predictor)
    print_line(f"\nbundle: {version}")
    print_line(f"next:   nextbuy predict {out} --user ID --k 5")
    if predictor.forecaster is not None:
        print_line(f"        nextbuy forecast {out} --out forecasts.csv")
        print_line(f"        nextbuy audience {out} --item ID --within-days 7 --out audience.csv")
    print_line(f"        nextbuy serve {out}")


def _network_options(
    engine: str,
    device: str,
    learning_rate: float | None,
    tokens: int | None,
    dropout: float | None,
    *,
    without: Set[str],
) -> dict[str, Any]:
    """What was said about each network, `without` some of it; the rest keeps its defaults."""
    training = {"learning_rate": learning_rate, "tokens": tokens}
    network = {
        "engine": engine,
        "device": device,
        "dropout": dropout,
        "training": {name: value for name, value in training.items() if value is not None},
    }
    told = {k: v for k, v in network.items() if v is not None and k not in without}
    of_torch = {name: value for name, value in told.items() if name != "engine"}
    return {"lstm-rnn": told, "gru": of_torch, "transformer": of_torch}


def _report(predictor: "Predictor", version: Path) -> dict[str, Any]:
    """The object of `--json`."""
    from nextbuy.bundle import content_hash

    return {
        "bundle": str(version),
        "hash": content_hash(version),
        "protocol": predictor.facts["protocol"],
        "rows": predictor.facts["rows"],
        "limit": predictor.facts["limit"],
        "leaderboard": predictor.facts["leaderboard"],
        "blend": predictor.facts["blend"],
        "skipped": predictor.facts["skipped"],
        "scored_share": predictor.facts["scored_share"],
        "timing": predictor.facts["timing"],
    }
