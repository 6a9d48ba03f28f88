"""`nextbuy forecast DIR`: when customers buy next, how often, and for how much."""

import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import (
    number,
    percent,
    print_json,
    print_line,
    print_note,
    print_table,
)
from nextbuy.cli.tables import check_format, write_table

if TYPE_CHECKING:
    import polars as pl

    from nextbuy.data.histories import Histories
    from nextbuy.predictor import Predictor

_SHOWN: Final = 20

_Lifetime = Annotated[
    int,
    typer.Option(
        "--lifetime-days", min=1, max=3650, help="Over which the lifetime value is counted."
    ),
]
_Discount = Annotated[
    float,
    typer.Option("--discount", min=0, max=10, help="Of the lifetime value, a year; 0.1 is 10 %."),
]


@options.reads_data
def forecast(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder that train wrote.", metavar="DIR")],
    user: Annotated[
        list[str] | None,
        typer.Option("--user", help="A user id; may be given several times. Default: everybody."),
    ] = None,
    history: Annotated[
        str | None, typer.Option("--history", help="A file of purchases of any users.")
    ] = None,
    as_of: options.AsOf = None,
    horizon_days: Annotated[
        int,
        typer.Option(
            "--horizon-days", min=1, max=3650, help="Over which purchases and spend are expected."
        ),
    ] = 90,
    lifetime_days: _Lifetime = 365,
    discount: _Discount = 0.1,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the table to this .csv or .parquet file.")
    ] = None,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Print when users buy next, how probably they do, how often, and for how much."""
    from nextbuy.errors import ConfigError
    from nextbuy.predictor import Predictor

    if user and history:
        raise ConfigError("Say who: --user ID (perhaps several times) or --history FILE, not both.")
    if out is not None:
        check_format(out)
    moment = options.moment_of(as_of)
    predictor = Predictor.load(directory)
    who, unknown = _asked(predictor, user, history, read)
    found = predictor.forecast(
        who, as_of=moment, horizon_days=horizon_days, lifetime_days=lifetime_days,
        discount=discount,
    )  # fmt: skip
    _print_notes(predictor, found, moment, unknown)
    if out is not None:
        write_table(found, out)
    if json:
        print_json(_report(predictor, found, out, unknown))
    elif out is not None:
        print_line(f"forecasts of {found.height:,} users: {out}")
    else:
        _print(found, horizon_days, lifetime_days)


def _report(
    predictor: "Predictor", found: "pl.DataFrame", out: Path | None, unknown: list[str]
) -> dict[str, Any]:
    """The object of `--json`; what is in a file is not in it."""
    rows = found if out is None else found.clear()
    return {
        "out": out and str(out),
        "unknown_users": unknown,
        "timing": predictor.facts["timing"],
        "forecasts": [row | {"as_of": row["as_of"].isoformat()} for row in rows.to_dicts()],
    }


def _asked(
    predictor: "Predictor", user: list[str] | None, history: str | None, read: options.DataFlags
) -> "tuple[Histories | None, list[str]]":
    """Whom the forecast is about, None for everybody, and ids that the log does not have."""
    if history is not None:
        asked = read.options() if read.any_given() else None
        who, num_left_out = predictor.encode_histories(history, asked)
        if num_left_out:
            print_note(f"{num_left_out} purchases of items that the bundle does not know: ignored")
        return who, []
    if not user:
        return None, []
    known = set(predictor.histories.user_ids)
    return predictor.histories_of(user), [one for one in user if one not in known]


def _print_notes(
    predictor: "Predictor", found: "pl.DataFrame", moment: datetime | None, unknown: list[str]
) -> None:
    """What a reader of the forecast must know."""
    from nextbuy.data.times import microseconds_of

    timing = predictor.facts["timing"]
    notes = [f"user {one!r} is not in the training log: nothing is forecast" for one in unknown]
    if moment is not None and microseconds_of(moment) > timing["observed_until"]:
        notes.append("--as-of is after the end of the log: it counts as if nobody bought since")
    spend = [name for name in found.columns if name.startswith("expected_spend")]
    if timing["spend"] not in ("gamma-gamma", "blend"):
        notes.append(f"no expected spend: {timing['spend']}")
    elif found.height and found[spend[0]].null_count() == found.height > len(unknown):
        notes.append("no expected spend: these purchases have no prices")
    for note in notes:
        print_note(note)


def _print(found: "pl.DataFrame", horizon_days: int, lifetime_days: int) -> None:
    shown = found.sort("p_buy_30d", descending=True, nulls_last=True, maintain_order=True)
    purchases, spend = f"expected_purchases_{horizon_days}d", f"expected_spend_{horizon_days}d"
    rows = [
        [
            str(row["user_id"]), _days(row["days_to_next_p10"]), _days(row["days_to_next_p50"]),
            _days(row["days_to_next_p90"]), percent(row["p_buy_7d"], 1),
            percent(row["p_buy_30d"], 1), percent(row["p_buy_90d"], 1), percent(row["p_active"], 1),
            number(row["expected_items_next_basket"], 1), number(row[purchases], 2),
            number(row[spend], 2),
            number(row[f"lifetime_value_{lifetime_days}d"], 2),
        ]
        for row in shown.head(_SHOWN).to_dicts()
    ]  # fmt: skip
    when = f"{found['as_of'][0]:%Y-%m-%d %H:%M} UTC" if found.height else "nobody"
    print_table(
        [
            "user", "days to next, 10 %", "50 %", "90 %", "in 7 days", "30 days", "90 days",
            "active", "items next time", f"purchases in {horizon_days} days", "spend",
            f"value in {lifetime_days} days",
        ],
        rows,
        title=f"Forecasts from {when}",
    )  # fmt: skip
    if found.height > _SHOWN:
        print_line(f"the {_SHOWN} of {found.height:,} users who most probably buy within 30 days")
        print_line("all of them: --out forecasts.csv or --json")


def _days(value: Any) -> str:
    """A wait; `never` where the user rather does not buy again."""
    return "never" if value is not None and math.isinf(value) else number(value, 1)
