"""`nextbuy tune DATA --out DIR`: look for a better config of one model."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nextbuy.cli import options
from nextbuy.cli.clusters import on_cluster, workers_of
from nextbuy.cli.rendering import ProgressBar, number, print_json, print_line, print_table

if TYPE_CHECKING:
    from nextbuy.tuning.tune import Tuned


@options.reads_data
def tune(
    *,
    data: options.Data,
    out: Annotated[Path, typer.Option("--out", help="Folder for the study and what comes of it.")],
    model: Annotated[str, typer.Option("--model", help="Which model.")] = "transformer",
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Trials in all, the default config first.")
    ] = 30,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            min=1,
            help="Seconds for the search. Fitting and asking the test come after it.",
        ),
    ] = None,
    metric: Annotated[
        Literal["loss", "ndcg@10"],
        typer.Option("--metric", help="What trials are chosen by, on validation."),
    ] = "loss",
    level: options.Level = "item",
    split: options.SplitChoice = "auto",
    epochs: options.Epochs = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    users: options.Users = None,
    cluster: options.Cluster = None,
    workers: options.Workers = 2,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Look for a better config of a model than its default, and say whether it is one.

    A search that was stopped goes on when the same command is given again.
    """
    from nextbuy.tuning.config import TuningConfig

    search = _search()
    config = TuningConfig.of(
        model=model, metric=metric, trials=trials, time_limit=time_limit, level=level,
        split=split, epochs=epochs, device=device, seed=seed,
    )  # fmt: skip
    with on_cluster(cluster, workers) as there, ProgressBar() as progress:
        found = search(
            read.source(data), out, config=config, options=read.options(), users=users,
            progress=progress, workers=workers_of(there),
        )  # fmt: skip
    if json:
        print_json(_report(found))
        return
    _print(found, data, config.model)


def _search() -> "Callable[..., Tuned]":
    """The search, whose package is an extra."""
    try:
        from nextbuy.tuning.tune import tune as search
    except ImportError as error:
        if (error.name or "").split(".")[0] != "optuna":
            raise
        from nextbuy.errors import MissingExtraError

        raise MissingExtraError("optuna", "tune", "Tuning") from error
    return search


def _report(found: "Tuned") -> dict[str, Any]:
    """The object of `--json`."""
    pictures = [str(path) for path in found.pictures]
    return asdict(found) | {"config": str(found.config), "pictures": pictures}


def _print(found: "Tuned", data: str, model: str) -> None:
    """What was tried, what came of it, and what to type next."""
    counts = found.trials
    print_line(f"protocol: {found.protocol}")
    print_line(
        f"{sum(counts.values())} trials: {counts['complete']} complete, {counts['pruned']} pruned, "
        f"{counts['fail']} failed"
    )
    fields = [
        [path, _shown(found.default["values"][path]), _shown(value)]
        for path, value in found.best["values"].items()
    ]
    print_table(["field", "default", "tuned"], fields, title=f"Config of {model}")
    rows = [_scores("validation", found.default["validation"], found.best["validation"])]
    if found.test is not None:
        rows.append(_scores("test", found.test["default"], found.test["tuned"]))
    columns = ["part", "loss default", "loss tuned", "ndcg@10 default", "ndcg@10 tuned"]
    print_table(columns, rows, title="Scores")
    if found.test is None:
        print_line("the default is the best on validation; the test was not asked")
    else:
        print_line(f"on the test ({found.test['num_cases']:,} cases): {found.test['verdict']}")
    if found.looks > 1:
        print_line(f"the test was asked {found.looks} times in this study: believe it less")
    for picture in found.pictures:
        print_line(f"picture: {picture}")
    print_line(f"next:    nextbuy train {data} --config {found.config} --out BUNDLE")


def _scores(part: str, default: dict[str, float], tuned: dict[str, float]) -> list[str]:
    both = [(default[name], tuned[name]) for name in ("loss", "ndcg@10")]
    return [part, *(number(value, 4) for pair in both for value in pair)]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
