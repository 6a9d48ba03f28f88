"""For whom a model is good, and for which items."""

from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN
from nextbuy.evaluation.scoring import CaseScores
from nextbuy.metrics import likelihood, ranking

_LENGTHS = (
    ("new (0 purchases)", 0, 0),
    ("1-4 purchases", 1, 4),
    ("5-19 purchases", 5, 19),
    ("20-99 purchases", 20, 99),
    ("100+ purchases", 100, None),
)


_AWAY = (0, 7, 30, 90)
_AGES = (0, 30, 180)
_BASKETS = (("1 item", 1, 1), ("2-4 items", 2, 4), ("5-9 items", 5, 9), ("10+ items", 10, None))
_LARGEST = 8
"""Categories and platforms that get a slice of their own."""


def slices_of(scores: CaseScores, catalog: Catalog) -> dict[str, dict[str, float]]:
    """Scores by user (new, returning, or how long away), history length, size of the next basket,
    and target: bought before or not, popularity, how long it has been sold, category and platform.

    Head, middle and tail are the items that make up the first, second and last third of all
    purchases in the catalog, most popular first. An item slice looks for its targets only, among
    the same offers.

    Returns:
        `{slice: {"n", "accuracy", "ndcg@10", "loss"}}`; slices without cases are left out.
    """
    lengths = scores.history_lengths
    users = {"users: new": lengths == 0, "users: returning": lengths > 0}
    for name, low, high in _LENGTHS:
        users[f"history: {name}"] = (lengths >= low) & (True if high is None else lengths <= high)
    users |= _ranges("last purchase", scores.days_away, _AWAY)
    sizes = np.diff(scores.target_offsets)
    for name, low, high in _BASKETS:
        users[f"basket: {name}"] = (sizes >= low) & (True if high is None else sizes <= high)
    slices = {name: _row(scores.take(np.flatnonzero(cases))) for name, cases in users.items()}
    known = scores.target_items != UNKNOWN
    slices["target: bought before"] = _row(scores.part(scores.repeats))
    slices["target: new to the user"] = _row(scores.part(known & ~scores.repeats))
    third = _thirds(catalog)[scores.target_items]  # -1, an unknown item, is the last entry
    for number, name in enumerate(("head", "middle", "tail", "unknown")):
        slices[f"items: {name}"] = _row(scores.part(third == number))
    ages = _ranges("first sold", scores.target_ages, _AGES)
    slices |= {name: _row(scores.part(targets)) for name, targets in ages.items()}
    for column in (columns.CATEGORY, columns.PLATFORM):
        for name, is_in in _largest(catalog, column).items():
            slices[f"{column}: {name}"] = _row(scores.part(is_in[scores.target_items]))
    return {name: row for name, row in slices.items() if row["n"] > 0}


def _ranges(
    group: str, days: NDArray[np.float64], bounds: tuple[int, ...]
) -> dict[str, NDArray[np.bool_]]:
    """Which values lie between two bounds, and which beyond the last; `nan` lies nowhere."""
    found = {
        f"{group}: {low}-{high} days ago": (days >= low) & (days < high)
        for low, high in pairwise(bounds)
    }
    return found | {f"{group}: {bounds[-1]}+ days ago": days >= bounds[-1]}


def _largest(catalog: Catalog, column: str) -> dict[str, NDArray[np.bool_]]:
    """Whether each item index is in one of the largest groups of a column; length V + 2.

    Nothing if the column tells no items apart, or tells every item apart.
    """
    groups = catalog.table.group_by(column).agg(pl.col("num_purchases").sum(), pl.len())
    groups = groups.drop_nulls(column).sort("num_purchases", column, descending=[True, False])
    if not 1 < groups.height < len(catalog):
        return {}
    values = catalog.table[column]
    found = {}
    for name in groups[column].head(_LARGEST):
        inside = (values == name).fill_null(False).to_numpy()
        found[str(name)] = np.concatenate([[False], inside, [False]])
    return found


def _thirds(catalog: Catalog) -> NDArray[np.int64]:
    """0 head, 1 middle, 2 tail for each item index; 3 for `UNKNOWN`, at the end. Length V + 2."""
    counts = catalog.table["num_purchases"].to_numpy().astype(np.float64)
    order = np.argsort(-counts, kind="stable")
    # An item belongs to the third in which its first purchase lies.
    before = np.cumsum(counts[order]) - counts[order]
    thirds = np.full(len(counts) + 2, 3, dtype=np.int64)
    thirds[order + 1] = np.minimum(before * 3 // max(counts.sum(), 1.0), 2).astype(np.int64)
    return thirds


def _row(scores: CaseScores) -> dict[str, float]:
    ranks, offsets = scores.ranks, scores.target_offsets
    losses = likelihood.log_loss(scores.log_probabilities, offsets)
    return {
        "n": int((np.diff(offsets) > 0).sum()),
        "accuracy": ranking.mean(ranking.hit_rate(ranks, offsets, 1)),
        "ndcg@10": ranking.mean(ranking.ndcg(ranks, offsets, 10)),
        "loss": ranking.mean(losses, likelihood.num_known(scores.log_probabilities, offsets)),
    }
