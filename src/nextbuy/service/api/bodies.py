"""What may be asked: one strict model a body."""

from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, model_validator

from nextbuy.service.api.values import AtMost, Id, Moment, Strict, never_null
from nextbuy.service.purchases import LivePurchase
from nextbuy.splitting.rules import Rules
from nextbuy.timing.forecaster import LONGEST

Price = Annotated[float, Field(description="of one unit")]
_FINITE: Final = 1e15


def one_of(*names: str) -> ConfigDict:
    """Of these fields exactly one is given; the schema says so, too."""

    def extra(schema: dict[str, Any]) -> None:
        for name in names:
            schema["properties"][name] = never_null(schema["properties"][name])
        schema["oneOf"] = [{"required": [name]} for name in names]

    return ConfigDict(json_schema_extra=extra)


def _check_one_of(body: Strict, *names: str) -> None:
    given = [name for name in names if name in body.model_fields_set]
    if len(given) != 1:
        raise ValueError(f"exactly one of {', '.join(names)} is needed")
    if getattr(body, given[0]) is None:
        raise ValueError(f"{given[0]} is null")


class PurchaseBody(Strict):
    """One purchase; without a timestamp it is of now."""

    user_id: Id
    item_id: Id
    timestamp: Moment | None = None
    platform: Id | None = None
    category: Id | None = None
    price: float | None = Field(default=None, ge=-_FINITE, le=_FINITE, description="of one unit")
    quantity: float | None = Field(default=None, gt=0, le=_FINITE)
    basket_id: Id | None = None

    def live(self, now: int) -> LivePurchase:
        """As the store takes it.

        Args:
            now: UTC microseconds, for a purchase that tells no moment.
        """
        return LivePurchase(
            user_id=self.user_id, item_id=self.item_id,
            timestamp=now if self.timestamp is None else self.timestamp,
            platform=self.platform, category=self.category, price=self.price,
            quantity=self.quantity, basket_id=self.basket_id,
        )  # fmt: skip


# Lists stop at their first element that is wrong: to list what is wrong in a thousand of them takes
# longer than all the rest of the request.
Purchases = Annotated[list[PurchaseBody], Field(fail_fast=True, min_length=1), AtMost("purchases")]


class PurchasesBody(Strict):
    """One purchase, or several that are stored together or not at all."""

    model_config = one_of("purchase", "purchases")

    purchase: PurchaseBody | None = None
    purchases: Purchases | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        _check_one_of(self, "purchase", "purchases")
        return self

    @property
    def all(self) -> list[PurchaseBody]:
        """One or more."""
        return [self.purchase] if self.purchase is not None else list(self.purchases or ())


Ids = Annotated[list[Id], Field(fail_fast=True, max_length=10_000)]
Factor = Annotated[float, Field(gt=0, le=1e6)]
Boosts = Annotated[dict[Id, Factor], AtMost("json_keys")]


class RulesBody(Strict):
    """Rules of the shop for this request."""

    allow: Ids | None = Field(default=None, description="ids that may be offered; null is all")
    exclude: Ids = Field(default=[], description="ids that may not be offered")
    lowest_price: float | None = Field(default=None, ge=0, le=_FINITE)
    highest_price: float | None = Field(default=None, ge=0, le=_FINITE)
    per_category: int | None = Field(default=None, ge=1, le=10_000)
    per_platform: int | None = Field(default=None, ge=1, le=10_000)
    boost_items: Boosts = Field(default={})
    boost_categories: Boosts = Field(default={})

    def rules(self) -> Rules:
        """As the library takes them.

        Raises:
            ConfigError: If no price can be in the band.
        """
        return Rules.of(self.model_dump())


class HistoryPurchase(Strict):
    """One purchase of a history; without timestamps the order given is the order of time."""

    item_id: Id
    timestamp: Moment | None = None
    platform: Id | None = None
    category: Id | None = None
    price: float | None = Field(default=None, ge=-_FINITE, le=_FINITE)
    quantity: float | None = Field(default=None, gt=0, le=_FINITE)
    basket_id: Id | None = None


_ALL_OR_NONE: Final[dict[str, Any]] = {
    "anyOf": [
        {"items": {"required": ["timestamp"], "properties": {"timestamp": {"type": "string"}}}},
        {"items": {"properties": {"timestamp": {"type": "null"}}}},
    ]
}


class HistoryBody(Strict):
    """A history of somebody who need not be known; with timestamps in any order."""

    user_id: Id | None = None
    purchases: Annotated[
        list[HistoryPurchase],
        Field(fail_fast=True, json_schema_extra=_ALL_OR_NONE),
        AtMost("history"),
    ]

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        dated = {purchase.timestamp is not None for purchase in self.purchases}
        if len(dated) > 1:
            raise ValueError("either all purchases have a timestamp, or none")
        return self


Users = Annotated[list[Id], Field(fail_fast=True, min_length=1), AtMost("users")]
Histories = Annotated[list[HistoryBody], Field(fail_fast=True, min_length=1), AtMost("users")]


class PredictBody(Strict):
    """What do these users, or those who have these histories, buy next?"""

    model_config = one_of("users", "histories")

    users: Users | None = None
    histories: Histories | None = None
    k: Annotated[int, Field(ge=1), AtMost("k")] = 10
    rules: RulesBody | None = None
    as_of: Moment | None = None
    explain: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        _check_one_of(self, "users", "histories")
        return self


class ForecastBody(Strict):
    """When will these users buy next, how often, and for how much?"""

    users: Users
    as_of: Moment | None = None
    horizon_days: int = Field(default=90, ge=1, le=LONGEST)


class AudienceBody(Strict):
    """Who will buy one item, one platform or one category within some days?"""

    model_config = one_of("item", "platform", "category")

    item: Id | None = None
    platform: Id | None = None
    category: Id | None = None
    within_days: int = Field(ge=1, le=LONGEST)
    size: int | None = Field(default=None, ge=1, le=2**53)
    min_probability: float = Field(default=0.0, ge=0, le=1)
    min_expected_value: float | None = Field(default=None, ge=0, le=_FINITE)
    exclude: Ids = Field(default=[], description="ids of users to leave out")
    holdout_share: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, le=2**53)
    as_of: Moment | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        _check_one_of(self, "item", "platform", "category")
        return self


class SwapBody(Strict):
    """Which version is to answer."""

    name: Annotated[
        str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$", description="`latest`")
    ]
