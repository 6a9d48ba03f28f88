"""`nextbuy predict DIR`: the most probable next purchases of users or raw histories."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nextbuy.cli import options
from nextbuy.cli.rendering import percent, print_json, print_note, print_table


@options.reads_data
def predict(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder that train wrote.", metavar="DIR")],
    user: Annotated[
        list[str] | None, typer.Option("--user", help="A user id; may be given several times.")
    ] = None,
    history: Annotated[
        str | None, typer.Option("--history", help="A file of purchases of any users.")
    ] = None,
    k: options.K = 5,
    model: Annotated[
        str | None, typer.Option("--model", help="Which model answers; default the best.")
    ] = None,
    rules: options.RulesFile = None,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Print the most probable next purchases, with original ids and probabilities."""
    from nextbuy.errors import ConfigError
    from nextbuy.predictor import Predictor

    if bool(user) == bool(history):
        raise ConfigError(
            "Say who: --user ID (perhaps several times) or --history FILE, one of the two."
        )
    predictor = Predictor.load(directory)
    unknown = []
    if history is not None:
        asked = read.options() if read.any_given() else None
        who, num_left_out = predictor.encode_histories(history, asked)
        if num_left_out:
            print_note(f"{num_left_out} purchases of items that the bundle does not know: ignored")
    else:
        known = set(predictor.histories.user_ids)
        unknown = [one for one in user or [] if one not in known]
        for one in unknown:
            print_note(f"user {one!r} is not in the training log: predicted without a history")
        who = predictor.histories_of(user or [])
    found = predictor.predict(who, k=k, model=model, rules=options.read_rules(rules))
    if json:
        print_json(
            {
                "model": model or predictor.best_model,
                "unknown_users": unknown,
                "predictions": found.to_dicts(),
            }
        )
        return
    _print(found.to_dicts(), model or predictor.best_model)


def _print(offers: list[dict[str, Any]], model: str) -> None:
    rows = [
        [
            str(row["user_id"]), str(row["rank"]), str(row["item_id"]), row["platform"] or "–",
            row["category"] or "–", percent(row["probability"]), row["reason"],
        ]
        for row in offers
    ]  # fmt: skip
    print_table(
        ["user", "rank", "item", "platform", "category", "probability", "reason"],
        rows,
        text_columns=(0, 2, 3, 4, 6),
        title=f"Next purchases, by {model}",
    )
