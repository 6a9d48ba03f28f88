"""`nextbuy demo`: the described run, from a made world to a table, a bundle and pictures."""

import json as json_module
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from nextbuy.cli import options
from nextbuy.cli.leaderboard import print_protocol, print_reading
from nextbuy.cli.rendering import (
    ProgressBar,
    number,
    percent,
    print_json,
    print_line,
    print_note,
    print_table,
)

if TYPE_CHECKING:
    from nextbuy.predictor import Predictor

DESCRIBED_ATTEMPT = {"loss": 8.18, "accuracy": 0.0478, "precision": 0.062, "recall": 0.034}
"""What an earlier attempt at `world:uniform` printed after 10 epochs: the figures to beat."""

MARKET_USERS = 5_000
"""Enough to learn from, few enough for both engines within minutes; `train` takes them all."""

MODELS = ("popularity", "personal-frequency", "lstm-rnn-tensorflow", "lstm-rnn")
SHOWN_NAMES = {"lstm-rnn-tensorflow": "lstm-rnn (tensorflow)"}


@options.reads_data
def demo(
    *,
    world: Annotated[
        Literal["uniform", "market"], typer.Option("--world", help="Which world to make.")
    ] = "uniform",
    data: Annotated[
        str | None, typer.Option("--data", help="Your own file or source instead of a world.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for bundle, JSON and pictures.")
    ] = Path("nextbuy-demo"),
    level: options.Level = "item",
    epochs: options.Epochs = None,
    seed: options.Seed = 0,
    users: Annotated[
        int | None,
        typer.Option(
            "--users", min=1, help=f"Users of the world: uniform 50000, market {MARKET_USERS}."
        ),
    ] = None,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Make a world, encode, train on both engines, evaluate, and print one table."""
    from nextbuy.predictor import Predictor, PredictorConfig

    source = f"world:{world}" if data is None else data
    if source == "world:market" and users is None:
        users = MARKET_USERS
    config = PredictorConfig.of(
        models=_available_models(), blend=False, level=level, epochs=epochs, seed=seed
    )
    with ProgressBar() as progress:
        predictor = Predictor.fit(
            read.source(source), config=config, options=read.options(), users=users,
            run_folder=out / "run", progress=progress,
        )  # fmt: skip
        version = predictor.save(out)
    read.write_rejects(predictor.source)
    report = _report(predictor, source)
    (out / "demo.json").write_text(json_module.dumps(report, indent=2) + "\n", encoding="utf-8")
    pictures = _draw(predictor, out)
    if json:
        print_json(report)
        return
    print_reading(predictor)
    print_protocol(predictor.facts)
    _print_scores(report, is_described=source == "world:uniform")
    _print_users(predictor)
    print_line(f"\nbundle:   {version}")
    print_line(f"numbers:  {out / 'demo.json'}")
    for picture in pictures:
        print_line(f"picture:  {picture}")
    print_line(f"next:     nextbuy predict {out} --user {predictor.histories.user_ids[0]} --k 5")


def _available_models() -> tuple[str, ...]:
    """Both engines where TensorFlow is installed, else torch alone."""
    import importlib.util

    has_tensorflow = importlib.util.find_spec("tensorflow") is not None
    return tuple(m for m in MODELS if has_tensorflow or m != "lstm-rnn-tensorflow")


def _report(predictor: "Predictor", source: str) -> dict[str, Any]:
    """The object of `--json`."""
    models = {
        SHOWN_NAMES.get(row["model"], row["model"]): row["test"]
        | {"fit_seconds": row["fit_seconds"], "intervals": row["intervals"]}
        for row in predictor.facts["leaderboard"]
    }
    return {
        "world": source,
        "protocol": predictor.facts["protocol"],
        "limit": predictor.facts["limit"],
        "described_attempt": DESCRIBED_ATTEMPT if source == "world:uniform" else None,
        "models": {name: _finite(scores) for name, scores in models.items()},
    }


def _finite(scores: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in scores.items()
    }


def _print_scores(report: dict[str, Any], *, is_described: bool) -> None:
    limit = report["limit"]
    rows = []
    if is_described:
        rows.append(_cells("the described attempt", DESCRIBED_ATTEMPT, limit))
    rows += [_cells(name, scores, limit) for name, scores in report["models"].items()]
    if limit:
        best = {**limit, "expected_accuracy": limit["accuracy"]}
        rows.append(_cells("limit: nothing can do better", best, limit))
    columns = ["", "loss", "loss / limit", "accuracy", "expected", "precision", "recall", "seconds"]
    networks = [n for n, row in enumerate(rows) if row[0].startswith("lstm-rnn")]
    dim = [len(rows) - 1] if limit else []
    print_table(columns, rows, title="Next purchase of test users", bold=networks, dim=dim)
    if limit:
        print_line(
            "accuracy: share of test users whose purchase was named, by luck too. expected: the "
            "true probability of what was named, without luck; the limit is its maximum."
        )
    if is_described and limit:
        print_line(
            "On this world the next purchase is pure chance among the platforms not yet bought on. "
            "The limit is for these very test users; over all users it is loss "
            "ln(47!)/47 = 2.911 and accuracy H(47)/47 = 9.44 %."
        )
    elif limit:
        popularity, network = (report["models"][n]["loss"] for n in ("popularity", "lstm-rnn"))
        way = (popularity - network) / (popularity - limit["loss"])
        print_line(f"lstm-rnn has gone {percent(way, 0)} of the way from popularity to the limit.")


def _cells(name: str, scores: dict[str, Any], limit: dict[str, float] | None) -> list[str]:
    ratio = scores["loss"] / limit["loss"] if limit else None
    return [
        name,
        number(scores["loss"]),
        number(ratio),
        percent(scores["accuracy"]),
        percent(scores.get("expected_accuracy")),
        percent(scores["precision"]),
        percent(scores["recall"]),
        number(scores.get("fit_seconds"), 1),
    ]


def _print_users(predictor: "Predictor", count: int = 5) -> None:
    """A few test users: what they bought, what is predicted, what they really bought next."""
    if predictor.split is None:
        return
    test = predictor.split.test
    lengths = test.histories.lengths
    chosen = np.flatnonzero((lengths >= 2) & (lengths <= 12))[:count]
    cases = test.take(chosen)
    model = "lstm-rnn"
    predictions = predictor.predict(cases.histories, k=3, model=model, as_of=cases.as_of)
    rows = []
    for place, user in enumerate(cases.histories.user_ids):
        own = slice(cases.histories.offsets[place], cases.histories.offsets[place + 1])
        bought = predictor.catalog.ids(cases.histories.items[own])["item_id"].to_list()
        answer = cases.target_items[cases.target_offsets[place] : cases.target_offsets[place + 1]]
        actual = predictor.catalog.ids(answer[answer > 0])["item_id"].to_list() or ["unknown item"]
        mine = predictions.slice(place * 3, 3)
        guesses = ", ".join(
            f"{item} {percent(p, 1)}"
            for item, p in zip(mine["item_id"], mine["probability"], strict=True)
        )
        history = ("… " if len(bought) > 4 else "") + ", ".join(bought[-4:])
        rows.append([str(user), history, guesses, ", ".join(actual[:3])])
    print_table(
        ["user", "history (newest last)", f"predicted by {model}", "actual"],
        rows,
        title="A few test users",
        text_columns=(0, 1, 2, 3),
    )


def _draw(predictor: "Predictor", out: Path) -> list[Path]:
    """Training curve, reliability diagram and distance to the limit, as SVG, where they can be."""
    from nextbuy.cli.demo_pictures import draw_pictures
    from nextbuy.errors import MissingExtraError

    try:
        return draw_pictures(predictor, out / "pictures", out / "run", SHOWN_NAMES)
    except MissingExtraError as error:
        print_note(str(error))
        return []
