"""What the page says of the answers that were served since, and of how far the market has moved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from nextbuy.service.page import pictures, words
from nextbuy.service.watching.drift import Drift, Estimate
from nextbuy.service.watching.quality import LiveQuality, Quality

_DAY: Final = 86_400_000_000
_SOME, _MUCH = 0.1, 0.25
"""Of the population stability index, as credit scoring reads it."""

_FATES: Final = (
    ("answered", "were answered by a purchase"),
    ("pending", "may still be"),
    ("unanswered", "were not, in time"),
    ("superseded", "gave way to a newer answer before it"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How far one attribute has moved.

    Attributes:
        name: Such as `platform`.
        index: With its interval, as text.
        verdict: In words.
        is_much: Whether it deserves attention.
    """

    name: str
    index: str
    verdict: str
    is_much: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCard:
    """Everything, ready to be shown.

    Attributes:
        served: A sentence on what became of the answers.
        figures: `(number, words)`; empty while nothing was answered.
        calibration: A picture; None while nothing was answered.
        versions: `(version, answered, hit rates of 1 and 10, said, came true)` where there were
            several.
        moved: Of each attribute.
        shares: Sentences on unknown items and new users.
        as_of: When it was computed.
    """

    served: str
    figures: Sequence[tuple[str, str]]
    calibration: Markup | None
    versions: Sequence[Sequence[str]]
    moved: Sequence[Moved]
    shares: Sequence[str]
    as_of: str


def live_card_of(found: LiveQuality, now: int) -> LiveCard:
    """The card of what was watched.

    Args:
        found: What was computed.
        now: UTC microseconds, to say how long ago.
    """
    overall = found.overall
    has_answers = overall.num_answered > 0
    return LiveCard(
        served=_served(found),
        figures=_figures(overall) if has_answers else (),
        calibration=pictures.calibration(overall.reliability) if has_answers else None,
        versions=_versions(found),
        moved=[_moved(name, each, found.drift) for name, each in found.drift.stability.items()]
        if found.drift.num_purchases
        else (),
        shares=_shares(found.drift),
        as_of=f"Computed {words.duration(max(now - found.now, 0) / _DAY)} ago"
        if now - found.now > _DAY / 24
        else "Computed within the hour",
    )


def _served(found: LiveQuality) -> str:
    days = words.duration((found.now - found.since) / _DAY)
    if not found.num_served:
        return f"Nobody was asked about within {days}."
    told = [
        f"{words.count(found.fates[fate])} {text}" for fate, text in _FATES if found.fates.get(fate)
    ]
    left_out = f" (the newest; {words.count(found.num_left_out)} more are left out)"
    return (
        f"Within {days} {words.count(found.num_served)} answers were served"
        f"{left_out if found.num_left_out else ''}: {', '.join(told)}. A purchase may take "
        f"{words.duration(found.window_days)}."
    )


def _figures(quality: Quality) -> list[tuple[str, str]]:
    told = {1: "of first offers were bought next", 10: "of lists of ten held what was bought next"}
    figures = [
        (words.percent(each.value), f"{told[k]} ({_between(each)})")
        for k, each in quality.hit_rate.items()
        if k in told and math.isfinite(each.value)
    ]
    return [
        *figures,
        (words.percent(quality.said.value), "was said of the first offer, on average"),
        (words.percent(quality.came_true.value), f"came true ({_between(quality.came_true)})"),
    ]


def _between(estimate: Estimate) -> str:
    return f"{words.percent(estimate.low)} to {words.percent(estimate.high)}"


def _versions(found: LiveQuality) -> list[list[str]]:
    if len(found.by_version) < 2:
        return []
    return [
        [
            version,
            words.count(quality.num_answered),
            *(
                words.percent(quality.hit_rate[k].value) if k in quality.hit_rate else "–"
                for k in (1, 10)
            ),
            words.percent(quality.said.value),
            words.percent(quality.came_true.value),
        ]
        for version, quality in sorted(found.by_version.items(), reverse=True)
    ]


def _moved(name: str, index: Estimate, drift: Drift) -> Moved:
    """Judged by what is above chance: with few purchases the index is never 0."""
    beyond = index.low - drift.by_chance.get(name, 0.0)
    verdict = "much has changed" if beyond > _MUCH else "some has changed"
    between = f"{words.number(index.low, 2)} to {words.number(index.high, 2)}"
    return Moved(
        name=name,
        index=f"{words.number(index.value, 2)} ({between})",
        verdict=verdict if beyond > _SOME else "as in training",
        is_much=beyond > _MUCH,
    )


def _shares(drift: Drift) -> list[str]:
    if not drift.num_purchases:
        return ["No purchases have come in since, so nothing can be said of drift."]
    unknown = drift.unknown_share
    lines = [
        f"Of {words.count(drift.num_purchases)} purchases {words.percent(unknown.value)} "
        f"({_between(unknown)}) were of items that the model has never seen."
    ]
    if drift.new_user_share is not None:
        share = drift.new_user_share
        lines.append(f"{words.percent(share.value)} ({_between(share)}) of the buyers are new.")
    return lines
