"""How scores are shown: what was read, under which protocol, and one row a model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nextbuy.cli.rendering import number, percent, print_line, print_note, print_table

if TYPE_CHECKING:
    from nextbuy.predictor import Predictor


def print_reading(predictor: "Predictor") -> None:
    """The account of the rows and what was guessed, on standard error."""
    rows = predictor.facts["rows"]
    print_note(
        f"rows in {rows['in']:,} = kept {rows['kept']:,} + rejected {rows['rejected']:,} "
        f"+ duplicates {rows['duplicates']:,}"
    )
    if predictor.source is not None:
        for guess in predictor.source.purchases.guesses:
            print_note(guess)


def print_protocol(facts: Mapping[str, Any]) -> None:
    """How the scores below were obtained."""
    protocol = facts["protocol"]
    print_line(f"protocol: {protocol['split']}. {protocol['description']}")
    print_line(
        f"level {protocol['level']}, repeat {protocol['repeat']}, "
        f"candidates: {protocol['candidates']}"
    )
    if protocol["warning"]:
        print_line(f"warning: {protocol['warning']}")


def print_leaderboard(predictor: "Predictor") -> None:
    """One row a model, best on validation first, the world's limit last."""
    facts = predictor.facts
    print_protocol(facts)
    rows = sorted(facts["leaderboard"], key=lambda row: row["validation"]["loss"])
    body = [score_cells(row["model"], row["test"], row["fit_seconds"]) for row in rows]
    if facts.get("limit"):
        body.append(score_cells("limit of this world", facts["limit"], None))
    print_table(SCORE_COLUMNS, body, title="Test scores", bold=[0], dim=[len(rows)])
    if facts.get("blend"):
        print_line(f"blend = {predictor.blend_in_words}")
    from nextbuy.evaluation.comparison import told_apart

    if apart := told_apart(rows):
        print_line(apart)
    for name, reason in facts.get("skipped", {}).items():
        print_line(f"{name} was left out: {reason}")
    print_timing(facts)
    if facts.get("scored_share", 1.0) < 1:
        share = percent(facts["scored_share"], 1)
        print_line(f"scored on {share} of the cases (because of a time limit or a large catalog)")
    test = rows[0]["test"]
    accuracy = rows[0]["intervals"].get("accuracy")
    if accuracy is not None:
        print_line(
            f"{rows[0]['model']} is best on validation; its accuracy {percent(test['accuracy'])} "
            f"has the 95 % interval {percent(accuracy[0])} to {percent(accuracy[1])} "
            f"({int(test['num_cases']):,} cases)."
        )


def print_timing(facts: Mapping[str, Any]) -> None:
    """What forecasts are made of and how good they were; nothing of an older bundle."""
    from nextbuy.timing.scores import in_words

    if facts.get("timing"):
        for line in in_words(facts["timing"]):
            print_line(line)


SCORE_COLUMNS: Sequence[str] = (
    "model", "loss", "accuracy", "precision", "recall", "hit@10", "ndcg@10", "mrr@10", "ece",
    "seconds",
)  # fmt: skip


def score_cells(name: str, scores: Mapping[str, float], seconds: float | None) -> list[str]:
    """The cells of one row of a score table."""
    return [
        name,
        number(scores.get("loss")),
        percent(scores.get("accuracy")),
        percent(scores.get("precision")),
        percent(scores.get("recall")),
        number(scores.get("hit_rate@10"), 4),
        number(scores.get("ndcg@10"), 4),
        number(scores.get("mrr@10"), 4),
        number(scores.get("ece")),
        number(seconds, 1),
    ]
