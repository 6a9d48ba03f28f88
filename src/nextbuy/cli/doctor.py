"""`nextbuy doctor DATA`: what is in a log, and what to do about it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import ProgressBar, print_json, print_line, print_table

if TYPE_CHECKING:
    from nextbuy.data.purchases import Purchases


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
    from nextbuy.errors import ConfigError

    with ProgressBar():
        source = load_source(read.source(data), users=users, seed=seed, options=read.options())
        if source.prepared is not None:
            raise ConfigError(
                f"{data} is a prepared log, whose rows were checked then; its account is in "
                "prepared.json. Give the doctor the log that it was prepared from."
            )
        examination = examine(source.purchases)
        order = _order(source.purchases, seed)
    if read.rejects is not None:
        write_rejects(source.purchases, read.rejects)
    report: dict[str, Any] = examination.as_dict() | {"order": order}
    if json:
        print_json(report)
        return
    facts = [[name.replace("_", " "), _shown(value)] for name, value in report.items()
             if name not in ("rows", "findings", "order")]  # fmt: skip
    facts.append(["does the order matter?", _in_words(order)])
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


def _order(purchases: "Purchases", seed: int) -> dict[str, Any] | None:
    """Whether the last purchase tells more than any other; None where it cannot be asked."""
    from nextbuy.data.encoding import encode
    from nextbuy.errors import SplitError
    from nextbuy.splitting.choice import choose_split
    from nextbuy.training.order import order_test

    encoded = encode(purchases)
    name = "temporal" if purchases.time_kind == "dates" else "leave-last-out"
    try:
        split = choose_split(name, encoded.catalog, encoded.histories, seed=seed)
    except SplitError:
        return None
    found = order_test(split.train, split.validation, num_items=len(split.catalog), seed=seed)
    return {
        "matters": found.order_matters,
        "gain": found.gain,
        "standard_error": found.standard_error,
        "cases": found.num_cases,
    }


def _in_words(order: dict[str, Any] | None) -> str:
    if order is None or order["cases"] < 100:
        return "too little data to tell"
    worth = f"{order['gain']:.3f} nats a purchase (standard error {order['standard_error']:.3f})"
    if order["matters"]:
        return f"yes: what was bought last is worth {worth} over any other purchase"
    return f"no: shuffled histories tell as much ({worth})"


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
