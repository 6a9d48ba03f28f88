"""The pictures of the page, drawn for each request in well under a millisecond."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from markupsafe import Markup

from nextbuy.metrics.calibration import Reliability
from nextbuy.service.page import words
from nextbuy.service.page.svg import element, joined, picture, place

_LANES: Final = 8
_LANE_HEIGHT: Final = 39
_LINE: Final = 27
_AXIS_HEIGHT: Final = 24
_LABELS: Final = 6
_EDGE: Final = 0.015
_DAY: Final = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One purchase on the time line.

    Attributes:
        at: UTC microseconds, or the place in the order.
        lane: Where it is drawn.
        words: What is told of it.
        is_live: Whether it came after the model was made.
    """

    at: int
    lane: str
    words: str
    is_live: bool


def time_line(marks: Sequence[Mark], *, dated: bool, lanes_are: str) -> Markup:
    """Purchases along time, a lane for each of the most frequent kinds; the rest share the last.

    Args:
        marks: One or more, in time order.
        dated: Whether `at` are moments; otherwise only their order is known.
        lanes_are: Such as `category`, for the description.
    """
    counts = Counter(mark.lane for mark in marks)
    named = [name for name, _ in counts.most_common()]
    shown = named if len(named) <= _LANES else named[: _LANES - 1]
    rest = "" if len(named) == len(shown) else f"{len(named) - len(shown)} others"
    rows = {name: row for row, name in enumerate(shown)}
    first, last = (marks[0].at, marks[-1].at) if dated else (0, max(len(marks) - 1, 1))
    height = (len(shown) + bool(rest)) * _LANE_HEIGHT

    def at(value: float) -> float:
        share = (value - first) / (last - first) if last > first else 0.5
        return _EDGE + (1 - 2 * _EDGE) * share

    parts = [_axis(_ticks(first, last, dated=dated), at, height)]
    others = len(marks) - sum(counts[name] for name in shown)
    for row, (name, number) in enumerate(
        [(name, counts[name]) for name in shown] + ([(rest, others)] if rest else [])
    ):
        parts.append(_lane(name, number, row * _LANE_HEIGHT))
    for place_in_order, mark in enumerate(marks):
        y = rows.get(mark.lane, len(shown)) * _LANE_HEIGHT + _LINE
        x = place(at(mark.at if dated else place_in_order))
        parts.append(
            element(
                "circle",
                element("title", mark.words),
                cx=x,
                cy=y,
                r=5.5,
                class_="dot live" if mark.is_live else "dot",
            )
        )
    spans = f" from {words.day(marks[0].at)} to {words.day(marks[-1].at)}" if dated else ""
    most = ", ".join(f"{name}: {counts[name]}" for name in shown[:3])
    return picture(
        *parts,
        title="Purchases along time",
        description=f"{len(marks)} purchases{spans}, by {lanes_are}. Most in {most}.",
        height=height + _AXIS_HEIGHT,
        kind="time-line",
    )


def _lane(name: str, number: int, top: int) -> Markup:
    middle = top + _LINE
    return joined(
        [
            element("line", x1="0", x2="100%", y1=middle, y2=middle, class_="lane-line"),
            element("text", words.shortened(name, 30), x="0", y=top + 13, class_="lane-name"),
            element(
                "text", f"{number} ×", x="100%", y=top + 13, class_="soft", text_anchor="end"
            ),
        ]
    )  # fmt: skip


def _axis(ticks: Iterable[tuple[float, str]], at: Callable[[float], float], height: int) -> Markup:
    parts = []
    for value, label in ticks:
        share = at(value)
        anchor = "start" if share < 0.06 else "end" if share > 0.94 else "middle"
        x = place(share)
        parts += [
            element("line", x1=x, x2=x, y1=0, y2=height, class_="grid"),
            element("text", label, x=x, y=height + 18, class_="soft", text_anchor=anchor),
        ]
    return joined(parts)


def _ticks(first: int, last: int, *, dated: bool) -> list[tuple[float, str]]:
    """Where the axis has a line, and what it says there."""
    start, end = words.moment_of(first), words.moment_of(last)
    if not dated or start is None or end is None:
        return [(first, "oldest"), (last, "newest")]
    days = (end - start) / timedelta(days=1)
    if days < 1:
        return [(first, words.moment(first))]
    if days < 62:
        step = next(s for s in (1, 2, 3, 7, 14) if days / s <= _LABELS)
        midnight = datetime(start.year, start.month, start.day, tzinfo=UTC)
        told = [midnight + timedelta(days=n) for n in range(step, int(days) + 2, step)]
        return [(_us(t), words.day(_us(t)).rsplit(" ", 1)[0]) for t in told if t <= end]
    months = (end.year - start.year) * 12 + end.month - start.month
    steps = (1, 2, 3, 6, 12, 24, 60, 120, 600, 1_200, 12_000)
    step = next(s for s in steps if months / s <= _LABELS or s == steps[-1])
    firsts = (
        datetime(m // 12, m % 12 + 1, 1, tzinfo=UTC)
        for m in range(start.year * 12 + start.month, min(end.year * 12 + end.month, 119_988))
        if m % step == 0 or step == 1
    )
    return [(_us(t), words.month(t, with_year=True)) for t in firsts]


def _us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def come_back(
    points: Sequence[tuple[float, float]], quantiles: tuple[float, float, float]
) -> Markup:
    """The chance to have bought again by each day, and the days between which it is likely.

    Args:
        points: `(days, probability)` that are known; straight lines join them.
        quantiles: Days by which it has happened with 10, 50 and 90 %; may be infinite.
    """
    low, middle, high = quantiles
    reach = _nice(1.15 * high if math.isfinite(high) else max(90.0, 2 * _finite(middle)))
    known = sorted({(0.0, 0.0), *points})
    inside = [(d, p) for d, p in known if d <= reach]
    beyond = [(d, p) for d, p in known if reach < d < math.inf]
    line = [*inside, _crossing(inside[-1], beyond[0], reach)] if beyond else inside
    top, height = 8, 130
    band_end = min(high, reach) / reach
    curve = " ".join(f"{100 * d / reach:.2f},{100 * (1 - p):.2f}" for d, p in line)
    parts = [
        *_levels(top, height),
        element(
            "rect", x=place(_finite(low, reach) / reach), y=top, height=height, class_="band",
            width=place(max(band_end - _finite(low, reach) / reach, 0.002)),
        ),
        element(
            "svg",
            element("polyline", points=curve, class_="curve", vector_effect="non-scaling-stroke"),
            x=0, y=top, width="100%", height=height, view_box="0 0 100 100", preserve="none",
            class_="inner", aria_hidden="true",
        ),
        *(
            element(
                "circle",
                element("title", f"{words.percent(p)} within {words.duration(d)}"),
                cx=place(d / reach), cy=f"{top + height * (1 - p):.1f}", r=4.5, class_="dot",
            )
            for d, p in inside[1:]
        ),
        _day_axis(reach, top + height),
    ]  # fmt: skip
    return picture(
        *parts,
        title="When they come back",
        description="Chance to be back: "
        + ", ".join(
            f"{share} % {_by(days)}" for share, days in zip((10, 50, 90), quantiles, strict=True)
        )
        + ".",
        height=top + height + 26,
        kind="come-back",
    )


def _by(days: float) -> str:
    return f"within {words.duration(days)}" if math.isfinite(days) else "rather never"


def _levels(top: int, height: int) -> list[Markup]:
    """Lines at 0, 50 and 100 %; each is named on the side that the curve leaves free."""
    sides: dict[float, tuple[str, str]] = {0.5: ("100%", "end"), 1.0: ("0", "start")}
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = top + height * (1 - share)
        parts.append(element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid"))
        if share in sides:
            x, anchor = sides[share]
            label = f"{100 * share:.0f} %"
            parts.append(element("text", label, x=x, y=y + 15, class_="soft", text_anchor=anchor))
    return parts


def _day_axis(reach: float, bottom: int) -> Markup:
    step = _nice(reach / 4)
    ticks = [n * step for n in range(int(reach / step) + 1)]
    told = [(t, "now" if t == 0 else f"{t:g} d") for t in ticks]
    parts = []
    for value, label in told:
        share = value / reach
        anchor = "start" if share < 0.02 else "end" if share > 0.97 else "middle"
        parts.append(
            element("text", label, x=place(share), y=bottom + 19, class_="soft", text_anchor=anchor)
        )
    return joined(parts)


def _crossing(
    before: tuple[float, float], after: tuple[float, float], at: float
) -> tuple[float, float]:
    share = (at - before[0]) / (after[0] - before[0])
    return at, before[1] + share * (after[1] - before[1])


def _finite(value: float, otherwise: float = 0.0) -> float:
    return value if math.isfinite(value) else otherwise


def _nice(value: float) -> float:
    """The next of 1, 2, 2.5, 5, 10, ... times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value * 0.999999)


_SIDE: Final = 250
_LEFT, _TOP = 46, 26


def calibration(found: Reliability) -> Markup:
    """What was said against what came true; a point a bin, larger where there were more."""
    shown = [
        (float(s), float(t), float(n))
        for s, t, n in zip(found.confidence, found.accuracy, found.counts, strict=True)
        if n > 0
    ]
    reach = min(_nice(max([max(s, t) for s, t, _ in shown], default=1.0)), 1.0)
    most = max((n for _, _, n in shown), default=1.0)
    parts = [
        element("rect", x=_LEFT, y=_TOP, width=_SIDE, height=_SIDE, class_="frame"),
        element("line", x1=_LEFT, y1=_TOP + _SIDE, x2=_LEFT + _SIDE, y2=_TOP, class_="diagonal"),
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        label = f"{100 * share * reach:.3g} %"
        x, y = _LEFT + share * _SIDE, _TOP + (1 - share) * _SIDE
        parts += [
            element("text", label, x=x, y=_TOP + _SIDE + 17, class_="soft", text_anchor="middle"),
            element("text", label, x=_LEFT - 6, y=y + 4, class_="soft", text_anchor="end"),
        ]
    for said, true, number in shown:
        told = f"said {words.percent(said)}, came true {words.percent(true)}: {number:,.0f}"
        parts.append(
            element(
                "circle",
                element("title", told),
                class_="dot",
                cx=f"{_LEFT + said / reach * _SIDE:.1f}",
                cy=f"{_TOP + (1 - true / reach) * _SIDE:.1f}",
                r=f"{3 + 9 * math.sqrt(number / most):.1f}",
            )
        )
    middle = _LEFT + _SIDE / 2
    parts.append(
        element("text", "said", x=middle, y=_TOP + _SIDE + 36, class_="name", text_anchor="middle")
    )
    parts.append(element("text", "came true", x=2, y=14, class_="name"))
    return element(
        "svg",
        element("title", "Calibration"),
        element("desc", "What the model said of its first offer against what came true."),
        *parts,
        class_="picture calibration", role="img",
        view_box=f"0 0 {_LEFT + _SIDE + 24} {_TOP + _SIDE + 44}",
        aria_label="Calibration: what the model said of its first offer, and what came true",
    )  # fmt: skip


def interval(
    value: float, low: float | None, high: float | None, reach: float, label: str
) -> Markup:
    """A score with its interval on a scale from 0 to `reach`."""
    parts = [element("line", x1="0", x2="100%", y1=9, y2=9, class_="grid")]
    if low is not None and high is not None:
        ends = {"x1": place(low / reach), "x2": place(high / reach)}
        parts.append(element("line", y1=9, y2=9, class_="range", **ends))
    parts.append(element("circle", cx=place(value / reach), cy=9, r=4.5, class_="dot"))
    return element("svg", *parts, class_="interval", role="img", aria_label=label)
