"""`nextbuy update DIR --from DATA`: a challenger, and whether it takes over."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import ProgressBar, number, print_json, print_line, print_table

if TYPE_CHECKING:
    from nextbuy.service.watching.promotion import Comparison
    from nextbuy.service.watching.update import Update

_STORE: Final = "store:"
_TAKEN_OVER: Final = """a service that runs takes it with: POST /v1/model {"name": "latest"}"""
_WORDS: Final = {"loss": "loss (lower is better)"}


@options.reads_data
def update(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder that train wrote.", metavar="DIR")],
    data: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DATA",
            help="The newest log, as in train; store:URL joins a store and the bundle's histories.",
        ),
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Let the version before answer again.")
    ] = False,
    incremental: Annotated[
        bool,
        typer.Option("--incremental", help="Networks learn only what was bought since: faster."),
    ] = False,
    loss_tolerance: Annotated[
        float,
        typer.Option("--loss-tolerance", min=0, help="Nats that the loss may be higher, at worst."),
    ] = 0.02,
    ndcg_tolerance: Annotated[
        float, typer.Option("--ndcg-tolerance", min=0, help="That ndcg@10 may be lower, at worst.")
    ] = 0.01,
    fewest_cases: Annotated[
        int, typer.Option("--fewest-cases", min=1, help="New cases; fewer decide nothing.")
    ] = 50,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Train the bundle's config on the newest log, and let it take over if it is not worse.

    Both are asked about what was bought after the present version's last purchase, with
    --incremental about the newer half of it. The new version is kept either way; LATEST names it
    only if it takes over.
    """
    from nextbuy.errors import ConfigError

    if rollback == (data is not None):
        raise ConfigError("Say --from DATA to update, or --rollback to go back; one of the two.")
    if data is None:
        _roll_back(directory, json=json)
        return
    from nextbuy.service.watching.promotion import PromotionConfig
    from nextbuy.service.watching.update import update as run_update

    config = PromotionConfig(
        loss_tolerance=loss_tolerance, ndcg_tolerance=ndcg_tolerance, fewest_cases=fewest_cases
    )
    with ProgressBar() as progress, _log(data, read) as log:
        found = run_update(
            directory, log, config=config,
            options=read.options() if read.any_given() else None, progress=progress,
            incremental=incremental,
        )  # fmt: skip
    if json:
        print_json(found.as_dict())
    else:
        _print(found, directory)


def _print(found: "Update", directory: Path) -> None:
    if found.comparison is not None:
        _print_comparison(found.comparison, found.champion, str(found.challenger))
    if found.promoted:
        print_line(f"version {found.challenger} answers from now on: {found.reason}.")
        print_line(f"back: nextbuy update {directory} --rollback")
        print_line(_TAKEN_OVER)
    else:
        print_line(f"version {found.champion} stays: {found.reason}.")


@contextmanager
def _log(data: str, read: options.DataFlags) -> Iterator[Any]:
    """The log that is meant, with its store open meanwhile."""
    if not data.startswith(_STORE):
        yield read.source(data)
        return
    from nextbuy.service.store.opening import open_store, shown
    from nextbuy.service.watching.update import LiveLog

    url = data.removeprefix(_STORE)
    store = open_store(url, read_only=True)
    try:
        yield LiveLog(name=_STORE + shown(url), store=store)
    finally:
        store.close()


def _roll_back(directory: Path, *, json: bool) -> None:
    from nextbuy.service.watching.update import rollback

    before, now = rollback(directory)
    if json:
        print_json({"before": before, "now": now})
        return
    print_line(f"version {now} answers again, instead of {before}.")
    print_line(_TAKEN_OVER)


def _print_comparison(found: "Comparison", champion: str, challenger: str) -> None:
    rows = [
        [
            _WORDS.get(name, name), number(each.champion, 4), number(each.challenger, 4),
            f"{each.gain.difference:+.4f}", f"{each.gain.low:+.4f} to {each.gain.high:+.4f}",
        ]
        for name, each in found.metrics.items()
    ]  # fmt: skip
    print_table(
        ["metric", f"{champion} ({found.champion})", f"{challenger} ({found.challenger})",
         "gain", "95 % interval"],
        rows,
        title=f"{found.num_cases} customers who bought from {_day(found.since)} to "
        f"{_day(found.until)}, which neither has learnt from",
    )  # fmt: skip


def _day(moment: Any) -> str:
    return f"{datetime.fromtimestamp(moment / 1e6, tz=UTC):%Y-%m-%d %H:%M}"
