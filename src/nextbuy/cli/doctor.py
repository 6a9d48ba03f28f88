"""`nextbuy doctor DATA`: what is in a log, and what to do about it."""

from typing import Annotated, Any

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import ProgressBar, print_json, print_line, print_table


@options.reads_data
def doctor(
    *,
    data: Annotated[str, typer.Argument(help="A source, as in train.")],
    users: options.Users = None,
    seed: options.Seed = 0,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Check a log before training: counts, oddities, and what to do about each."""
    from nextbuy.data.doctor import examine
    from nextbuy.data.reading import write_rejects
    from nextbuy.data.sources import load_source

    with ProgressBar():
        source = load_source(read.source(data), users=users, seed=seed, options=read.options())
        examination = examine(source.purchases)
    if read.rejects is not None:
        write_rejects(source.purchases, read.rejects)
    report: dict[str, Any] = examination.as_dict()
    if json:
        print_json(report)
        return
    facts = [[name.replace("_", " "), _shown(value)] for name, value in report.items()
             if name not in ("rows", "findings")]  # fmt: skip
    rows = report["rows"]
    print_line(
        f"rows in {rows['in']:,} = kept {rows['kept']:,} + rejected {rows['rejected']:,} "
        f"+ duplicates {rows['duplicates']:,}"
    )
    print_table(["fact", "value"], facts, title=f"What is in {data}", text_columns=(0, 1))
    if not report["findings"]:
        print_line("Nothing to worry about was found.")
    for finding in report["findings"]:
        print_line(f"\n{finding['severity'].upper()} {finding['code']}: {finding['found']}")
        print_line(f"  what to do: {finding['advice']}")


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
