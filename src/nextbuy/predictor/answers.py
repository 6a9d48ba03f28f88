"""Answers as people read them: original ids, probabilities, and a reason beside each.

Legend: U users, k offers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Float32, Histories, Int32, Int64
from nextbuy.models.protocol import LARGE_CATALOG, FindsTopK, FittedModel, top_k
from nextbuy.splitting.repeat import RepeatPolicy, apply_repeat_policy
from nextbuy.splitting.rules import CatalogRules, Rules
from nextbuy.timing.item_cadence import ItemCadence
from nextbuy.timing.item_gaps import Float64, ItemGaps, item_gaps


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Moment:
    """When a question is asked, and what is due then.

    Attributes:
        told: UTC microseconds, one a user; None if nobody said.
        assumed: What to count days from then; None where time is only an order.
        cadence: Clocks of the items, or None.
    """

    told: Int64 | None
    assumed: Int64 | None
    cadence: ItemCadence | None

    def of(self, users: slice) -> "Moment":
        """The moment of some users."""
        return Moment(
            told=None if self.told is None else self.told[users],
            assumed=None if self.assumed is None else self.assumed[users],
            cadence=self.cadence,
        )

    @property
    def present(self) -> Int64 | None:
        """From when days are counted."""
        return self.assumed if self.told is None else self.told


_LARGE: Final = LARGE_CATALOG

_MOST_USERS: Final = 1_024


def best_offers(
    model: FittedModel,
    histories: Histories,
    catalog: Catalog,
    moment: Moment,
    *,
    k: int,
    policy: RepeatPolicy,
    rules: Rules | None,
) -> pl.DataFrame:
    """The k most probable items of each user that policy and rules allow; see `predictions_table`.

    Users are cut into chunks, so that no more than some rows of the catalog are held at once. Where
    a catalog is large and no rules need to see all of it, networks are asked for the best items.
    Without a moment models look from each user's last purchase, policy and reasons from the one
    that is assumed.
    """
    followed = None if rules is None else rules.for_catalog(catalog)
    found = found_offers(model, histories, catalog, moment, k=k, policy=policy, rules=followed)
    return pl.concat(
        [
            predictions_table(some, catalog, here, items, values)
            for some, here, items, values in found
        ]
    )


def found_offers(
    model: FittedModel,
    histories: Histories,
    catalog: Catalog,
    moment: Moment,
    *,
    k: int,
    policy: RepeatPolicy,
    rules: CatalogRules | None,
) -> Iterator[tuple[Histories, Moment, Int32, Float32]]:
    """What `best_offers` makes a table of: some users after others, the moment of their question,
    and items and log-probabilities as `predictions_table` takes them."""
    finder = finder_of(model, catalog, has_rules=rules is not None)
    chunk = users_at_once(model, catalog, has_rules=rules is not None)
    for start in range(0, len(histories), chunk):
        rows = histories
        if len(histories) > chunk:
            rows = histories.take(np.arange(start, min(start + chunk, len(histories))))
        here = moment.of(slice(start, start + chunk))
        if finder is not None:
            blocked = policy.blocks(rows, here.present)
            yield rows, here, *finder.top_k(rows, here.told, k, blocked=blocked)
        else:
            raw = model.log_probabilities(rows, here.told)
            scores = apply_repeat_policy(raw, rows, here.present, policy)
            scores = scores if rules is None else rules.apply(scores)
            yield rows, here, *top_k(scores, k)


def users_at_once(model: FittedModel, catalog: Catalog, *, has_rules: bool) -> int:
    """How many users `found_offers` asks about together."""
    by_rows = finder_of(model, catalog, has_rules=has_rules) is None
    return max(1, min(2**24 // (len(catalog) + 1), _MOST_USERS)) if by_rows else _MOST_USERS


def finder_of(model: FittedModel, catalog: Catalog, *, has_rules: bool) -> FindsTopK | None:
    """The model, where it is asked for the best items instead of for whole rows."""
    is_large = len(catalog) >= _LARGE
    return model if isinstance(model, FindsTopK) and is_large and not has_rules else None


def predictions_table(
    histories: Histories,
    catalog: Catalog,
    moment: Moment,
    items: Int32,
    log_probabilities: Float32,
) -> pl.DataFrame:
    """Offers as a tidy table, one row an offer.

    Args:
        histories: Who was asked about, length U.
        catalog: What the item indices refer to.
        moment: Of the question.
        items: Best first, shape [U, k].
        log_probabilities: Of the items, shape [U, k]; an offer without any probability is left out.

    Returns:
        Columns `user_id, rank, item_id, platform, category, probability, reason`.
    """
    num_users, k = items.shape
    table = pl.DataFrame(
        {
            columns.USER: np.repeat(histories.user_ids.to_numpy(), k),
            columns.RANK: np.tile(np.arange(1, k + 1), num_users),
        },
        schema={columns.USER: pl.String, columns.RANK: pl.Int64},
    )
    answers = catalog.ids(items.ravel()).with_columns(
        pl.Series(columns.PROBABILITY, np.exp(log_probabilities.ravel().astype(np.float64))),
        reasons(histories, items, moment).alias(columns.REASON),
    )
    return pl.concat([table, answers], how="horizontal").filter(pl.col(columns.PROBABILITY) > 0)


def reasons(histories: Histories, items: Int32, moment: Moment) -> pl.Series:
    """Why each item of [U, k] is there, from the user's own history; length U * k.

    An item that was bought on three days or more has a rhythm of its own to be told (half of the
    gaps are shorter, see `ItemCadence`); fewer purchases are counted. Days are counted to the
    moment of the question; where that is assumed, the date is told, too.
    """
    width = int(max(items.max(initial=0), histories.items.max(initial=0))) + 1
    asked = (np.arange(len(items))[:, None] * width + items).ravel()
    if moment.present is None:
        own, counts = np.unique(histories.owners * width + histories.items, return_counts=True)
        rows, index = _found(own, asked)
        table = pl.DataFrame({"times": counts[rows]})
        words = table.select(pl.format("bought {}x before", "times"))
    else:
        if moment.cadence is None:
            gaps = item_gaps(histories, moment.present)
            typical = np.full(len(gaps), np.nan)
        else:
            clocks = moment.cadence.clocks(histories, moment.present)
            gaps, typical = clocks.gaps, clocks.typical_days()
        rows, index = _found(gaps.owners * width + gaps.items, asked)
        words = _dated_words(gaps, typical, rows, with_date=moment.told is None)
    return words.to_series().gather(index).fill_null("new to this user")


def _found(own: Int64, asked: Int64) -> tuple[Int64, pl.Series]:
    """Where sorted keys have what is asked, and for each that is asked its place among these rows,
    null where they do not have it."""
    places = np.minimum(np.searchsorted(own, asked), max(len(own) - 1, 0))
    known = own[places] == asked if len(own) else np.zeros(len(asked), dtype=np.bool_)
    order = pl.Series(np.cumsum(known) - 1)
    return places[known], order.set(pl.Series(~known), None)


def _dated_words(
    gaps: ItemGaps, typical_days: Float64, rows: Int64, *, with_date: bool
) -> pl.DataFrame:
    """`about every 28 days, last 30 days ago`, or `bought 2x, last 30 days ago`; one a row."""
    has_rhythm = (gaps.counts[rows] > 1) & ~np.isnan(typical_days[rows])
    table = pl.DataFrame(
        {
            "times": gaps.purchases[rows],
            "every": np.maximum(np.where(has_rhythm, typical_days[rows], 0.0).round(), 1.0),
            "has_rhythm": has_rhythm,
            "since": gaps.days_since[rows],
            "day": gaps.last[rows],
        }
    ).with_columns(
        pl.col("every").cast(pl.Int64), pl.from_epoch("day", "us").dt.to_string("%Y-%m-%d")
    )
    days, since = pl.col("every"), pl.col("since")
    how = (
        pl.when(~pl.col("has_rhythm"))
        .then(pl.format("bought {}x", "times"))
        .when(days == 1)
        .then(pl.lit("about every day"))
        .otherwise(pl.format("about every {} days", days))
    )
    ago = (
        pl.when(since == 0)
        .then(pl.lit("today"))
        .when(since == 1)
        .then(pl.lit("1 day ago"))
        .otherwise(pl.format("{} days ago", since))
    )
    date = pl.format(" ({})", "day") if with_date else pl.lit("")
    return table.select(pl.format("{}, last {}{}", how, ago, date))
