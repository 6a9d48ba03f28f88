"""Purchases come in: `/v1/purchases` and its bulk form."""

import asyncio
import hashlib
import secrets
from typing import Annotated

import orjson
from fastapi import Header
from pydantic import Field
from starlette.responses import Response

from nextbuy.service.api.answers import Stored
from nextbuy.service.api.bodies import PurchasesBody
from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.api.routing import StrictRoute, json_response
from nextbuy.service.config import Limits
from nextbuy.service.guard.scopes import Rule
from nextbuy.service.problems import ProblemError
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import Submission

IdempotencyKey = Annotated[
    Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")] | None,
    Header(
        alias="Idempotency-Key",
        description="the same key and body are stored once, however often they are sent",
    ),
]


class PurchaseRoutes:
    """Stores what is sent, and answers when it is durable."""

    def __init__(self, parts: ServiceParts, limits: Limits) -> None:
        self._parts, self._limits = parts, limits

    def routes(self) -> list[StrictRoute]:
        """The routes, to be put into an application."""
        return [
            StrictRoute(
                Rule(method="POST", path="/v1/purchases", scope="write"),
                self.store_purchases,
                limits=self._limits,
                summary="Store purchases",
                answers={200: Stored},
            ),
        ]

    async def store_purchases(
        self, body: PurchasesBody, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Store one or several purchases, together or not at all."""
        now = self._parts.now()
        bought = tuple(purchase.live(now) for purchase in body.all)
        latest = latest_moment(now, self._limits)
        for place, purchase in enumerate(bought):
            if (reason := too_far_ahead(purchase, latest)) is not None:
                where = f"body.purchases.{place}" if body.purchase is None else "body.purchase"
                error = {"field": f"{where}.timestamp", "message": reason}
                raise ProblemError(422, f"{where}.timestamp: {reason}.", errors=[error])
        submission = Submission(
            key=f"k:{idempotency_key}" if idempotency_key else f"r:{secrets.token_hex(16)}",
            digest=_digest(body),
            purchases=bought,
            received=now,
        )
        receipt = await asyncio.wrap_future(self._parts.committer.submit(submission))
        return json_response(
            {
                "stored": receipt.count,
                "first_sequence": receipt.first_sequence,
                "repeated": receipt.is_repeat,
            }
        )


def latest_moment(now: int, limits: Limits) -> int:
    """The last moment, UTC microseconds, that a purchase may claim."""
    return now + round(limits.future_seconds * 1e6)


def too_far_ahead(purchase: LivePurchase, latest: int) -> str | None:
    """Why the moment of a purchase is not believed; None if it is."""
    return "it lies too far ahead of our clock" if purchase.timestamp > latest else None


def _digest(body: PurchasesBody) -> bytes:
    """Of what was sent: the same however it was laid out, another for any other value."""
    told = [purchase.model_dump(exclude_unset=True) for purchase in body.all]
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).digest()
