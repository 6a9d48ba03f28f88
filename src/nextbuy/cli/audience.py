"""`nextbuy audience DIR`: who will most likely buy an item, or from a platform or category."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import number, percent, print_json, print_line, print_note, print_table
from nextbuy.cli.tables import check_format, read_ids, write_table

if TYPE_CHECKING:
    import polars as pl

    from nextbuy.predictor import Predictor

_SHOWN: Final = 20


_Item = Annotated[str | None, typer.Option("--item", help="What is to be bought.")]
_Platform = Annotated[str | None, typer.Option("--platform", help="Or where.")]
_Category = Annotated[str | None, typer.Option("--category", help="Or what kind.")]
_WithinDays = Annotated[
    int, typer.Option("--within-days", min=1, max=3650, help="Until when it is bought.")
]
_Size = Annotated[
    int | None, typer.Option("--size", min=1, help="Most users, those held out among them.")
]
_MinProbability = Annotated[
    float, typer.Option("--min-probability", min=0, max=1, help="Leave out who is less likely.")
]
_MinExpectedValue = Annotated[
    float | None,
    typer.Option("--min-expected-value", min=0, help="Leave out who is expected to spend less."),
]
_Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="A user id to leave out; may be given several times."),
]
_ExcludeFile = Annotated[
    Path | None,
    typer.Option(
        "--exclude-file",
        help="Users to leave out: a .csv or .parquet file with a column user_id, such as an "
        "earlier audience, or a text file with one id a line.",
    ),
]
_HoldoutShare = Annotated[
    float,
    typer.Option(
        "--holdout-share",
        min=0,
        max=0.99,
        help="Mark about this share as holdout: not to be addressed, to compare with.",
    ),
]
_Seed = Annotated[int, typer.Option("--seed", help="Another seed, another holdout group.")]
_Out = Annotated[
    Path | None, typer.Option("--out", help="Write the users to this .csv or .parquet file.")
]


def audience(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder that train wrote.", metavar="DIR")],
    item: _Item = None,
    platform: _Platform = None,
    category: _Category = None,
    within_days: _WithinDays = 30,
    size: _Size = None,
    min_probability: _MinProbability = 0.0,
    min_expected_value: _MinExpectedValue = None,
    exclude: _Exclude = None,
    exclude_file: _ExcludeFile = None,
    holdout_share: _HoldoutShare = 0.0,
    seed: _Seed = 0,
    as_of: options.AsOf = None,
    out: _Out = None,
    json: options.Json = False,
) -> None:
    """Print or write the users who will most likely buy something, best first."""
    from nextbuy.predictor import Predictor

    if out is not None:
        check_format(out)
    left_out = frozenset(exclude or []) | (read_ids(exclude_file) if exclude_file else frozenset())
    moment = options.moment_of(as_of)
    predictor = Predictor.load(directory)
    found = predictor.audience(
        item=item, platform=platform, category=category, within_days=within_days, size=size,
        min_probability=min_probability, min_expected_value=min_expected_value, exclude=left_out,
        holdout_share=holdout_share, seed=seed, as_of=moment,
    )  # fmt: skip
    _print_notes(predictor, found, within_days)
    if out is not None:
        write_table(found, out)
    if json:
        print_json(_report(predictor, found, out))
        return
    _print_sums(found, within_days)
    if out is not None:
        print_line(f"audience of {found.height:,} users: {out}")
    else:
        _print(found)


def _report(predictor: "Predictor", found: "pl.DataFrame", out: Path | None) -> dict[str, Any]:
    """The object of `--json`; users that went into a file are not repeated."""
    rows = found if out is None else found.clear()
    return {
        "out": out and str(out),
        "model": predictor.best_model,
        "num_users": found.height,
        "expected_buyers": found["probability"].sum(),
        "calibration": (predictor.facts.get("audience") or {}).get("calibration"),
        "audience": rows.to_dicts(),
    }


def _print_notes(predictor: "Predictor", found: "pl.DataFrame", within_days: int) -> None:
    """What a reader of the audience must know."""
    facts = predictor.facts.get("audience") or {}
    horizons = (facts.get("calibration") or {}).get("horizons") or []
    if not horizons:
        why = facts.get("reason") or "it was trained before there were audiences"
        print_note(f"probabilities are not calibrated: {why}")
    elif within_days > max(horizons):
        print_note(
            f"probabilities are calibrated for up to {max(horizons)} days; {within_days} days are "
            "beyond that"
        )
    if found.height and found["expected_value"].null_count() == found.height:
        print_note("no expected value: prices are not known")


def _print_sums(found: "pl.DataFrame", within_days: int) -> None:
    held = found.filter(found["group"] == "holdout").height
    print_line(
        f"{found.height:,} users, of whom {found['probability'].sum():,.1f} are expected to buy "
        f"within {within_days} days; {held:,} are held out"
    )


def _print(found: "pl.DataFrame") -> None:
    rows: list[list[str]] = [_cells(row) for row in found.head(_SHOWN).to_dicts()]
    print_table(
        ["user", "rank", "probability", "expected purchases", "expected value", "group"], rows,
        text_columns=(0, 5), title="Most likely to buy",
    )  # fmt: skip
    if found.height > _SHOWN:
        print_line(f"the first {_SHOWN} of {found.height:,}; all of them: --out audience.csv")


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        str(row["user_id"]), str(row["rank"]), percent(row["probability"], 1),
        number(row["expected_purchases"], 2), number(row["expected_value"], 2), row["group"],
    ]  # fmt: skip
