"""Answers as people read them: original ids, probabilities, and a reason beside each.

Legend: U users, k offers.
"""

from datetime import UTC, datetime
from typing import Final

import numpy as np
import polars as pl

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Float32, Histories, Int32, Int64
from nextbuy.models.protocol import FindsTopK, FittedModel, top_k
from nextbuy.splitting.repeat import RepeatPolicy, apply_repeat_policy
from nextbuy.splitting.rules import Rules

_LARGE: Final = 20_000
"""From so many items on, models that can are asked for the best ones instead of for all."""

_MOST_USERS: Final = 1_024


def best_offers(
    model: FittedModel,
    histories: Histories,
    catalog: Catalog,
    as_of: Int64 | None,
    *,
    k: int,
    policy: RepeatPolicy,
    rules: Rules | None,
) -> pl.DataFrame:
    """The k most probable items of each user that policy and rules allow; see `predictions_table`.

    Users are cut into chunks, so that no more than some rows of the catalog are held at once. Where
    a catalog is large and no rules need to see all of it, networks are asked for the best items.
    """
    followed = None if rules is None else rules.for_catalog(catalog)
    finder = model if isinstance(model, FindsTopK) and len(catalog) >= _LARGE else None
    by_rows = finder is None or followed is not None
    chunk = max(1, min(2**24 // (len(catalog) + 1), _MOST_USERS)) if by_rows else _MOST_USERS
    frames = []
    for start in range(0, len(histories), chunk):
        rows = histories.take(np.arange(start, min(start + chunk, len(histories))))
        moments = None if as_of is None else as_of[start : start + chunk]
        if finder is not None and followed is None:
            found = finder.top_k(rows, moments, k, blocked=policy.blocks(rows, moments))
        else:
            raw = model.log_probabilities(rows, moments)
            scores = apply_repeat_policy(raw, rows, moments, policy)
            scores = scores if followed is None else followed.apply(scores)
            found = top_k(scores, k)
        frames.append(predictions_table(rows, catalog, *found))
    return pl.concat(frames)


def predictions_table(
    histories: Histories, catalog: Catalog, items: Int32, log_probabilities: Float32
) -> pl.DataFrame:
    """Offers as a tidy table, one row an offer.

    Args:
        histories: Who was asked about, length U.
        catalog: What the item indices refer to.
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
        pl.Series(columns.REASON, reasons(histories, items), dtype=pl.String),
    )
    return pl.concat([table, answers], how="horizontal").filter(pl.col(columns.PROBABILITY) > 0)


def reasons(histories: Histories, items: Int32) -> list[str]:
    """Why each item of [U, k] is there, from the user's own history; length U * k."""
    words = []
    for user, row in enumerate(items):
        own = slice(histories.offsets[user], histories.offsets[user + 1])
        bought, times = histories.items[own], histories.times[own]
        for item in row:
            when = times[bought == item]
            if len(when) == 0:
                words.append("new to this user")
            elif histories.time_kind == "dates":
                day = datetime.fromtimestamp(int(when[-1]) / 1e6, tz=UTC).date()
                words.append(f"bought {len(when)}x, last on {day}")
            else:
                words.append(f"bought {len(when)}x before")
    return words
