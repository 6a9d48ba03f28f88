"""What routes and page ask of the live model, and what they get back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from nextbuy.predictor.audience import AudienceRequest
from nextbuy.service.live.paging import HistoryPage, Place
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import StoredPurchase
from nextbuy.splitting.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What does this user, or whoever has this history, buy next?

    Attributes:
        user_id: A known or new id; None for a made-up history.
        history: Instead of what is known of the user, the whole history in time order; None to look
            it up.
        k: Offers that are wanted, 1 to 1,000.
        as_of: UTC microseconds; None is now, where the bundle knows dates.
        rules: Of the shop; those of the bundle if None.
        explain: Whether each offer needs a reason.
    """

    user_id: str | None = None
    history: tuple[LivePurchase, ...] | None = None
    k: int = 10
    as_of: int | None = None
    rules: Rules | None = None
    explain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One item and the probability that it is the next purchase."""

    item_id: str
    platform: str | None
    category: str | None
    probability: float
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The offers for one question, best first.

    Attributes:
        user_id: As in the question.
        offers: At most k; fewer, or none, where rules or policy leave no more.
        version: Of the bundle that answered.
        fallback: Whether nothing of the history is known to the bundle, so that what everybody buys
            is all there is to say.
        ignored_items: Item ids of the history that the catalog lacks, each once, at most 100.
        reason_empty: Why there are no offers, where there are none.
        after_sequence: Purchases of the store up to this one were known.
    """

    user_id: str | None
    offers: tuple[Offer, ...]
    version: str
    fallback: bool
    ignored_items: tuple[str, ...]
    reason_empty: str | None
    after_sequence: int


class LiveModel(Protocol):
    """A loaded bundle, the purchases since, and the answers.

    The methods that are not `async` block for as long as the work takes: routes call them in a
    thread. Every answer comes from one version of the bundle.
    """

    @property
    def version(self) -> str | None:
        """Name of the version that answers, such as `000001`; None if there is none."""
        ...

    async def predict(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions; those of concurrent callers are worked on
        together.

        Raises:
            ModelUnavailableError: If no bundle is loaded.
            OverloadedError: If too many questions wait already.
            ConfigError: If rules leave nothing to offer at all, or a moment is asked of a bundle
                without dates.
        """
        ...

    def forecast(
        self, user_ids: Sequence[str], *, as_of: int | None = None, horizon_days: int = 90
    ) -> tuple[pl.DataFrame, str]:
        """As `Predictor.forecast`, with the purchases since; and the version."""
        ...

    def audience(
        self,
        request: AudienceRequest,
        *,
        as_of: int | None = None,
        progress: Callable[[float], None] = lambda _: None,
    ) -> tuple[pl.DataFrame, str]:
        """As `Predictor.audience`, with the purchases since; and the version.

        `progress` is told the share that is done, 0 to 1; what it raises ends the work.
        """
        ...

    def history(self, user_id: str, most: int, before: Place | None = None) -> HistoryPage:
        """The newest `most` purchases of a user, or of those before a page: those of the bundle and
        those of the store. Without a bundle those of the store."""
        ...

    def bought(self, purchases: Sequence[StoredPurchase]) -> None:
        """Purchases were stored: the next answers know them."""
        ...

    def forget(self, user_id: str) -> None:
        """A user was forgotten: drop what is cached, and use the bundle's history no more."""
        ...

    def swap(self, name: str) -> str:
        """Load a version of the bundle's folder by name (`latest` is the newest), verify it, try
        it, and let it answer from then on; gives the name. What is broken raises `BundleError` and
        the old version goes on."""
        ...

    def facts(self) -> dict[str, object]:
        """The model card: version, level, models, scores, protocol, sizes; JSON values."""
        ...
