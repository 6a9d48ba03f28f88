"""Check what end_to_end.sh produced: counts add up, probabilities are probabilities, scores agree.

python examples/check_outputs.py FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    folder = Path(sys.argv[1])

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    rows = read("doctor.json")["rows"]
    check(rows["in"] == rows["kept"] + rows["rejected"] + rows["duplicates"], "rows add up")
    check(rows["rejected"] == 1, "the broken row was rejected")
    check("not a date" in (folder / "rejects.csv").read_text(), "with its text")

    trained, evaluated = read("train.json"), read("evaluate.json")
    scores = {row["model"]: row["test"] for row in trained["leaderboard"]}
    expected = {
        "popularity", "recency-popularity", "personal-frequency", "markov", "item-knn", "ease",
        "tifu-knn", "up-cf", "transformer", "blend",
    }  # fmt: skip
    check(set(scores) == expected, "all models of the balanced preset, and their blend")
    losses = {row["model"]: row["validation"]["loss"] for row in trained["leaderboard"]}
    check(losses["blend"] <= min(losses.values()) + 1e-3, "no member is better on validation")
    check(
        scores["transformer"]["loss"] < scores["popularity"]["loss"], "the network beats popularity"
    )
    for name, metrics in evaluated["models"].items():
        check(abs(metrics["loss"] - scores[name]["loss"]) < 1e-5, f"{name}: evaluate agrees")

    report = (folder / "report.html").read_text(encoding="utf-8")
    check("<script" not in report and "What the blend leans on" in report, "the report is whole")
    check(len(read("backtest.json")["folds"]) == 2, "two moments were tested")

    predicted = read("predict.json")
    check(predicted["unknown_users"] == ["nobody"], "the unknown user is named")
    check(len(predicted["predictions"]) == 6, "three items for each of two users")
    for row in predicted["predictions"] + read("history.json")["predictions"]:
        check(0 < row["probability"] < 1, "probabilities")

    before, after = (read(f"{name}.json")["answers"][0] for name in ("before", "after"))
    check(before["fallback"] and not after["fallback"], "the first purchase makes a history")
    check(after["after_sequence"] == read("stored.json")["first_sequence"], "the newest is known")
    reasons = {offer["item_id"]: offer["reason"] for offer in after["offers"]}
    check(
        "bought 1x" in reasons.get("tea", ""), "what was bought is offered again, with its reason"
    )
    kept = [purchase["item_id"] for purchase in read("remembered.json")["purchases"]]
    check(kept == ["tea"], "the purchase is there after a kill")
    check("<script>" not in (folder / "page.html").read_text(encoding="utf-8"), "the page")

    demo = read("demo.json")
    check(demo["limit"]["loss"] < demo["models"]["lstm-rnn"]["loss"], "nothing beats the limit")
    for name in ("popularity", "lstm-rnn", "lstm-rnn (tensorflow)"):
        for key in ("loss", "accuracy", "precision", "recall", "fit_seconds"):
            check(key in demo["models"][name], f"{name} has {key}")


def check(is_true: bool, what: str) -> None:
    if not is_true:
        sys.exit(f"failed: {what}")


if __name__ == "__main__":
    main()
