"""What a question finds in the user's own history: each item bought before, and how.

Everything about a purchase that does not depend on the question is computed once for all purchases
(`purchase_facts`): how often its item was bought up to then, the same with older baskets or days
counting less, the mean time between, and where the item is bought next. An item is in the history
of a question if its newest purchase before the question is the last one before it, so that all own
items of many questions at many moments are found by array arithmetic.

Legend: N purchases, M questions, P pairs of a question and an own item, F features, S summaries.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import DAY, Float32, Histories, Int32, Int64, jagged_rows

DECAYS: Final = (1.0, 0.99, 0.95, 0.8, 0.5)
"""Weights of a purchase one basket further back; each gives a decayed count."""

HALF_LIVES: Final = (14.0, 60.0)
"""Days in which a purchase loses half of its weight; each gives a decayed count."""

FEATURES: Final = (
    *(f"log count, decayed by {decay} a basket" for decay in DECAYS),
    "log count", "log baskets ago", "in the last basket",
    *(f"log count, half-life {days:.0f} days" for days in HALF_LIVES),
    "log days ago", "log days ago over mean days between", "has a mean",
)  # fmt: skip
"""Features of an own item; the last five are 0 where time is only an order."""

SUMMARIES: Final = (
    "log purchases", "log own items", "log baskets", "own items a purchase", "log days away",
)  # fmt: skip
"""Features of a question; the last is 0 where time is only an order."""

FIRST_WEIGHTS: Final = tuple(float(decay == 0.95) for decay in DECAYS) + (0.0,) * 8
"""Weights of the features under which an item's score is its decayed frequency."""

NUM_DAYS: Final = 4
"""Newest purchases of an own item whose ages are told one by one."""

_LOWEST: Final = -12.0
_MOST_SEEN: Final = 10_000
_NOWHERE: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PurchaseFacts:
    """About each purchase and the earlier ones of the same item by the same user; length N.

    Attributes:
        groups: Group of its item.
        previous_rows: Row of the purchase of the item by the user before; -1 if none.
        next_rows: Row of the next purchase of the item by the user; the largest integer if none.
        counts: Purchases of the item up to this one.
        by_baskets: The same, older baskets counting less, [N, len(DECAYS)].
        by_days: The same, older days counting less, [N, len(HALF_LIVES)].
        mean_days: Between two purchases of the item so far; `nan` for the first, and where time is
            only an order.
    """

    groups: Int64
    previous_rows: Int64
    next_rows: Int64
    counts: Float32
    by_baskets: Float32
    by_days: Float32
    mean_days: Float32


def purchase_facts(histories: Histories, groups: Int64 | None = None) -> PurchaseFacts:
    """Facts about every purchase of these histories.

    Args:
        histories: Of all users.
        groups: Group of each item, length V + 1; None puts all into one.
    """
    num_rows = len(histories.items)
    width = int(histories.items.max(initial=0)) + 1
    order = np.argsort(histories.owners * width + histories.items, kind="stable")
    keys = (histories.owners * width + histories.items)[order]
    is_first = np.ones(num_rows, dtype=np.bool_)
    is_first[1:] = keys[1:] != keys[:-1]
    previous = np.full(num_rows, -1)
    previous[order[1:]] = np.where(is_first[1:], -1, order[:-1])
    next_rows = np.full(num_rows, _NOWHERE)
    next_rows[previous[previous >= 0]] = np.flatnonzero(previous >= 0)
    starts = np.flatnonzero(is_first)
    place = np.arange(num_rows) - np.repeat(starts, np.diff(np.append(starts, num_rows)))
    nth = np.empty(num_rows, dtype=np.int64)
    nth[order] = place
    first = np.empty(num_rows, dtype=np.int64)
    first[order] = np.repeat(order[starts], np.diff(np.append(starts, num_rows)))
    dated = histories.time_kind == "dates"
    days = histories.times / DAY if dated else np.zeros(num_rows)
    by_baskets = np.ones((num_rows, len(DECAYS)), dtype=np.float32)
    by_days = np.ones((num_rows, len(HALF_LIVES)), dtype=np.float32)
    decays, rates = np.log(DECAYS), -np.log(2) / np.array(HALF_LIVES)
    by_nth = np.argsort(nth, kind="stable")
    ends = np.searchsorted(nth[by_nth], np.arange(int(nth.max(initial=-1)) + 2))
    for here, end in pairwise(ends[1:]):  # all second purchases, all third ...
        rows = by_nth[here:end]
        before = previous[rows]
        baskets = (histories.baskets[rows] - histories.baskets[before])[:, None]
        by_baskets[rows] += np.exp(baskets * decays) * by_baskets[before]
        by_days[rows] += np.exp((days[rows] - days[before])[:, None] * rates) * by_days[before]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_days = np.where(nth > 0, (days - days[first]) / nth, np.nan)
    return PurchaseFacts(
        groups=np.zeros(num_rows, np.int64) if groups is None else groups[histories.items],
        previous_rows=previous,
        next_rows=next_rows,
        counts=(nth + 1).astype(np.float32),
        by_baskets=by_baskets,
        by_days=by_days,
        mean_days=mean_days.astype(np.float32) if dated else np.full(num_rows, np.nan, np.float32),
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class OwnItems:
    """The own items of some questions.

    Attributes:
        owners: Question of each pair, ascending; [P].
        items: Item index of each pair, 1..V; [P].
        groups: Group of the item of each pair, [P].
        features: As `FEATURES` says, [P, F].
        days: Ages in days of the newest `NUM_DAYS` purchases of the item, the newest first,
            [P, NUM_DAYS]; infinite where there were not so many, and where time is only an order.
        summaries: As `SUMMARIES` says, [M, S].
    """

    owners: Int64
    items: Int32
    groups: Int64
    features: Float32
    days: Float32
    summaries: Float32

    def take(self, questions: Int64) -> "OwnItems":
        """Those of some questions, in the order given."""
        ends = np.searchsorted(self.owners, np.arange(len(self.summaries) + 1))
        lengths = np.diff(ends)[questions]
        rows = jagged_rows(ends[questions], lengths)
        return OwnItems(
            owners=np.repeat(np.arange(len(questions), dtype=np.int64), lengths),
            items=self.items[rows],
            groups=self.groups[rows],
            features=self.features[rows],
            days=self.days[rows],
            summaries=self.summaries[questions],
        )

    def places_of(self, owners: Int64, items: NDArray[np.integer]) -> Int64:
        """The pair of each question and item that are asked for, -1 where it is none."""
        if len(self.items) == 0:
            return np.full(len(items), -1)
        width = int(max(self.items.max(), items.max(initial=0))) + 1
        keys = self.owners * width + self.items
        order = np.argsort(keys, kind="stable")
        asked = owners * width + items
        found = np.minimum(np.searchsorted(keys[order], asked), len(keys) - 1)
        return np.where(keys[order][found] == asked, order[found], -1)


def own_items(
    histories: Histories,
    facts: PurchaseFacts,
    *,
    starts: Int64,
    ends: Int64,
    baskets: Int64,
    moments: Int64 | None,
) -> OwnItems:
    """The own items of questions, among the newest 10,000 purchases of each.

    Args:
        histories: Of all users.
        facts: About their purchases.
        starts: First row of each question's user, [M].
        ends: The row after the last that each question sees, [M].
        baskets: Number of the basket that each question asks for, [M].
        moments: When each is asked, UTC microseconds, [M]; None where time is only an order.
    """
    lengths = ends - starts
    seen = np.minimum(lengths, _MOST_SEEN)
    rows = jagged_rows(ends - seen, seen)
    owners = np.repeat(np.arange(len(starts), dtype=np.int64), seen)
    newest = facts.next_rows[rows] >= ends[owners]
    rows, owners = rows[newest], owners[newest]
    ago = np.maximum(baskets[owners] - histories.baskets[rows], 1).astype(np.float32)
    features = np.zeros((len(rows), len(FEATURES)), dtype=np.float32)
    num_decays, num_lives = len(DECAYS), len(HALF_LIVES)
    decayed = np.log(facts.by_baskets[rows]) + (ago[:, None] - 1) * np.log(DECAYS)
    features[:, :num_decays] = np.maximum(decayed, _LOWEST)
    rest = features[:, num_decays:]
    rest[:, 0], rest[:, 1], rest[:, 2] = np.log(facts.counts[rows]), np.log(ago), ago == 1
    summaries = np.zeros((len(starts), len(SUMMARIES)), dtype=np.float32)
    distinct = np.bincount(owners, minlength=len(starts))
    summaries[:, 0], summaries[:, 1] = np.log1p(lengths), np.log1p(distinct)
    summaries[:, 2] = np.log1p(baskets)
    summaries[:, 3] = distinct / np.maximum(lengths, 1)
    ages = np.full((len(rows), NUM_DAYS), np.inf, dtype=np.float32)
    if moments is not None and histories.time_kind == "dates":
        ages = _ages(histories, facts, rows, moments[owners])
        days = ages[:, 0]
        lived = np.log(facts.by_days[rows]) - days[:, None] * np.log(2) / np.array(HALF_LIVES)
        rest[:, 3 : 3 + num_lives] = np.maximum(lived, _LOWEST)
        timed = rest[:, 3 + num_lives :]
        timed[:, 0] = np.log1p(days)
        between = facts.mean_days[rows]
        has_mean = between > 0  # nan is not
        over = np.log((days + 0.5) / (np.where(has_mean, between, 1.0) + 0.5))
        timed[:, 1], timed[:, 2] = np.where(has_mean, np.clip(over, -4, 4), 0.0), has_mean
        away = np.full(len(starts), np.inf)
        np.minimum.at(away, owners, days)
        summaries[:, 4] = np.log1p(np.where(np.isfinite(away), away, 0.0))
    return OwnItems(
        owners=owners,
        items=histories.items[rows],
        groups=facts.groups[rows],
        features=features,
        days=ages,
        summaries=summaries,
    )


def _ages(histories: Histories, facts: PurchaseFacts, rows: Int64, moments: Int64) -> Float32:
    """See `OwnItems.days`; `rows` are the newest purchases."""
    ages = np.full((len(rows), NUM_DAYS), np.inf, dtype=np.float32)
    places = np.arange(len(rows))
    for back in range(NUM_DAYS):
        days = (moments[places] - histories.times[rows]) / DAY
        ages[places, back] = np.maximum(days, 0.0)
        rows = facts.previous_rows[rows]
        places, rows = places[rows >= 0], rows[rows >= 0]
    return ages
