"""The command line: collects the commands, and turns errors into one line and an exit code."""

import logging
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from nextbuy import __version__
from nextbuy.cli import (
    audience,
    demo,
    doctor,
    due,
    evaluate,
    export,
    forecast,
    keys,
    predict,
    prepare,
    report,
    score,
    serve,
    store,
    train,
    tune,
    update,
)
from nextbuy.cli.rendering import print_error, print_line
from nextbuy.errors import NextbuyError

app = typer.Typer(
    name="nextbuy",
    help="From a log of purchases: what each customer buys next and where, honestly measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("prepare")(prepare.prepare)
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("score")(score.score)
app.command("forecast")(forecast.forecast)
app.command("audience")(audience.audience)
app.command("due")(due.due)
app.command("report")(report.report)
app.command("serve")(serve.serve)
app.command("update")(update.update)
app.command("export")(export.export)
app.add_typer(keys.app, name="keys")
app.add_typer(store.app, name="store")


def _show_version(asked: bool) -> None:
    if asked:
        print_line(f"nextbuy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show version.")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    if debug:
        for noisy in ("tensorflow", "h5py", "filelock"):
            logging.getLogger(noisy).setLevel(logging.WARNING)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code.

    0 is success, 1 an error with its reason in one line, 2 wrong usage, 128 + n signal n.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(arguments)
    except NextbuyError as error:
        if "--debug" in arguments:
            raise
        print_error(str(error))
        sys.exit(getattr(error, "exit_code", 1))
    except KeyboardInterrupt:
        print_error("Stopped.")
        sys.exit(130)
    sys.exit(0)
