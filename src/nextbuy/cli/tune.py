"""`nextbuy tune DATA --out DIR`: look for a better config of one model."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nextbuy.cli import options
from nextbuy.cli.clusters import on_cluster, starts_of
from nextbuy.cli.rendering import (
    ProgressBar,
    number,
    print_json,
    print_line,
    print_note,
    print_table,
)

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
            help="Seconds in all; time for the comparison on the test is kept back.",
        ),
    ] = None,
    metric: Annotated[
        Literal["loss", "ndcg@10", "recall@10", "accuracy"],
        typer.Option(
            "--metric", help="What trials are chosen by, on validation. Pruning looks at the loss."
        ),
    ] = "loss",
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, max=256, help="Processes that fit a trial each."),
    ] = 1,
    cluster: options.Cluster = None,
    level: options.Level = "item",
    split: options.SplitChoice = "auto",
    epochs: options.Epochs = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    users: options.Users = None,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Look for a better config of a model than its default, and say whether it is one.

    A search that was stopped goes on when the same command is given again. With --cluster, trials
    are fitted on its machines, which must see the folder under the same name.
    """
    from nextbuy.tuning.config import TuningConfig

    search = _search()
    config = TuningConfig.of(
        model=model, metric=metric, trials=trials, time_limit=time_limit, level=level,
        split=split, epochs=epochs, device=device, seed=seed, workers=workers,
    )  # fmt: skip
    with on_cluster(cluster, workers) as joined, ProgressBar() as progress:
        found = search(
            read.source(data), out, config=config, options=read.options(), users=users,
            progress=progress, say=print_note, start=starts_of(joined),
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
    rows = [
        _scores("validation", name, found.default["validation"], found.best["validation"])
        for name in found.default["validation"]
    ]
    if found.test is not None:
        rows += [
            _scores("test", name, found.test["default"], found.test["tuned"])
            for name in found.default["validation"]
        ]
    print_table(["part", "metric", "default", "tuned"], rows, title="Scores")
    if found.test is None:
        print_line(found.verdict)
    else:
        how = "again on everything before it" if found.test["fitted_again"] else "on training"
        print_line(
            f"on the test ({found.test['num_cases']:,} cases, both fitted {how}): {found.verdict}"
        )
    if found.looks > 1:
        print_line(f"the test was asked {found.looks} times in this study: believe it less")
    for picture in found.pictures:
        print_line(f"picture: {picture}")
    print_line(f"next:    nextbuy train {data} --config {found.config} --out BUNDLE")


def _scores(part: str, name: str, default: dict[str, float], tuned: dict[str, float]) -> list[str]:
    return [part, name, number(default[name], 4), number(tuned[name], 4)]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
