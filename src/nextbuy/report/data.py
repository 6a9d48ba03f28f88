"""What was read, how it was measured, and what to keep in mind."""

from collections.abc import Mapping
from typing import Any, Final

from nextbuy.report import html
from nextbuy.report.html import Raw, percent

Facts = Mapping[str, Any]


_REPEAT: Final = {
    "allow": "What a customer has bought may be offered again.",
    "exclude": "What a customer has bought is not offered again.",
}


def health(facts: Facts) -> list[Raw]:
    """Counts, span and what the doctor found; nothing if the bundle kept none."""
    found = facts.get("health")
    if not found:
        return []
    rows = found["rows"]
    pairs = [
        ("users", _count(found["users"])),
        ("items", _count(found["items"])),
        ("baskets", _count(found["baskets"])),
        ("users with two baskets or more", _count(found["users_with_two_baskets"])),
        ("purchases of an item that the user had bought before", percent(found["repeat_share"])),
        ("baskets are", {"column": "told by a column", "timestamp": "purchases at one moment"}.get(
            found["basket_kind"], found["basket_kind"])),
    ]  # fmt: skip
    if found.get("first"):
        pairs.append(("from", found["first"]))
        pairs.append(("to", found["last"]))
    parts = [
        html.paragraph(
            f"{_count(rows['in'])} rows were read: {_count(rows['kept'])} kept, "
            f"{_count(rows['rejected'])} rejected, {_count(rows['duplicates'])} duplicates."
        ),
        html.table(["", ""], pairs, text=(0, 1)),
    ]
    if found["findings"]:
        lines = [
            Raw(f"{html.tag(f['severity'])}{html.escape(f['found'])} {html.escape(f['advice'])}")
            for f in found["findings"]
        ]
        parts += [Raw("<h3>What was noticed</h3>"), html.bullets(lines)]
    else:
        parts.append(html.paragraph("Nothing to worry about was found."))
    return parts


def protocol(facts: Facts) -> list[Raw]:
    """Split, candidates, what counts as right."""
    told = facts["protocol"]
    lines = [
        f"Split: {told['split']}. {told['description']}",
        f"Every question offers {told['candidates']}; none is left out to make it easier.",
        "The answer is the user's next basket. An item that the catalog did not know is a miss.",
        f"What is predicted: the {told['level']}. "
        f"{_REPEAT.get(told['repeat'], 'Bought items: ' + told['repeat'] + '.')}",
        "Choices were made on validation; the test was looked at once.",
        "Intervals: 95 %, by drawing the test cases again and again (bootstrap).",
    ]
    if told.get("warning"):
        lines.insert(1, f"Warning: {told['warning']}")
    if facts.get("scored_share", 1.0) < 1:
        lines.append(
            f"{percent(facts['scored_share'])} of the cases were scored, evenly spread: a time "
            "limit or a large catalog leaves no room for more."
        )
    return [html.bullets(lines)]


def caveats(facts: Facts) -> list[Raw]:
    """What a reader could get wrong."""
    test = facts["leaderboard"][0]["test"]
    lines: list[str] = [
        f"The scores are about {test['num_cases']:,} customers who did buy again in the test "
        "period. Who buys nothing more is not in them.",
        "Shops change: prices, seasons, assortments. A score from last month is a promise about "
        "next month only as far as the months are alike. Train and measure again.",
        "A reason beside a prediction says what is in the customer's history, not why the model "
        "said so.",
        "What is bought next without any offer is predicted, not what an offer would change.",
    ]
    unknown = test.get("unknown_target_share")
    if unknown:
        lines.append(
            f"{percent(unknown)} of what was bought in the test was new to the catalog; no model "
            "that learns from purchases can name it."
        )
    if facts["protocol"]["split"] == "leave-last-out":
        lines.append(
            "Leaving out each user's last basket lets a model learn from what others bought later. "
            "It is for comparing with papers; with dates, prefer the temporal split."
        )
    for name, reason in facts.get("skipped", {}).items():
        lines.append(f"{name} was left out. {reason}")
    return [html.bullets(lines)]


def _count(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,}"
