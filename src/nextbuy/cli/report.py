"""`nextbuy report DIR --out report.html`: what was found, for people."""

from pathlib import Path
from typing import Annotated

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import print_json, print_line


def report(
    directory: Annotated[Path, typer.Argument(help="Folder that train wrote.", metavar="DIR")],
    out: Annotated[Path, typer.Option("--out", help="The HTML file.")] = Path("report.html"),
    json: options.Json = False,
) -> None:
    """Write one HTML file that opens offline: data, scores, calibration, gains, customers."""
    from nextbuy.report import write_report

    written = write_report(directory, out)
    if json:
        print_json({"report": str(written), "bytes": written.stat().st_size})
        return
    print_line(f"report: {written}")
