"""`nextbuy keys add|list|remove FILE`: who may ask the service."""

from pathlib import Path
from typing import Annotated

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import print_json, print_line, print_note, print_table

app = typer.Typer(
    no_args_is_help=True,
    help="Keys of the service: a file holds their digests, names and scopes.",
)

KeyFile = Annotated[
    Path, typer.Argument(help="File of keys, as given to serve --keys.", metavar="FILE")
]
Name = Annotated[str, typer.Option("--name", help="Whose key it is; appears in logs.")]


@app.command("add")
def add(
    *,
    file: KeyFile,
    name: Name,
    scope: Annotated[
        list[str],
        typer.Option("--scope", help="read, write or admin (all); may be given several times."),
    ],
    json: options.Json = False,
) -> None:
    """Make a key and print it, once: only its digest is kept."""
    from nextbuy.service.guard.keys import add_key

    key = add_key(file, name, scope)
    if json:
        print_json({"name": name, "scopes": sorted(set(scope)), "key": key})
        return
    print_line(key)
    print_note(f"This is the key of {name!r}; it cannot be shown again. Send it with each request:")
    print_note(f"Authorization: Bearer {key[:6]}...")


@app.command("list")
def list_keys(*, file: KeyFile, json: options.Json = False) -> None:
    """Print names and scopes; no key can be read from the file."""
    from nextbuy.service.guard.keys import read_keys

    rows = [
        {"name": key.name, "scopes": sorted(key.scopes), "created": key.created}
        for key in read_keys(file)
    ]
    if json:
        print_json({"keys": rows})
        return
    print_table(
        ["name", "scopes", "created"],
        [[str(row["name"]), ", ".join(row["scopes"]), str(row["created"])] for row in rows],
        text_columns=(0, 1, 2),
    )


@app.command("remove")
def remove(*, file: KeyFile, name: Name) -> None:
    """Take a key away; a running service stops taking it within a second."""
    from nextbuy.service.guard.keys import remove_key

    remove_key(file, name)
    print_line(f"{name} is removed from {file}")
