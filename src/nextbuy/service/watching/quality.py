"""How good the answers were that were served, and how far the market has moved since.

Legend: C answers that were answered by a purchase, k offers.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import DAY, UNKNOWN
from nextbuy.data.purchases import BasketKind
from nextbuy.metrics import bootstrap
from nextbuy.metrics.calibration import NUM_BINS, Reliability, confidence_bins, reliability
from nextbuy.metrics.ranking import Float64
from nextbuy.seeding import generator
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import ServedOffer, Store, StoredPurchase
from nextbuy.service.watching.drift import Drift, Estimate, drift_of, estimates
from nextbuy.service.watching.outcomes import Fate, Key, Outcome, outcomes

CUTOFFS: Final = (1, 5, 10)
_PAGE: Final = 5_000


class QualityConfig(BaseModel):
    """What is looked at, and how much of it at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: float = Field(default=30.0, gt=0, description="answers and purchases so far back")
    window_days: float = Field(default=14.0, gt=0, description="a purchase answers for so long")
    most_answers: int = Field(default=50_000, ge=1, description="the newest; older are left out")
    most_purchases: int = Field(default=200_000, ge=1, description="for drift, the newest")
    num_resamples: int = Field(default=200, ge=1, description="of the bootstrap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Of answers that a purchase answered.

    Attributes:
        num_answered: How many, C.
        hit_rate: By k: whether any item of the basket was among the first k offers, of the answers
            that had so many.
        said: Mean probability of the first offer; each purchase of the basket counts once, as in
            `nextbuy.metrics.calibration`.
        came_true: Share of the purchases that the first offer named.
        calibration_error: See `Reliability.ece`.
        reliability: Said against came true, in bins.
    """

    num_answered: int
    hit_rate: Mapping[int, Estimate]
    said: Estimate
    came_true: Estimate
    calibration_error: Estimate
    reliability: Reliability

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `nan` where there is nothing."""
        return {
            "num_answered": self.num_answered,
            "hit_rate": {str(k): each.as_dict() for k, each in self.hit_rate.items()},
            "said": self.said.as_dict(),
            "came_true": self.came_true.as_dict(),
            "calibration_error": self.calibration_error.as_dict(),
            "reliability": self.reliability.as_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveQuality:
    """What was served beside what was bought; see `outcomes` for what became of an answer.

    Attributes:
        now: When it was computed, UTC microseconds.
        since: Answers from this moment on.
        window_days: How long a purchase may take.
        num_served: Answers that were looked at: those that `ServedLog` kept.
        num_left_out: Older answers of the same days that were too many.
        fates: How many were `answered`, `superseded`, `pending` and `unanswered`.
        overall: Of all versions.
        by_version: Of each.
        drift: Of purchases.
    """

    now: int
    since: int
    window_days: float
    num_served: int
    num_left_out: int
    fates: Mapping[str, int]
    overall: Quality
    by_version: Mapping[str, Quality]
    drift: Drift

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and the page."""
        return {
            "now": self.now,
            "since": self.since,
            "window_days": self.window_days,
            "num_served": self.num_served,
            "num_left_out": self.num_left_out,
            "fates": dict(self.fates),
            "overall": self.overall.as_dict(),
            "by_version": {name: each.as_dict() for name, each in self.by_version.items()},
            "drift": self.drift.as_dict(),
        }

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Name, labels and value of each number, as metrics have them; `nan` is left out."""
        for fate, count in self.fates.items():
            yield "live_answers", {"fate": fate}, float(count)
        for version, quality in self.by_version.items():
            label = {"version": version}
            found = {
                "live_said": quality.said,
                "live_came_true": quality.came_true,
                "live_calibration_error": quality.calibration_error,
            }
            for name, each in found.items():
                yield from _sample(name, label, each)
            for k, each in quality.hit_rate.items():
                yield from _sample("live_hit_rate", {**label, "k": str(k)}, each)
        for name, each in self.drift.stability.items():
            yield from _sample("live_stability_index", {"of": name}, each)
        yield from _sample("live_unknown_item_share", {}, self.drift.unknown_share)
        if self.drift.new_user_share is not None:
            yield from _sample("live_new_user_share", {}, self.drift.new_user_share)


def live_quality(
    store: Store,
    facts: Mapping[str, Any],
    catalog: Catalog,
    *,
    now: int,
    index_of: Callable[[LivePurchase], int],
    is_known_user: Callable[[str], bool] | None = None,
    config: QualityConfig | None = None,
) -> LiveQuality:
    """Join what was served with what was bought afterwards, and compare purchases with training.

    Args:
        store: Has both.
        facts: Of the bundle that answers now; `basket_kind` says what a basket is.
        catalog: Of the same bundle.
        now: UTC microseconds.
        index_of: Catalog index of a purchase, `UNKNOWN` where there is none, as `ItemLookup` has.
        is_known_user: Whether the bundle has a history of a user; None tells nothing of new users.
        config: What is looked at.

    Raises:
        StoreError: As the store does.
    """
    config = config or QualityConfig()
    since = now - round(config.days * DAY)
    newest, num_found = _newest_answers(store, since, config.most_answers)
    names = _Names(catalog, index_of)
    found = list(
        outcomes(
            store, newest, now=now, window_days=config.window_days,
            basket_kind=_basket_kind(facts), key_of=names.key_of,
        )
    )  # fmt: skip
    answered = [outcome for outcome in found if outcome.fate == "answered"]
    counts = Counter(outcome.fate for outcome in found)
    return LiveQuality(
        now=now,
        since=since,
        window_days=config.window_days,
        num_served=len(found),
        num_left_out=num_found - len(found),
        fates={fate: counts.get(fate, 0) for fate in get_args(Fate)},
        overall=quality_of(answered, num_resamples=config.num_resamples),
        by_version={
            version: quality_of(
                [outcome for outcome in answered if outcome.offer.version == version],
                num_resamples=config.num_resamples,
            )
            for version in sorted({outcome.offer.version for outcome in found})
        },
        drift=_drift(
            store, catalog, since=since, index_of=index_of, is_known_user=is_known_user,
            config=config,
        ),
    )  # fmt: skip


def quality_of(answered: Sequence[Outcome], *, num_resamples: int) -> Quality:
    """Hit rates and calibration of answers that a purchase answered.

    Args:
        answered: The answers.
        num_resamples: Of the bootstrap over answers.
    """
    num = len(answered)
    hits = np.full((num, len(CUTOFFS)), np.nan)
    confidence, right, sizes = np.zeros(num), np.zeros(num), np.zeros(num)
    for row, outcome in enumerate(answered):
        offered = outcome.offer.items
        for column, k in enumerate(CUTOFFS):
            if len(offered) >= k:
                hits[row, column] = not outcome.bought.isdisjoint(offered[:k])
        if offered:
            confidence[row] = outcome.offer.probabilities[0]
            right[row] = offered[0] in outcome.bought
            sizes[row] = len(outcome.bought)
    has_offer = sizes > 0
    table = np.column_stack([
        hits,
        np.where(has_offer, confidence, np.nan),
        np.where(has_offer, right / np.maximum(sizes, 1), np.nan),
    ])  # fmt: skip
    weighed = {len(CUTOFFS): sizes, len(CUTOFFS) + 1: sizes}
    gaps = np.zeros((num, NUM_BINS))
    gaps[np.arange(num), confidence_bins(confidence)] = right - sizes * confidence
    means = _means(np.ones((1, num)), table, weighed, gaps, sizes)[0]
    samples = np.full((1, len(means)), np.nan)
    if num:
        drawn = bootstrap.resamples(num, num_resamples, generator(0, "live quality"))
        samples = np.concatenate([_means(w, table, weighed, gaps, sizes) for w in drawn])
    found = estimates(samples, means.tolist())
    return Quality(
        num_answered=num,
        hit_rate=dict(zip(CUTOFFS, found[: len(CUTOFFS)], strict=True)),
        said=found[-3],
        came_true=found[-2],
        calibration_error=found[-1],
        reliability=reliability(confidence, right, sizes),
    )


def _means(
    weights: Float64, table: Float64, weighed: Mapping[int, Float64], gaps: Float64, sizes: Float64
) -> Float64:
    """The mean of each column, and the calibration error, under each row of weights."""
    totals = weights @ sizes
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(weights @ gaps).sum(axis=1) / totals
    means = bootstrap.weighted_means(weights, table, weighed)
    return np.column_stack([means, np.where(totals > 0, error, np.nan)])


def _newest_answers(store: Store, since: int, most: int) -> tuple[deque[ServedOffer], int]:
    """The newest answers since a moment, and how many there were."""
    newest: deque[ServedOffer] = deque(maxlen=most)
    num_found = 0
    for offer in store.served(since):
        newest.append(offer)
        num_found += 1
    return newest, num_found


class _Names:
    """Items of purchases as offers name them."""

    def __init__(self, catalog: Catalog, index_of: Callable[[LivePurchase], int]) -> None:
        ids = catalog.table[columns.ITEM].to_list()
        platforms = catalog.table[columns.PLATFORM].to_list()
        self._keys: list[Key] = list(zip(ids, platforms, strict=True))
        self._index_of = index_of

    def key_of(self, purchase: LivePurchase) -> Key:
        """The row of the catalog; what it lacks is named as it was bought, for another version may
        have offered it."""
        index = self._index_of(purchase)
        return self._keys[index - 1] if index > 0 else (purchase.item_id, purchase.platform)


def _drift(
    store: Store,
    catalog: Catalog,
    *,
    since: int,
    index_of: Callable[[LivePurchase], int],
    is_known_user: Callable[[str], bool] | None,
    config: QualityConfig,
) -> Drift:
    bought: Counter[int] = Counter()
    buyers: dict[str, bool] = {}
    newest = islice(_newest(store, config.most_purchases), config.most_purchases)
    for stored in newest:  # no more, even if the store grows meanwhile
        purchase = stored.purchase
        if purchase.timestamp < since:
            continue
        bought[index_of(purchase)] += 1
        if is_known_user is not None and purchase.user_id not in buyers:
            buyers[purchase.user_id] = is_known_user(purchase.user_id)
    num_unknown = bought.pop(UNKNOWN, 0)
    num_new = len(buyers) - sum(buyers.values())
    return drift_of(
        catalog, bought, num_unknown=num_unknown, num_resamples=config.num_resamples,
        buyers=None if is_known_user is None else (num_new, len(buyers)),
    )  # fmt: skip


def _newest(store: Store, most: int) -> Iterator[StoredPurchase]:
    """The newest purchases by sequence, a page at a time."""
    sequence = max(0, store.last_sequence() - most)
    while page := store.after(sequence, _PAGE):
        yield from page
        sequence = page[-1].sequence


def _basket_kind(facts: Mapping[str, Any]) -> BasketKind:
    kind = facts.get("basket_kind")
    return "none" if kind == "none" else "column" if kind == "column" else "timestamp"


def _sample(
    name: str, labels: dict[str, str], each: Estimate
) -> Iterator[tuple[str, dict[str, str], float]]:
    if np.isfinite(each.value):
        yield name, labels, each.value
