"""`nextbuy store ...`: back up, restore, check and fill the store of live purchases."""

from pathlib import Path
from typing import Annotated

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import ProgressBar, print_json, print_line

app = typer.Typer(
    help="Back up, restore, check and fill the store of live purchases.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[
    str, typer.Argument(help="A path, sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME.")
]


@app.command("backup")
def backup(
    url: Url,
    target: Annotated[Path, typer.Argument(help="A new file; nothing is overwritten.")],
    json: options.Json = False,
) -> None:
    """Write a copy of one moment, while the service goes on."""
    from nextbuy.service.store.opening import open_store

    store = open_store(url, read_only=True)
    try:
        store.back_up(target)
    finally:
        store.close()
    if json:
        print_json({"backup": str(target), "bytes": target.stat().st_size})
        return
    print_line(f"backup: {target}")


@app.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(help="A backup.", metavar="BACKUP")],
    url: Url,
    json: options.Json = False,
) -> None:
    """Put a backup in the place of an SQLite store, or into an empty PostgreSQL store.

    The service must be stopped. What an SQLite store was is kept beside it.
    """
    from nextbuy.service.store.opening import need_sqlite, shown

    need_sqlite("Restoring a store")
    from nextbuy.service.store.restoring import restore as restore_store

    aside = restore_store(source, url)
    if json:
        print_json({"store": shown(url), "replaced": None if aside is None else str(aside)})
        return
    print_line(f"restored: {shown(url)}")
    if aside is not None:
        print_line(f"what was there: {aside}")


@app.command("check")
def check(url: Url, json: options.Json = False) -> None:
    """Read every page and row, and say how much there is; damage is an error."""
    from nextbuy.service.store.opening import open_store

    store = open_store(url, read_only=True)
    try:
        store.check_whole()
        found = {"last_sequence": store.last_sequence(), "forgotten": len(store.forgotten())}
    finally:
        store.close()
    if json:
        print_json(found)
        return
    print_line("The store is whole.")
    print_line(f"last sequence: {found['last_sequence']:,}")
    print_line(f"users forgotten: {found['forgotten']:,}")


@app.command("import")
@options.reads_data
def import_(
    *,
    url: Url,
    data: Annotated[str, typer.Argument(help="A source, as in train.")],
    users: options.Users = None,
    seed: options.Seed = 0,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Store the purchases of a log; those that an earlier import stored are left out."""
    from nextbuy.data.sources import load_source
    from nextbuy.service.store.importing import import_log
    from nextbuy.service.store.opening import open_store

    with ProgressBar() as progress:
        source = load_source(
            read.source(data), users=users, seed=seed, options=read.options(), progress=progress
        )
        read.write_rejects(source)
        store = open_store(url)
        try:
            imported = import_log(store, source.purchases, progress)
        finally:
            store.close()
    rejected = source.purchases.counts.rejected
    if json:
        print_json(
            {
                "stored": imported.stored,
                "repeated": imported.repeated,
                "rejected": rejected,
                "last_sequence": imported.last_sequence,
            }
        )
        return
    print_line(
        f"{imported.stored:,} purchases stored, {imported.repeated:,} were there already, "
        f"{rejected:,} rows rejected"
    )
