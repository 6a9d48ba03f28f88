"""How good the models are: leaderboard, calibration, gains, slices, and the blend."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from nextbuy.errors import BundleError
from nextbuy.evaluation import pictures
from nextbuy.evaluation.comparison import told_apart
from nextbuy.metrics.calibration import Reliability
from nextbuy.predictor import Predictor
from nextbuy.report import html
from nextbuy.report.html import Raw, number, percent

Facts = Mapping[str, Any]

_NEEDED: Final = ("leaderboard", "evaluation", "protocol", "versions")
_COLUMNS: Final = (("loss", 3), ("accuracy", 4), ("recall@10", 4), ("ndcg@10", 4), ("ece", 3))
_GROUPS: Final = (
    "users", "history", "last purchase", "basket", "target", "items", "first sold", "category",
    "platform",
)  # fmt: skip
_RANGES: Final = ("history", "last purchase", "basket", "first sold")
_LISTS: Final = (1, 5, 10, 20, 50, 100)


def checked(facts: Facts) -> Facts:
    """The facts, if they are those that a report needs.

    Raises:
        BundleError: If not.
    """
    missing = [key for key in _NEEDED if not facts.get(key)]
    if missing:
        raise BundleError(
            f"The bundle lacks {', '.join(missing)}, which a report shows; train again."
        )
    return facts


def best_of(facts: Facts) -> str:
    """The model that validation chose."""
    rows = facts["leaderboard"]
    return str(min(rows, key=lambda row: _or_inf(row["validation"]["loss"]))["model"])


def in_short(predictor: Predictor, facts: Facts) -> list[Raw]:
    """The page in a few sentences."""
    tests = {row["model"]: row["test"] for row in facts["leaderboard"]}
    best = best_of(facts)
    test, rule = tests[best], tests.get("popularity")
    parts = [
        html.figures(
            [
                (percent(test["accuracy"]), "of first offers were in the next basket"),
                (percent(test["hit_rate@10"]), "of lists of 10 held something of it"),
                (percent(test["recall@10"]), "of the next basket was in a list of 10"),
                (f"{len(predictor.histories):,}", "customers can be asked about"),
                (f"{len(predictor.catalog):,}", f"{facts['protocol']['level']} candidates"),
            ]
        ),
        html.paragraph(f"{best} is the best model on validation; the scores here are its test."),
    ]
    if rule is not None and best != "popularity" and rule["accuracy"]:
        times = test["accuracy"] / rule["accuracy"]
        parts.append(
            html.paragraph(
                f"Offering everybody what sells best is right {percent(rule['accuracy'])} of the "
                f"time: {best} is {times:.1f} times as often right."
            )
        )
    limit = facts.get("limit")
    if limit:
        parts.append(
            html.paragraph(
                f"The market is made up and its truth known: nothing could be right more often "
                f"than {percent(limit['accuracy'])}, or have a loss below {limit['loss']:.3f}."
            )
        )
    return parts


def leaderboard(facts: Facts) -> list[Raw]:
    """Every model with its intervals, and a picture."""
    rows = sorted(facts["leaderboard"], key=lambda row: _or_inf(row["test"]["loss"]))
    best = best_of(facts)
    body = []
    for row in rows:
        cells = [_with_interval(row, name, digits) for name, digits in _COLUMNS]
        weight = "" if row.get("weight") is None else f"{100 * row['weight']:.0f} %"
        seconds = "" if row.get("fit_seconds") is None else f"{row['fit_seconds']:,.1f}"
        body.append([row["model"], *cells, weight, seconds])
    kinds = ["best" if row["model"] == best else "" for row in rows]
    limit = facts.get("limit")
    if limit:
        shown = [f"{limit[n]:.{d}f}" if n in limit else "" for n, d in _COLUMNS]
        body.append(["limit of this world", *shown, "", ""])
        kinds.append("limit")
    chart = pictures.leaderboard_dots(
        {row["model"]: _numbers(row["test"]) for row in rows},
        {row["model"]: row["intervals"] for row in rows},
        metric="ndcg@10",
        limit=limit and limit.get("ndcg@10"),
        title="Ranking quality",
    )
    headings = ["model", *(name for name, _ in _COLUMNS), "share of blend", "fit, s"]
    return [
        html.table(headings, body, kinds=kinds),
        *([html.paragraph(apart)] if (apart := told_apart(rows)) else []),
        html.paragraph(
            "loss: nats a purchase, lower is better. accuracy: first offer in the next basket. "
            "recall@10, ndcg@10: of lists of ten. ece: mean gap between the probability of the "
            f"first offer and what came true{_luck(rows, best)}.",
            "soft",
        ),
        _picture(chart),
    ]


def _luck(rows: Sequence[Facts], best: str) -> str:
    """What luck alone makes of the calibration error; nothing of an older bundle."""
    (test,) = (row["test"] for row in rows if row["model"] == best)
    if test.get("ece_by_chance") is None:
        return ""
    return f" ({test['ece_by_chance']:.3f} is luck: as much if every probability were right)"


def blend(facts: Facts) -> list[Raw]:
    """The weights in words and as bars; nothing without a blend."""
    weights = facts.get("blend")
    if not weights:
        return []
    parts = {
        "repeat": "which of their items people buy again",
        "explore": "which new item they try",
        "choice": "whether they buy again or try something new",
    }
    found = [
        html.paragraph(
            f"{percent(weights['repeat_share'])} of the validation purchases were of items that "
            "the customer had bought before. Each question is answered by its own mixture:"
        )
    ]
    for key, words in parts.items():
        members = sorted(weights[key].items(), key=lambda pair: -pair[1])
        rows = [[n, f"{100 * w:.0f} %", html.bar(w)] for n, w in members if w >= 0.005]
        found += [
            Raw(f"<h3>{html.escape(words.capitalize())}</h3>"),
            html.table(["model", "weight", ""], rows, text=(0, 2)),
        ]
    return found


def calibration(facts: Facts) -> list[Raw]:
    """The reliability diagram of the best model."""
    best = best_of(facts)
    found = Reliability.of(facts["evaluation"][best]["reliability"])
    counts, said, true = found.counts, found.confidence, found.accuracy
    if not counts.sum():
        return []
    mean_said = np.nansum(counts * said) / counts.sum()
    mean_true = np.nansum(counts * true) / counts.sum()
    return [
        html.paragraph(
            f"On average {best} gave its first offer {percent(mean_said)}, and "
            f"{percent(mean_true)} of the purchases were it."
        ),
        _picture(pictures.reliability_diagram(found, title=f"Calibration of {best}, first offer")),
    ]


def gains(facts: Facts) -> list[Raw]:
    """How much of what is bought longer lists hold, and how much better than a rule that is."""
    best = best_of(facts)
    curves = {
        name: {int(k): share for k, share in kept["gains"].items()}
        for name, kept in facts["evaluation"].items()
        if kept["gains"] and name in (best, "popularity", "personal-frequency")
    }
    if best not in curves:
        return []
    rule, num_items = curves.get("popularity", {}), max(curves[best])
    rows = []
    for k in [k for k in _LISTS if k in curves[best]]:
        share = curves[best][k]
        over_rule = f"{share / rule[k]:.1f}" if rule.get(k) else ""
        rows.append([k, percent(share), over_rule, f"{share * num_items / k:,.0f}"])
    return [
        html.paragraph(
            f"The share of all purchases that a list of k offers to each customer holds. Lift: how "
            f"many times as many as a list of the best sellers, or of {num_items:,} items drawn by "
            "lot."
        ),
        html.table(["list", "purchases held", "lift over best sellers", "lift over chance"], rows),
        _picture(pictures.gains_chart(curves, title="Purchases held by a list of k offers")),
    ]


def slices(facts: Facts) -> list[Raw]:
    """The best model for parts of the cases."""
    best = best_of(facts)
    found = facts["evaluation"][best]["slices"]
    top = max((row["accuracy"] or 0.0 for row in found.values()), default=0.0) or 1.0
    rows = [
        [
            name,
            f"{row['n']:,}",
            percent(row["accuracy"]),
            html.bar((row["accuracy"] or 0.0) / top),
            number(row["ndcg@10"], 4),
            number(row["loss"], 3),
        ]
        for name, row in sorted(found.items(), key=lambda pair: _place_of(pair[0]))
    ]
    return [
        html.paragraph(f"Test scores of {best}. Small groups scatter: look at n first."),
        html.table(["group", "n", "accuracy", "", "ndcg@10", "loss"], rows, text=(0, 3)),
    ]


def _place_of(name: str) -> tuple[int, int]:
    """Where a slice stands: groups in the order of `_GROUPS`, ranges by their first number."""
    group = name.partition(":")[0]
    first = re.search(r"\d+", name.partition(":")[2])
    known = _GROUPS.index(group) if group in _GROUPS else len(_GROUPS)
    return known, int(first.group()) if first and group in _RANGES else 0


def _picture(chart: Any) -> Raw:
    return Raw(pictures.to_svg(chart))


def _with_interval(row: Mapping[str, Any], name: str, digits: int) -> Raw:
    value = number(row["test"].get(name), digits)
    low, high = row["intervals"].get(name) or (None, None)
    if low is None or high is None:
        return html.escape(value)
    between = f"{number(low, digits)} – {number(high, digits)}"
    return Raw(f'{value}<br><span class="span">{between}</span>')


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float("nan") if v is None else v for name, v in values.items()}


def _or_inf(value: float | None) -> float:
    return float("inf") if value is None else value
