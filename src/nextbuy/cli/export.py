"""`nextbuy export DIR --onnx FOLDER`: a network of a bundle for other languages."""

from pathlib import Path
from typing import Annotated

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import print_json, print_line


def export(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder that train wrote.", metavar="DIR")],
    onnx: Annotated[
        Path,
        typer.Option(
            "--onnx",
            metavar="FOLDER",
            help="New folder for model.onnx, its catalog.parquet and export.json.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="Which network; default the transformer.")
    ] = None,
    k: options.K = 10,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Leave out the bundle's repeat policy and rules, and say so."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Write a network as an ONNX file: purchases in, log-probabilities and the best items out.

    The file is tried against the network on histories of the bundle before it is published.
    """
    from nextbuy.export import export_onnx
    from nextbuy.predictor import Predictor

    found = export_onnx(Predictor.load(directory), onnx, model=model, k=k, plain=plain)
    if json:
        print_json(found.as_dict())
        return
    print_line(f"{found.model} as {found.folder / 'model.onnx'}: {found.num_bytes:,} bytes")
    print_line(f"SHA-256 {found.sha256}")
    print_line(
        f"tried on {found.num_checked} histories: log-probabilities differ by at most "
        f"{found.largest_difference:.1e}"
    )
    print_line(f"what goes in and out: {found.folder / 'export.json'}")
