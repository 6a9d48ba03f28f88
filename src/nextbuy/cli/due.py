"""`nextbuy due DIR`: which own items each customer is due to buy again."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import number, percent, print_json, print_line, print_note, print_table
from nextbuy.cli.tables import check_format, write_table

if TYPE_CHECKING:
    import polars as pl


_SHOWN: Final = 20


def due(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder that train wrote.", metavar="DIR")],
    user: Annotated[
        list[str] | None,
        typer.Option("--user", help="A user id; may be given several times. Default: everybody."),
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            "--as-of",
            metavar="DATE",
            help="From when days count, such as 2025-03-01; default the end of the log.",
        ),
    ] = None,
    within_days: Annotated[
        float,
        typer.Option("--within-days", help="Over which P(bought again) is told, above 0."),
    ] = 30.0,
    k: options.K = 10,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the table to this .csv or .parquet file.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Print which items users are due to buy again, by each item's own clock."""
    from nextbuy.predictor import Predictor

    if out is not None:
        check_format(out)
    predictor = Predictor.load(directory)
    known = set(predictor.histories.user_ids)
    unknown = [one for one in user or [] if one not in known]
    for one in unknown:
        print_note(f"user {one!r} is not in the training log: nothing is due")
    found = predictor.due(user or None, as_of=as_of, within_days=within_days, k=k)
    if out is not None:
        write_table(found, out)
    if json:
        rows = found if out is None else found.clear()
        print_json({"out": out and str(out), "unknown_users": unknown, "due": rows.to_dicts()})
    elif out is not None:
        print_line(f"{found.height:,} items that are due, by user: {out}")
    else:
        _print(found, within_days)


def _print(found: "pl.DataFrame", within_days: float) -> None:
    rows = [
        [
            str(row["user_id"]), str(row["item_id"]), str(row["times_bought"]),
            number(row["typical_gap_days"], 0), str(row["days_since_last"]),
            number(row["days_until_due_p10"], 0), number(row["days_until_due_p50"], 0),
            number(row["days_until_due_p90"], 0), percent(row["p_due_within"], 1),
        ]
        for row in found.head(_SHOWN).to_dicts()
    ]  # fmt: skip
    print_table(
        [
            "user", "item", "bought", "every (days)", "last (days ago)",
            "due in days, 10 %", "50 %", "90 %", f"within {within_days:g} days",
        ],
        rows,
        text_columns=(0, 1),
        title="Due again",
    )  # fmt: skip
    if found.height > _SHOWN:
        print_line(f"the first {_SHOWN} of {found.height:,}; all: --out due.csv or --json")
