"""Numbers and moments as people read them; `–` where there is none."""

import math
from datetime import UTC, datetime
from typing import Final

_NONE: Final = "–"
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_HOUR: Final = 1 / 24


def percent(share: float | None) -> str:
    """`16.8 %`, without a break; what can happen is never `0.0 %`, nor what may not `100.0 %`."""
    if share is None or math.isnan(share):
        return _NONE
    if 0 < share < 0.0005:
        return "<0.1\u00a0%"
    if 0.9995 <= share < 1:
        return ">99.9\u00a0%"
    return f"{100 * share:.1f}\u00a0%"


def money(value: float | None) -> str:
    """`1,234.50`, and whole from 10,000 on; the log does not say in which currency."""
    if value is None or not math.isfinite(value):
        return _NONE
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.2f}"


def count(value: float | None) -> str:
    """`39,522`."""
    return _NONE if value is None or not math.isfinite(value) else f"{value:,.0f}"


def number(value: float | None, digits: int = 3) -> str:
    """`0.366`."""
    return _NONE if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def duration(days: float | None) -> str:
    """`8 hours`, `2.2 days`, `41 days`, `2.5 years`; infinity is `rather never`."""
    if days is None or math.isnan(days):
        return _NONE
    if math.isinf(days):
        return "rather never"
    if days < _HOUR:
        return "within the hour"
    if days < 1:
        return _counted(days * 24, 0, "hour")
    if days < 730:
        return _counted(days, 1 if days < 10 else 0, "day")
    return _counted(days / 365.25, 1, "year")


def _counted(value: float, digits: int, unit: str) -> str:
    shown = f"{value:,.{digits}f}".removesuffix(".0")
    return f"{shown} {unit}" + ("" if shown == "1" else "s")


def day(microseconds: int | None) -> str:
    """`30 Dec 2024`, UTC; moments that no calendar has are told as numbers."""
    found = moment_of(microseconds)
    if found is None:
        return _NONE if microseconds is None else str(microseconds)
    return f"{found.day} {_MONTHS[found.month - 1]} {found.year}"


def moment(microseconds: int | None) -> str:
    """`30 Dec 2024, 23:30`, UTC."""
    found = moment_of(microseconds)
    return day(microseconds) + (f", {found:%H:%M}" if found else "")


def month(found: datetime, *, with_year: bool) -> str:
    """`Dec`, or `Dec 24` where the year is not clear."""
    name = _MONTHS[found.month - 1]
    return f"{name} {found.year % 100:02d}" if with_year else name


def moment_of(microseconds: int | None) -> datetime | None:
    """UTC; None for what lies outside the years 1 to 9999."""
    if microseconds is None:
        return None
    try:
        return datetime.fromtimestamp(microseconds / 1e6, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def written(iso: object) -> str:
    """A moment in ISO 8601, as bundles store it: `30 Dec 2024, 23:30`; other text as it is."""
    if not isinstance(iso, str) or not iso:
        return _NONE
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    return moment(round(found.timestamp() * 1e6))


def shortened(text: str, most: int) -> str:
    """At most so many characters, the last one `…` where more were there."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
