"""The usual question about raw histories, read in one go.

Most questions look alike: histories whose purchases tell texts and moments, nothing else that is
out of the ordinary. To check each of their purchases by its model costs more than the rest of a
request, so a body is first tried here: what is found to be as it should be is taken, and of all
else nothing is said, since the strict way finds the words. Whatever is accepted here is accepted
there, with the same meaning.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any, Final

import numpy as np
import orjson

from nextbuy.service.api.values import USUAL_MOMENT
from nextbuy.service.config import Limits
from nextbuy.service.live.protocol import Question
from nextbuy.service.purchases import LivePurchase

_DEPTH: Final = 5
"""Of a body: itself, histories, a history, purchases, a purchase."""

_OF_BODY: Final = frozenset({"histories", "k", "explain"})
_OF_HISTORY: Final = frozenset({"user_id", "purchases"})
_OF_PURCHASE: Final = frozenset({"item_id", "timestamp", "platform", "category", "basket_id"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_IN_UTC: Final = re.compile(
    r"(?:(?!0000)\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ)+", re.ASCII
)
_LENGTH: Final = len("2026-03-01T12:00:00Z")
"""Moments that are written like this one after the other are read together."""

_purchase: Final[Callable[[tuple[Any, ...]], LivePurchase]] = partial(tuple.__new__, LivePurchase)
"""As `LivePurchase._make`, which is written in Python."""


def usual_questions(raw: bytes, limits: Limits, now: int) -> list[Question] | None:
    """The questions of a body of `/v1/predict`, or None if it is unusual or wrong.

    Args:
        raw: The whole body.
        limits: Of this service.
        now: UTC microseconds; histories without moments end just before.
    """
    if b"\\" in raw or limits.json_depth < _DEPTH:
        return None
    try:
        return _questions(raw, limits, now)
    except (_UnusualError, orjson.JSONDecodeError):
        return None


class _UnusualError(Exception):
    """Something in a body is unusual or wrong."""


def _check(is_usual: bool) -> None:
    if not is_usual:
        raise _UnusualError


def _questions(raw: bytes, limits: Limits, now: int) -> list[Question]:
    body = orjson.loads(raw)
    _check(type(body) is dict and body.keys() <= _OF_BODY)
    k, explain, histories = body.get("k", 10), body.get("explain", False), body.get("histories")
    _check(type(k) is int and 1 <= k <= limits.k and type(explain) is bool)
    _check(type(histories) is list and 1 <= len(histories) <= limits.users)
    questions = []
    for history in histories:
        _check(type(history) is dict and history.keys() <= _OF_HISTORY)
        user_id, purchases = history.get("user_id"), history.get("purchases")
        _check(type(purchases) is list and len(purchases) <= limits.history)
        bought = _bought(user_id, purchases, limits, now)
        questions.append(Question(user_id=user_id, history=bought, k=k, explain=explain))
    # Without escapes, quotes stand around texts only: of a key that is there twice, one is missing.
    _check(orjson.dumps(body).count(b'"') == raw.count(b'"'))
    return questions


def _bought(
    user_id: Any, purchases: list[Any], limits: Limits, now: int
) -> tuple[LivePurchase, ...]:
    """The purchases of a history in the order of time."""
    told: set[str] = set()
    for purchase in purchases:
        _check(type(purchase) is dict)
        told.update(purchase)
    _check(told <= _OF_PURCHASE)
    columns = {name: [each.get(name) for each in purchases] for name in told}
    nothing = [None] * len(purchases)
    items = columns.get("item_id", nothing)
    rest = [columns.get(name, nothing) for name in ("platform", "category", "basket_id")]
    texts = [*items, *(text for name in rest for text in name if text is not None)]
    _check_ids(texts if user_id is None else [*texts, user_id], limits)
    moments = _moments(columns.get("timestamp", nothing), now)
    users = [user_id or ""] * len(purchases)
    platforms, categories, baskets = rest
    rows = zip(
        users, items, moments, platforms, categories, nothing, nothing, baskets, strict=True
    )  # fmt: skip
    return tuple(sorted(map(_purchase, rows), key=attrgetter("timestamp")))


def _check_ids(texts: list[Any], limits: Limits) -> None:
    """These have to be names, of printable characters and surely short enough."""
    try:
        together = "".join(texts)
    except TypeError:
        raise _UnusualError from None
    _check(together.isprintable() and "" not in texts)
    _check(max(map(len, texts), default=0) * 4 <= limits.id_bytes)


def _moments(texts: Sequence[Any], now: int) -> Sequence[int]:
    """UTC microseconds; the order given where no purchase tells a moment, as of just now."""
    if texts.count(None) == len(texts):
        return range(now - len(texts), now)
    try:
        if set(map(len, texts)) == {_LENGTH} and _IN_UTC.fullmatch("".join(texts)):
            moments: list[int] = (
                np.array([text[:-1] for text in texts], "M8[us]").view("i8").tolist()
            )
            return moments
        _check(all(map(USUAL_MOMENT.fullmatch, texts)))
        return [(each - _EPOCH) // _MICROSECOND for each in map(datetime.fromisoformat, texts)]
    except (TypeError, ValueError):  # some are no texts; there is no such day
        raise _UnusualError from None
