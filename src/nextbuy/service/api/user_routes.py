"""What is known of a user, and forgetting them."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import Field
from starlette.responses import Response

from nextbuy.service.api.answers import Forgotten, User
from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.api.routing import StrictRoute, json_response
from nextbuy.service.api.values import AtMost, FromDigits, Id, text_of_microseconds
from nextbuy.service.config import Limits
from nextbuy.service.guard.scopes import Rule
from nextbuy.service.live.paging import Place
from nextbuy.service.problems import ProblemError
from nextbuy.service.store.protocol import StoredPurchase

UserId = Annotated[Id, Path(description="percent-encoded; slashes may be in it")]
Limit = Annotated[
    int, Field(ge=1), AtMost("history"), FromDigits, Query(description="newest purchases")
]
Before = Annotated[
    str | None,
    Field(pattern=r"^[01]\.-?[0-9]{1,18}\.[0-9]{1,9}$"),
    Query(description="`older` of another answer: only purchases before that page"),
]
_PATH = "/v1/users/{user_id:path}"


class UserRoutes:
    """Both block on the store, so both run in threads."""

    def __init__(self, parts: ServiceParts, limits: Limits) -> None:
        self._parts, self._limits = parts, limits

    def routes(self) -> list[StrictRoute]:
        """The routes, to be put into an application."""
        return [
            StrictRoute(
                Rule(method="GET", path=_PATH, scope="read"),
                self.get_user,
                limits=self._limits,
                summary="The newest purchases of a user",
                answers={200: User},
            ),
            StrictRoute(
                Rule(method="DELETE", path=_PATH, scope="admin"),
                self.forget_user,
                limits=self._limits,
                summary="Forget a user: purchases, answers, and what the bundle knows",
                answers={200: Forgotten},
            ),
        ]

    def get_user(self, user_id: UserId, limit: Limit = 100, before: Before = None) -> Response:
        """Oldest first, those of the bundle with sequence 0; without a bundle those of the store.
        Where there are older ones, `older` asks for them."""
        place = None if before is None else Place.of(before)
        page = self._parts.live.history(user_id, limit, place)
        if not page.total:
            raise ProblemError(404, "Nothing is known of this user.")
        return json_response(
            {
                "user_id": user_id,
                "purchases": [_shown(row) for row in page.purchases],
                "total": page.total,
                "older": page.older and str(page.older),
                "version": page.version,
            }
        )

    def forget_user(self, user_id: UserId) -> Response:
        """Durable when it is answered. What is sent afterwards is new."""
        self._parts.on_forget(user_id)
        deleted = self._parts.store.forget(user_id)
        self._parts.live.forget(user_id)
        return json_response({"user_id": user_id, "deleted": deleted})


def _shown(row: StoredPurchase) -> dict[str, object]:
    bought = row.purchase
    return {
        "sequence": row.sequence,
        "item_id": bought.item_id,
        "timestamp": text_of_microseconds(bought.timestamp),
        "platform": bought.platform,
        "category": bought.category,
        "price": bought.price,
        "quantity": bought.quantity,
        "basket_id": bought.basket_id,
    }
