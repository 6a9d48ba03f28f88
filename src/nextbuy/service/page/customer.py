"""What the page shows of one customer: what they bought, buy next, and when."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool

from nextbuy.errors import ConfigError, ModelUnavailableError
from nextbuy.service.live.protocol import Answer, LiveModel, Question
from nextbuy.service.page import pictures, words
from nextbuy.service.store.protocol import StoredPurchase

Lanes = Literal["category", "platform", "item"]

MOST: Final = 500
"""Purchases of a history that are shown."""

_WAITS: Final = (
    ("one in ten is back by then", "fewer than one in ten ever come back"),
    ("half of them are", "fewer than half ever do"),
    ("nine in ten are", "fewer than nine in ten ever do"),
)
"""How to read days, and how to read that there are none."""

_HORIZONS: Final = (7, 30, 90)
_DAY: Final = 86_400_000_000

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A history, ready to be shown.

    Attributes:
        purchases: Newest first.
        line: The picture.
        lanes: By what it is cut.
        choices: By what it could be.
        favourite: What they bought most often, and how often.
        is_cut: Whether there are older ones that are not shown.
        num_live: How many came after the model was made.
        dated: Whether their moments are dates.
    """

    purchases: Sequence[StoredPurchase]
    line: Markup
    lanes: Lanes
    choices: Sequence[Lanes]
    favourite: tuple[str, int]
    is_cut: bool
    num_live: int
    dated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """When they come back, and what for.

    Attributes:
        waits: By when they have bought again with 10, 50 and 90 %, and how to read it.
        within: `(days, probability)`.
        picture: Both as a curve; None where nothing is known of them.
        active: The chance that they ever buy again.
        purchases: Days with a purchase that are expected within 90 days.
        spend: Money that is expected within 90 days, None without prices.
        as_of: From when days count.
        since: How long after their last purchase that is; empty if that is not known.
    """

    waits: Sequence[tuple[str, str]]
    within: Sequence[tuple[int, float]]
    picture: Markup
    active: float | None
    purchases: float | None
    spend: float | None
    as_of: str
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """All of it; `when` is None for the reason in `why_no_when`, `answer` without a model."""

    user_id: str
    past: Past | None
    answer: Answer | None
    when: Return | None
    why_no_when: str | None


async def customer(
    model: LiveModel, user_id: str, *, lanes: str | None, dated: bool, k: int = 10
) -> Customer:
    """Ask the model of all that is shown; without one there is still what they bought.

    Raises:
        ServiceError: If too much waits, or the store cannot be reached.
    """
    page = await run_in_threadpool(model.history, user_id, MOST)
    found = page.purchases
    answer = await _answer(model, Question(user_id=user_id, k=k, explain=True))
    last = found[-1].purchase.timestamp if found else None
    when, why = await _return(model, user_id, last)
    is_cut = page.older is not None
    past = _past(found, lanes, dated=dated, is_cut=is_cut) if found else None
    return Customer(user_id=user_id, past=past, answer=answer, when=when, why_no_when=why)


async def _answer(model: LiveModel, question: Question) -> Answer | None:
    try:
        return (await model.predict([question]))[0]
    except ModelUnavailableError:
        return None


async def _return(
    model: LiveModel, user_id: str, last: int | None
) -> tuple[Return | None, str | None]:
    if last is None:
        return None, "Nobody can say when somebody comes back who was never here."
    try:
        table, _ = await run_in_threadpool(model.forecast, [user_id])
    except ConfigError as error:
        _logger.info("no forecast on the page: %s", error)
        return None, str(error)
    except ModelUnavailableError:
        return None, "No model is loaded that could say when."
    row = table.to_dicts()[0] if table.height else {}
    low, middle, high = (_told_days(row.get(f"days_to_next_p{q}")) for q in (10, 50, 90))
    if low is None or middle is None or high is None:
        return None, "Their purchases lie after the moment of the forecast, or have no dates."
    within = [(days, float(row[f"p_buy_{days}d"])) for days in _HORIZONS]
    return _told(row, (low, middle, high), within, last), None


def _told_days(value: float | None) -> float | None:
    """Days, perhaps infinite; None where nothing is told."""
    return None if value is None or math.isnan(value) else value


def _told(
    row: Mapping[str, Any],
    quantiles: tuple[float, float, float],
    within: Sequence[tuple[int, float]],
    last: int,
) -> Return:
    known = [(d, p) for d, p in zip(quantiles, (0.1, 0.5, 0.9), strict=True) if math.isfinite(d)]
    points = known + [(float(days), share) for days, share in within]
    as_of = row["as_of"]
    moment = None if as_of is None else round(as_of.timestamp() * 1e6)
    days_since = math.nan if moment is None else (moment - last) / _DAY
    return Return(
        waits=[
            (words.duration(days), texts[0] if math.isfinite(days) else texts[1])
            for days, texts in zip(quantiles, _WAITS, strict=True)
        ],
        within=within,
        picture=pictures.come_back(points, quantiles),
        active=row["p_active"],
        purchases=row["expected_purchases_90d"],
        spend=row["expected_spend_90d"],
        as_of=words.day(moment) if moment is not None else "",
        since=words.duration(days_since) if days_since >= 1 else "",
    )


def _past(found: Sequence[StoredPurchase], lanes: str | None, *, dated: bool, is_cut: bool) -> Past:
    choices = _choices(found)
    chosen = next((choice for choice in choices if choice == lanes), choices[0])
    marks = [_mark(each, chosen, dated=dated) for each in found]
    favourite = Counter(each.purchase.item_id for each in found).most_common(1)[0]
    return Past(
        purchases=found[::-1],
        line=pictures.time_line(marks, dated=dated, lanes_are=chosen),
        lanes=chosen,
        choices=choices,
        favourite=favourite,
        is_cut=is_cut,
        num_live=sum(each.sequence > 0 for each in found),
        dated=dated,
    )


def _choices(found: Sequence[StoredPurchase]) -> list[Lanes]:
    """What the purchases tell, what cuts them best first."""
    choices: list[Lanes] = []
    if any(each.purchase.category for each in found):
        choices.append("category")
    if any(each.purchase.platform for each in found):
        choices.append("platform")
    return [*choices, "item"]


def _mark(each: StoredPurchase, lanes: Lanes, *, dated: bool) -> pictures.Mark:
    bought = each.purchase
    lane = {"category": bought.category, "platform": bought.platform, "item": bought.item_id}
    told = f"{bought.item_id}, {words.moment(bought.timestamp)}" if dated else bought.item_id
    return pictures.Mark(
        at=bought.timestamp,
        lane=lane[lanes] or "not told",
        words=f"{told}, a live purchase" if each.sequence > 0 else told,
        is_live=each.sequence > 0,
    )
