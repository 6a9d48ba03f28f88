"""Questions: what comes next, when, and for how much."""

import math
from collections.abc import Awaitable

from starlette.responses import Response

from nextbuy.service.api.answers import Forecast, Predicted
from nextbuy.service.api.bodies import ForecastBody, HistoryBody, PredictBody
from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.api.routing import StrictRoute, json_response
from nextbuy.service.api.usual_bodies import usual_questions
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
                usual=self._usual,
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
        return await self._answered(
            questions_of(body, self._parts.now()), by_id=body.users is not None
        )

    def forecast(self, body: ForecastBody) -> Response:
        """One row a user, in the order asked; what is not known is null."""
        table, version = self._parts.live.forecast(
            body.users, as_of=body.as_of, horizon_days=body.horizon_days
        )
        return json_response({"version": version, "rows": table.to_dicts()})

    def _usual(self, raw: bytes) -> Awaitable[Response] | None:
        questions = usual_questions(raw, self._limits, self._parts.now())
        return None if questions is None else self._answered(questions, by_id=False)

    async def _answered(self, questions: list[Question], *, by_id: bool) -> Response:
        """Questions of as many offers each, none of them empty."""
        count, k = len(questions), questions[0].k
        if count * k > self._limits.offers:
            raise ProblemError(
                422, f"{count} questions of {k} offers are more than {self._limits.offers}; "
                "ask in several requests.",
            )  # fmt: skip
        answers = await self._parts.live.predict(questions)
        for answer in answers:
            if not all(math.isfinite(offer.probability) for offer in answer.offers):
                raise ArithmeticError("a probability is not finite")
        self._parts.metrics.predicted(count)
        if by_id:
            self._parts.on_answered(answers)
        return json_response({"answers": answers})


def questions_of(body: PredictBody, now: int) -> list[Question]:
    """What a body asks, `now` being UTC microseconds."""
    rules = None if body.rules is None else body.rules.rules()
    if body.users is not None:
        return [
            Question(user_id=user, k=body.k, as_of=body.as_of, rules=rules, explain=body.explain)
            for user in body.users
        ]
    return [
        Question(
            user_id=one.user_id, history=_history(one, now), k=body.k,
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
