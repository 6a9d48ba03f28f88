"""Questions: what comes next, when, and for how much."""

import math

from starlette.responses import Response

from nextbuy.service.api.answers import Forecast, Predicted
from nextbuy.service.api.bodies import ForecastBody, HistoryBody, PredictBody
from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.api.routing import StrictRoute, json_response
from nextbuy.service.config import Limits
from nextbuy.service.guard.scopes import Rule
from nextbuy.service.live.protocol import Question
from nextbuy.service.problems import ProblemError
from nextbuy.service.purchases import LivePurchase


class PredictRoutes:
    """Asks the live model."""

    def __init__(self, parts: ServiceParts, limits: Limits) -> None:
        self._parts, self._limits = parts, limits

    def routes(self) -> list[StrictRoute]:
        """The routes, to be put into an application."""
        return [
            StrictRoute(
                Rule(method="POST", path="/v1/predict", scope="read"),
                self.predict,
                limits=self._limits,
                summary="The most probable next purchases of users or histories",
                answers={200: Predicted},
            ),
            StrictRoute(
                Rule(method="POST", path="/v1/forecast", scope="read"),
                self.forecast,
                limits=self._limits,
                summary="When users buy next, how often, and for how much",
                answers={200: Forecast},
            ),
        ]

    async def predict(self, body: PredictBody) -> Response:
        """Answers in the order of the questions."""
        count = len(body.users or body.histories or ())
        if count * body.k > self._limits.offers:
            raise ProblemError(
                422, f"{count} questions of {body.k} offers are more than {self._limits.offers}; "
                "ask in several requests.",
            )  # fmt: skip
        answers = await self._parts.live.predict(self._questions(body))
        for answer in answers:
            if not all(math.isfinite(offer.probability) for offer in answer.offers):
                raise ArithmeticError("a probability is not finite")
        self._parts.metrics.predicted(len(answers))
        if body.users is not None:
            self._parts.on_answered(answers)
        return json_response({"answers": answers})

    def forecast(self, body: ForecastBody) -> Response:
        """One row a user, in the order asked; what is not known is null."""
        table, version = self._parts.live.forecast(
            body.users, as_of=body.as_of, horizon_days=body.horizon_days
        )
        return json_response({"version": version, "rows": table.to_dicts()})

    def _questions(self, body: PredictBody) -> list[Question]:
        rules = None if body.rules is None else body.rules.rules()
        if body.users is not None:
            return [
                Question(
                    user_id=user, k=body.k, as_of=body.as_of, rules=rules, explain=body.explain
                )
                for user in body.users
            ]
        return [
            Question(
                user_id=one.user_id, history=_history(one, self._parts.now()), k=body.k,
                as_of=body.as_of, rules=rules, explain=body.explain,
            )
            for one in body.histories or ()
        ]  # fmt: skip


def _history(asked: HistoryBody, now: int) -> tuple[LivePurchase, ...]:
    """In time order. Without timestamps that is the order given, and the last one is just now."""
    undated = range(now - len(asked.purchases), now)
    rows = [
        LivePurchase(
            user_id=asked.user_id or "", item_id=one.item_id,
            timestamp=order if one.timestamp is None else one.timestamp,
            platform=one.platform, category=one.category, price=one.price,
            quantity=one.quantity, basket_id=one.basket_id,
        )
        for one, order in zip(asked.purchases, undated, strict=True)
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: row.timestamp))
