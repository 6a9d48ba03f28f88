"""Who buys a thing next: how good audiences were on the test."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from nextbuy.evaluation import pictures
from nextbuy.evaluation.audience_pictures import gain_curves
from nextbuy.report import html
from nextbuy.report.html import Raw, number, percent

Facts = Mapping[str, Any]

RANKINGS: Final = {
    "audience": "audience",
    "frequency": "how often they bought it",
    "recency": "how lately they bought it",
}
"""By their names in the facts."""


def audiences(facts: Facts) -> list[Raw]:
    """Words, a picture and a table; the reason where chances were not measured; nothing of a bundle
    from before there were audiences."""
    found = facts.get("audience") or {}
    test = found.get("test")
    if not test or not test["targets"]:
        why = found.get("reason")
        return [html.paragraph(f"Audiences were not measured: {why}.")] if why else []
    days = _shown(test["horizons"])
    rows = [row for row in test["targets"] if row["days"] == days and row["num_buyers"] > 0]
    if not rows:
        return []
    gains = {words: _mean(rows, name, "gain") for name, words in RANKINGS.items()}
    lifts = {name: _mean(rows, name, "lift")[0] for name in RANKINGS}
    return [
        html.paragraph(
            f"For {len(rows)} things that are bought most, {test['num_users']:,} customers were "
            f"ranked by the chance that they buy it within {days} days of the start of the test. "
            f"The first tenth bought {lifts['audience']:.1f} times as often as all did "
            f"({lifts['frequency']:.1f} times if ranked by how often they had bought it, "
            f"{lifts['recency']:.1f} by how lately). The chances were off by "
            f"{percent(test['ece'][str(days)])} in the mean."
        ),
        Raw(pictures.to_svg(gain_curves(gains))),
        _targets(rows),
        html.paragraph(
            "precision, lift: of the first tenth of the customers. revenue: the share of what was "
            "paid for it that they paid. Means over things in the words above and in the picture; "
            "things that nobody bought in these days are left out.",
            "soft",
        ),
    ]


def _shown(horizons: Sequence[int]) -> int:
    """The one in the middle."""
    return int(horizons[len(horizons) // 2])


def _mean(rows: Sequence[Facts], ranking: str, name: str) -> list[float]:
    """Over targets, at each tenth."""
    values = [[np.nan if v is None else v for v in row[ranking][name]] for row in rows]
    return [float(each) for each in np.nanmean(np.array(values, dtype=np.float64), axis=0)]


def _targets(rows: Sequence[Facts]) -> Raw:
    cells = [
        [
            row["name"],
            percent(row["bought"]),
            percent(row["probability"]),
            number(row["ece"], 3),
            percent(row["audience"]["precision"][0]),
            *(number(row[name]["lift"][0], 2) for name in RANKINGS),
            "" if row["audience"]["revenue"] is None else percent(row["audience"]["revenue"][0]),
        ]
        for row in rows
    ]
    heads = ["to buy", "came", "said", "calibration error", "precision", "lift",
             "by frequency", "by recency", "revenue"]  # fmt: skip
    return html.table(heads, cells)
