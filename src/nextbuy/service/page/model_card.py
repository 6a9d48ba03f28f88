"""What the page says of the model: what it was made from, how good it was, what it leans on.

Facts come from a bundle, so that any of them may be missing; a part that lacks them is not shown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from nextbuy.metrics.calibration import Reliability
from nextbuy.service.page import pictures, words

Facts = Mapping[str, Any]

MODELS: Final[Mapping[str, str]] = {
    "popularity": "what sells best",
    "recency-popularity": "what sells best lately",
    "personal-frequency": "how often this customer bought it",
    "markov": "what is bought after the last purchase",
    "item-knn": "what is bought by who bought the same things",
    "ease": "which things go together, all pairs weighed at once",
    "tifu-knn": "what this customer and similar ones bought lately",
    "up-cf": "what this customer bought lately, and similar ones",
    "lstm-rnn": "a recurrent network that reads the history in order",
    "gru": "a recurrent network that reads the history in order",
    "transformer": "a transformer that reads the whole history with its rhythm",
    "blend": "all of them, each weighed for what it is good at",
    "limit": "what the truth itself would score",
}
"""Words for each model."""

_PARTS: Final = (
    ("choice", "Whether they buy again or try something new"),
    ("repeat", "Which of their own things they buy again"),
    ("explore", "Which new thing they try"),
)
_SCORES: Final = (
    ("accuracy", "first offer right", "percent"),
    ("hit_rate@10", "in a list of ten", "percent"),
    ("ndcg@10", "ndcg@10", "number"),
    ("loss", "loss, nats", "number"),
    ("ece", "calibration error", "number"),
)
_REPEAT: Final = {
    "allow": "What a customer has bought may be offered again.",
    "exclude": "What a customer has bought is not offered again.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model of the leaderboard: `cells` are `(value, interval)` as text."""

    model: str
    about: str
    cells: Sequence[tuple[str, str]]
    picture: Markup | None
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One question of the blend: `weights` are `(model, words, share)`, largest first."""

    title: str
    weights: Sequence[tuple[str, str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Everything, ready to be shown.

    Attributes:
        figures: `(number, words)`.
        about: `(name, value)` of where it comes from.
        protocol: Sentences on how scores were obtained.
        scores: Headings of the leaderboard.
        rows: Best first.
        limit: What the truth itself would score, where it is known.
        parts: Of the blend.
        repeat_share: Of the purchases, those of own things; None without a blend.
        calibration: A picture, with its sentence.
        timing: Sentences on how forecasts came true.
    """

    figures: Sequence[tuple[str, str]]
    about: Sequence[tuple[str, str]]
    protocol: Sequence[str]
    scores: Sequence[str]
    rows: Sequence[Row]
    limit: Row | None
    parts: Sequence[Part]
    repeat_share: float | None
    calibration: tuple[Markup, str] | None
    timing: Sequence[str]


def card_of(facts: Facts) -> Card:
    """The card of what `LiveModel.facts` tells."""
    rows = [row for row in facts.get("models") or [] if row.get("test")]
    best = _best(rows)
    limit = facts.get("limit")
    reach = _reach([*rows, {"test": limit}] if limit else rows)
    blend = facts.get("blend_weights") or {}
    return Card(
        figures=_figures(rows, best),
        about=_about(facts),
        protocol=_protocol(facts),
        scores=[title for _, title, _ in _SCORES],
        rows=_leaderboard(rows, best, reach),
        limit=_row({"model": "limit", "test": limit}, None, reach) if limit else None,
        parts=[_part(title, blend[key]) for key, title in _PARTS if blend.get(key)],
        repeat_share=blend.get("repeat_share"),
        calibration=_calibration(facts, best),
        timing=_timing(facts.get("timing") or {}),
    )


def _best(rows: Sequence[Facts]) -> str | None:
    """The model that validation chose."""
    told = [row for row in rows if _number(row.get("validation") or {}, "loss") is not None]
    return min(told, key=lambda row: float(row["validation"]["loss"]))["model"] if told else None


def _number(values: Facts, name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _shown(value: float | None, kind: str) -> str:
    return words.percent(value) if kind == "percent" else words.number(value)


def _figures(rows: Sequence[Facts], best: str | None) -> list[tuple[str, str]]:
    test = next((row["test"] for row in rows if row["model"] == best), None)
    if test is None:
        return []
    told = (
        ("accuracy", "of first offers were in the next basket"),
        ("hit_rate@10", "of lists of ten held something of it"),
        ("ece", "calibration error of the first offer"),
    )
    return [
        (words.percent(value), text)
        for name, text in told
        if (value := _number(test, name)) is not None
    ]


def _about(facts: Facts) -> list[tuple[str, str]]:
    sizes, data = facts.get("sizes") or {}, facts.get("data") or {}
    share = data.get("repeat_share")
    found = [
        ("version", facts.get("version")),
        ("what is predicted", f"the {facts['level']}" if facts.get("level") else None),
        ("made", words.written(facts.get("created")) if facts.get("created") else None),
        ("from purchases of", _span(data)),
        ("purchases", words.count(sizes["purchases"]) if "purchases" in sizes else None),
        ("customers", words.count(sizes["users"]) if "users" in sizes else None),
        ("things to buy", words.count(sizes["items"]) if "items" in sizes else None),
        ("bought again", f"{words.percent(share)} of purchases" if share is not None else None),
        ("nextbuy", (facts.get("versions") or {}).get("nextbuy")),
    ]
    return [(name, str(value)) for name, value in found if value is not None]


def _span(data: Facts) -> str | None:
    if not data.get("first") or not data.get("last"):
        return None
    first, last = (words.written(data[key]).split(",")[0] for key in ("first", "last"))
    return f"{first} to {last}"


def _protocol(facts: Facts) -> list[str]:
    told = facts.get("protocol") or {}
    if not told.get("split"):
        return []
    lines = [
        f"Split: {told['split']}. {told.get('description') or ''}".strip(),
        f"Every question offers {told.get('candidates', 'the whole catalog')}; none is left out to "
        "make it easier.",
        _REPEAT.get(told.get("repeat", ""), f"Bought things: {told.get('repeat')}."),
        "Choices were made on validation, and the test was looked at once. Intervals: 95 %, by "
        "drawing the test cases again and again.",
    ]
    return [f"Warning: {told['warning']}", *lines] if told.get("warning") else lines


def _leaderboard(rows: Sequence[Facts], best: str | None, reach: float) -> list[Row]:
    def loss(row: Facts) -> float:
        value = _number(row["test"], "loss")
        return math.inf if value is None else value

    return [_row(row, best, reach) for row in sorted(rows, key=loss)]


def _reach(rows: Sequence[Facts]) -> float:
    """How far the scale of accuracies goes."""
    ends = [_ends(row, "accuracy")[1] or _number(row["test"], "accuracy") or 0.0 for row in rows]
    return 1.05 * max(ends, default=0.0) or 1.0


def _row(row: Facts, best: str | None, reach: float) -> Row:
    test, name = row["test"], str(row["model"])
    cells = []
    for score, _, kind in _SCORES:
        low, high = _ends(row, score)
        between = "" if low is None else f"{_shown(low, kind)} – {_shown(high, kind)}"
        cells.append((_shown(_number(test, score), kind), between))
    accuracy = _number(test, "accuracy")
    drawn = None
    if accuracy is not None:
        between = cells[0][1]
        label = f"first offer right {cells[0][0]}" + (f", between {between}" if between else "")
        drawn = pictures.interval(accuracy, *_ends(row, "accuracy"), reach, label)
    return Row(
        model=name, about=MODELS.get(name, ""), cells=cells, picture=drawn, is_best=name == best
    )


def _ends(row: Facts, score: str) -> tuple[float | None, float | None]:
    found = (row.get("intervals") or {}).get(score)
    if not found or any(not isinstance(end, int | float) for end in found):
        return None, None
    return float(found[0]), float(found[1])


def _part(title: str, weights: Mapping[str, float]) -> Part:
    shown = sorted(weights.items(), key=lambda pair: -pair[1])
    return Part(
        title=title,
        weights=[(name, MODELS.get(name, ""), share) for name, share in shown if share >= 0.005],
    )


def _calibration(facts: Facts, best: str | None) -> tuple[Markup, str] | None:
    if not facts.get("calibration"):
        return None
    found = Reliability.of(facts["calibration"])
    filled = found.counts > 0
    if not filled.any():
        return None
    weights = found.counts[filled] / found.counts.sum()
    said = float((weights * found.confidence[filled]).sum())
    true = float((weights * found.accuracy[filled]).sum())
    told = (
        f"On average {best} gave its first offer {words.percent(said)}, and {words.percent(true)} "
        "of the purchases were it. Points on the diagonal are probabilities that held; the larger "
        "a point, the more purchases."
    )
    return pictures.calibration(found), told


def _timing(timing: Facts) -> list[str]:
    if not timing:
        return []
    if timing.get("reason"):
        return [f"There are no forecasts of when customers come back: {timing['reason']}"]
    score = timing.get("scores") or {}
    lines = []
    if (held := _number(score, "coverage_80")) is not None:
        lines.append(f"Intervals that should hold 80 % of the returns held {words.percent(held)}.")
    for days in timing.get("horizons") or []:
        said, came = _number(score, f"p_buy_{days}d"), _number(score, f"bought_{days}d")
        if said is not None and came is not None:
            lines.append(
                f"Within {days} days {words.percent(came)} came back; said were "
                f"{words.percent(said)}."
            )
    return lines
