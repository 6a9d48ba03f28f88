"""`nextbuy serve DIR`: the bundle behind HTTP."""

import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nextbuy.cli.rendering import print_line
from nextbuy.errors import MissingExtraError

if TYPE_CHECKING:
    from nextbuy.service.config import ServiceSettings


def serve(
    *,
    directory: Annotated[
        Path, typer.Argument(help="Folder that train wrote, or will write.", metavar="DIR")
    ],
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address; default 127.0.0.1. Another one needs --keys."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65_535, help="Default 8000; 0 takes a free one."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="Where purchases are kept; default DIR/purchases.sqlite."),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="File of keys, as 'nextbuy keys' makes it.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="Another name that clients may use; several times."),
    ] = None,
    page: Annotated[
        bool | None, typer.Option("--page/--no-page", help="Whether there is a page for people.")
    ] = None,
    model_process: Annotated[
        bool | None,
        typer.Option(
            "--model-process/--no-model-process",
            help="Whether the model has a process (and memory) of its own; if there are two cores.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file of settings; what is told here goes before it."),
    ] = None,
    log: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option("--log", help="What is logged, as JSON lines on standard error."),
    ] = "info",
) -> None:
    """Take purchases and answer questions over HTTP, until SIGTERM or Ctrl-C.

    What is acknowledged is stored, and the next answer knows it.
    """
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise MissingExtraError("fastapi", "serve", "The service")
    from nextbuy.service.config import ServiceSettings

    settings = ServiceSettings.of(
        config,
        {
            "host": host, "port": port, "store": store, "keys": keys, "page": page,
            "allowed_hosts": tuple(allowed_host) if allowed_host else None,
            "model_process": model_process,
        },
    )  # fmt: skip
    _serve(directory, settings, logging.getLevelNamesMapping()[log.upper()])


def _serve(directory: Path, settings: "ServiceSettings", level: int) -> None:
    """What can be refused at once comes first: a bundle takes seconds to load."""
    from nextbuy.service.guard import serving
    from nextbuy.service.guard.keys import KeyRing
    from nextbuy.service.guard.logs import write_json_lines

    ring = KeyRing(settings.keys)
    listening = serving.listen(settings.host, settings.port, ring)
    write_json_lines(level, sys.stderr)
    from nextbuy.service.assembly import open_service, share_the_processor

    share_the_processor()
    app = open_service(directory, settings, ring)
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    print_line(f"nextbuy serves {directory} at http://{name}:{listening.getsockname()[1]}")
    sys.stdout.flush()
    serving.serve(app, listening, settings.limits)
