"""`nextbuy prepare SOURCE --out FOLDER`: histories in files, of a log of any size."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextbuy.cli import options
from nextbuy.cli.clusters import encoding_of, on_cluster
from nextbuy.cli.rendering import ProgressBar, print_json, print_line, print_note

if TYPE_CHECKING:
    from nextbuy.data.prepare.prepared import Prepared
    from nextbuy.data.prepare.survey import Forecast


@options.reads_data
def prepare(
    *,
    data: Annotated[
        str, typer.Argument(help="A file, folder or glob of Parquet, or of CSV or TSV.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the histories.")],
    memory_limit: Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            help="What may be held at once, such as 8GiB; default half of the machine's memory.",
        ),
    ] = None,
    buckets: Annotated[
        int | None,
        typer.Option(
            "--buckets",
            min=1,
            max=4096,
            help="Pieces that users are sorted in; default what fits the memory. The result does "
            "not depend on it.",
        ),
    ] = None,
    level: options.Level = "item",
    cluster: options.Cluster = None,
    workers: options.Workers = 2,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Turn a log that is larger than memory into histories that train maps from the disk.

    Says what it will take before it starts. A run that was stopped goes on when the same command is
    given again. Then: nextbuy train FOLDER --out BUNDLE. With --cluster, buckets are encoded by its
    workers, which must see the folder under the same name.
    """
    from nextbuy.data.prepare.preparing import facts_as_json, forecast, write_prepared_rejects
    from nextbuy.data.prepare.preparing import prepare as prepare_log
    from nextbuy.data.prepare.survey import PrepareConfig, parse_bytes

    config = PrepareConfig(
        memory_limit=None if memory_limit is None else parse_bytes(memory_limit),
        buckets=buckets, level=level,
    )  # fmt: skip
    source = read.file_source(data)
    expected = forecast(source, out, config)
    _say(expected)
    with on_cluster(cluster, workers) as found, ProgressBar() as progress:
        prepared = prepare_log(
            source, out, config, read.options(), progress, where=encoding_of(found)
        )
    if read.rejects is not None:
        write_prepared_rejects(prepared, read.rejects)
    if json:
        print_json({**facts_as_json(prepared), "forecast": expected.as_dict()})
        return
    _print(prepared)


def _say(expected: "Forecast") -> None:
    """What is to come, before it comes."""
    print_note(
        f"{expected.rows:,} rows, {_gib(expected.source_bytes)}: about "
        f"{_gib(expected.memory_bytes)} of memory at once ({_gib(expected.memory_limit)} may be "
        f"held), {_gib(expected.disk_bytes)} of disk on the way ({_gib(expected.disk_free)} are "
        f"free), {_gib(expected.result_bytes)} at the end; {expected.buckets} buckets"
    )


def _print(prepared: "Prepared") -> None:
    """The account of the rows, and what to type next."""
    facts: Any = prepared.facts
    rows = facts["rows"]
    print_note(
        f"rows in {rows['in']:,} = kept {rows['kept']:,} + rejected {rows['rejected']:,} "
        f"+ duplicates {rows['duplicates']:,}"
    )
    for guess in facts["guesses"]:
        print_note(guess)
    print_line(
        f"{facts['purchases']:,} purchases of {facts['users']:,} users and "
        f"{len(prepared.encoded.catalog):,} items"
    )
    print_line(f"next:   nextbuy train {prepared.folder} --out BUNDLE")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
