"""When customers come back: how the forecasts of it came true."""

from collections.abc import Mapping
from typing import Any

from nextbuy.evaluation import pictures
from nextbuy.evaluation.timing_pictures import pit_bars, reliability_by_horizon
from nextbuy.metrics.calibration import Reliability
from nextbuy.models.blend import BLEND
from nextbuy.report import html
from nextbuy.report.html import Raw, number, percent

Facts = Mapping[str, Any]


def times(facts: Facts) -> list[Raw]:
    """Words, tables and pictures; the reason where there are no forecasts; nothing of a bundle
    from before they were measured."""
    timing = facts.get("timing") or {}
    if timing.get("reason"):
        return [html.paragraph(f"There are no forecasts of times: {timing['reason']}")]
    if "pit" not in timing:
        return []
    bins = {days: Reliability.of(timing["reliability"][str(days)]) for days in timing["horizons"]}
    parts = _in_words(timing)
    if bins:
        parts += [
            _by_horizon(timing),
            Raw(pictures.to_svg(reliability_by_horizon(bins))),
        ]
    return [
        *parts,
        Raw(pictures.to_svg(pit_bars(timing["pit"]))),
        html.paragraph(
            "High bars at both ends say that the intervals are too narrow, high bars in the middle "
            "that they are too wide, high bars on the right that customers come later than was "
            "said. Who had not come by the end of the test counts for what was still possible.",
            "soft",
        ),
        Raw("<h3>What the forecasts are made of</h3>"),
        _members(timing),
        html.paragraph(
            "log-likelihood: nats a wait, of those who did not come too; higher is better. "
            "quantile loss: days, the mean over the 10 %, 50 % and 90 % quantiles, of waits up to "
            "the end of the test; lower is better. blend minus it: by log-likelihood, with a 95 % "
            "bootstrap interval over customers; above 0 the blend is better.",
            "soft",
        ),
    ]


def _in_words(timing: Facts) -> list[Raw]:
    found = timing["scores"][BLEND]
    period = f"{timing['test_days']:.0f} days from {timing['test_start'][:10]} on"
    parts = [
        html.paragraph(
            f"{timing['num_users']:,} customers had bought before the test; "
            f"{timing['num_events']:,} of them came back in the {period}. Intervals that should "
            f"hold 80 % of the waits held {percent(found['coverage_80'])}."
        )
    ]
    if timing["horizons_left_out"]:
        days = " and ".join(str(each) for each in timing["horizons_left_out"])
        parts.append(
            html.paragraph(
                f"The test is too short to see what comes within {days} days: what is said of that "
                "could not be checked here."
            )
        )
    return parts


def _by_horizon(timing: Facts) -> Raw:
    found, limit = timing["scores"][BLEND], timing.get("limit") or {}
    rows = [
        [
            f"within {days} days",
            percent(found[f"p_buy_{days}d"]),
            percent(found[f"bought_{days}d"]),
            number(found[f"ece_{days}d"], 3),
            number(found[f"brier_{days}d"], 4),
            *([number(limit.get(f"brier_{days}d"), 4)] if limit else []),
        ]
        for days in timing["horizons"]
    ]
    heads = ["to buy", "said, mean", "came", "calibration error", "Brier score"]
    return html.table([*heads, *(["Brier score of the truth"] if limit else [])], rows)


def _members(timing: Facts) -> Raw:
    """The blend first, then its members by log-likelihood, then the truth where it is known."""
    scores, limit = timing["scores"], timing.get("limit")
    members = sorted(
        (name for name in scores if name != BLEND),
        key=lambda name: -(scores[name]["log_likelihood"] or float("-inf")),
    )
    rows = []
    for name in (BLEND, *members):
        weight, minus = timing["weights"].get(name), timing["blend_minus"].get(name)
        rows.append(
            [
                name,
                "" if weight is None else f"{100 * weight:.0f} %",
                *_cells(scores[name]),
                "" if minus is None else _difference(minus),
            ]
        )
    if limit:
        rows.append(["limit of this world", "", *_cells(limit), ""])
    kinds = ["best", *("" for _ in members), "limit"]
    heads = ["model", "share", "log-likelihood", "quantile loss", "inside 80 %", "blend minus it"]
    return html.table(heads, rows, kinds=kinds)


def _cells(scores: Mapping[str, float | None]) -> list[str]:
    return [
        number(scores["log_likelihood"], 4),
        number(scores["quantile_loss"], 3),
        percent(scores["coverage_80"]),
    ]


def _difference(found: Mapping[str, float | None]) -> Raw:
    value, low, high = (
        "–" if found[name] is None else f"{found[name]:+.4f}"
        for name in ("difference", "low", "high")
    )
    return Raw(f'{value}<br><span class="span">{low} to {high}</span>')
