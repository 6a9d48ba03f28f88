"""A live model of a few users whose answers are known by heart, a catalog, and the page on them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl
from starlette.applications import Starlette
from starlette.routing import Route

from nextbuy.data.catalog import Catalog
from nextbuy.errors import ConfigError, ModelUnavailableError, NextbuyError
from nextbuy.service.live.paging import HistoryPage, Place
from nextbuy.service.live.protocol import Answer, Offer, Question
from nextbuy.service.page.pages import Pages
from nextbuy.service.page.parts import Counters, PageParts
from nextbuy.service.page.routes import page_routes
from nextbuy.service.page.sessions import Sessions
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import StoredPurchase

NOW = 1_735_603_200_000_000  # 31 Dec 2024, UTC
DAY = 86_400_000_000


def stored(
    user: str, item: str, days_ago: float, *, platform: str | None = "Shop",
    category: str | None = "food", sequence: int = 0,
) -> StoredPurchase:  # fmt: skip
    purchase = LivePurchase(
        user_id=user, item_id=item, timestamp=NOW - round(days_ago * DAY), platform=platform,
        category=category, price=2.5,
    )  # fmt: skip
    return StoredPurchase(sequence=sequence, received=purchase.timestamp, purchase=purchase)


HISTORIES = {
    "anna": [
        stored("anna", "tea", 200),
        stored("anna", "milk", 120, platform="Corner"),
        stored("anna", "tea", 60),
        stored("anna", "soap", 30, category="home"),
        stored("anna", "tea", 2, sequence=17),
    ]
}
OFFERS = (
    Offer(item_id="tea", platform="Shop", category="food", probability=0.4, reason="bought 3x"),
    Offer(item_id="milk", platform="Corner", category="food", probability=0.1, reason=None),
)
FORECAST = {
    "days_to_next_p10": 1.5, "days_to_next_p50": 12.0, "days_to_next_p90": 41.0,
    "p_buy_7d": 0.3, "p_buy_30d": 0.75, "p_buy_90d": 0.98, "p_active": 0.99,
    "expected_purchases_90d": 6.2, "expected_spend_90d": 1234.5, "lifetime_value_365d": 4000.0,
    "as_of": datetime(2024, 12, 31, tzinfo=UTC),
}  # fmt: skip


@dataclass
class KnownModel:
    """Implements what the page needs of `LiveModel`."""

    version: str | None = "000007"
    histories: Mapping[str, Sequence[StoredPurchase]] = field(default_factory=lambda: HISTORIES)
    offers: Sequence[Offer] = OFFERS
    forecasts: Mapping[str, Any] = field(default_factory=lambda: FORECAST)
    card: Mapping[str, Any] = field(default_factory=dict)
    error: NextbuyError | None = None
    without_dates: bool = False
    asked: list[Question] = field(default_factory=list)

    async def predict(self, questions: Sequence[Question]) -> list[Answer]:
        self._fail()
        self.asked += questions
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer:
        history = question.history or [p.purchase for p in self.histories.get(question.user_id, ())]
        known = {offer.item_id for offer in self.offers}
        return Answer(
            user_id=question.user_id,
            offers=tuple(self.offers),
            version=self.version or "",
            fallback=not history,
            ignored_items=tuple({p.item_id for p in question.history or ()} - known),
            reason_empty=None if self.offers else "the rules of the shop allow nothing",
            after_sequence=17,
        )

    def forecast(
        self, user_ids: Sequence[str], *, as_of: int | None = None, horizon_days: int = 90
    ) -> tuple[pl.DataFrame, str]:
        self._fail()
        if self.without_dates:
            raise ConfigError("A forecast was asked of purchases whose time is only an order.")
        rows = [{"user_id": user, **self.forecasts} for user in user_ids]
        return pl.DataFrame(rows), self.version or ""

    def history(self, user_id: str, most: int) -> HistoryPage:
        if self.error is not None:
            raise self.error
        rows = list(self.histories.get(user_id, []))
        older = Place(is_after=False, timestamp=0, count=0) if len(rows) > most else None
        return HistoryPage(
            purchases=rows[-most:], total=len(rows), older=older, version=self.version
        )

    def facts(self) -> dict[str, object]:
        return dict(self.card)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error
        if self.version is None:
            raise ModelUnavailableError("No bundle is loaded.")


def catalog_of(*rows: tuple[str, str | None, str | None]) -> Catalog:
    """Items with platform and category, the first bought most."""
    return Catalog(
        table=pl.DataFrame(
            {
                "item_id": [item for item, _, _ in rows],
                "platform": [platform for _, platform, _ in rows],
                "category": [category for _, _, category in rows],
                "price": [math.nan] * len(rows),
                "num_purchases": list(range(len(rows), 0, -1)),
            },
            schema={
                "item_id": pl.String, "platform": pl.String, "category": pl.String,
                "price": pl.Float64, "num_purchases": pl.Int64,
            },
        )
    )  # fmt: skip


CATALOG = catalog_of(
    ("tea", "Shop", "food"), ("milk", "Corner", "food"), ("soap", "Shop", "home"),
    ("green tea", "Shop", "food"), ("milk", "Shop", "food"),
)  # fmt: skip


def parts_of(
    live: Any,
    *,
    catalog: Catalog | None = CATALOG,
    counters: Callable[[], Counters] = lambda: Counters(purchases=41, predictions=7, sequence=17),
    **more: Any,
) -> PageParts:
    return PageParts(
        live=live, catalog=lambda: catalog, counters=counters,
        **{"sessions": Sessions(), "now": lambda: NOW, **more},
    )  # fmt: skip


def app_of(parts: PageParts, *, routes: Sequence[Route] = ()) -> Starlette:
    return Starlette(routes=[*(route for _, route in page_routes(parts, Pages())), *routes])
