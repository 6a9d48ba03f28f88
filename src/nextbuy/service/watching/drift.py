"""How far what is bought now is from what the bundle learnt from.

Legend: B bins, n live purchases.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.metrics import bootstrap
from nextbuy.metrics.ranking import Float64
from nextbuy.seeding import generator

NUM_BINS: Final = 20
"""The most frequent values of an attribute have a bin each; all others share one more."""

_SMOOTHING: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with the 95 % bootstrap percentile interval; `nan` without any case."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Live purchases against the training purchases of a bundle.

    Attributes:
        num_purchases: Live ones that were looked at.
        stability: Population stability index by `item`, `platform` and `category`, for those that
            the catalog tells; see `stability_index`. Unknown items are left out of it.
        by_chance: What each index would be on average for as many purchases without any drift.
        unknown_share: Share of the purchases whose item the catalog lacks.
        new_user_share: Share of the buyers that the bundle has never seen; None where its users are
            not known.
    """

    num_purchases: int
    stability: Mapping[str, Estimate]
    by_chance: Mapping[str, float]
    unknown_share: Estimate
    new_user_share: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "num_purchases": self.num_purchases,
            "stability": {name: each.as_dict() for name, each in self.stability.items()},
            "by_chance": dict(self.by_chance),
            "unknown_share": self.unknown_share.as_dict(),
            "new_user_share": self.new_user_share and self.new_user_share.as_dict(),
        }


def drift_of(
    catalog: Catalog,
    bought: Mapping[int, int],
    *,
    num_unknown: int,
    buyers: tuple[int, int] | None,
    num_resamples: int,
) -> Drift:
    """Compare counts of live purchases with those in the catalog.

    Args:
        catalog: Of the bundle, with the purchases of each item that it was built from.
        bought: Live purchases by item index 1..V.
        num_unknown: Live purchases of items that the catalog lacks.
        buyers: How many of the buyers are new to the bundle, and how many there are; or None.
        num_resamples: Of the bootstrap.
    """
    table = catalog.table
    learnt = table["num_purchases"].to_list()
    rows = [index - 1 for index in bought]
    live = list(bought.values())
    stability, by_chance = {}, {}
    for name in (columns.ITEM, columns.PLATFORM, columns.CATEGORY):
        values = range(table.height) if name == columns.ITEM else table[name].to_list()
        expected: Counter[Any] = Counter()
        for value, count in zip(values, learnt, strict=True):
            expected[value] += count
        if name != columns.ITEM and len(expected) < 2:
            continue
        actual: Counter[Any] = Counter()
        for row, count in zip(rows, live, strict=True):
            actual[values[row]] += count
        key = "item" if name == columns.ITEM else name
        old, new = binned(expected, actual)
        stability[key] = _with_interval(old, new, num_resamples, key)
        chance = (len(old) - 1) * (1 / old.sum() + 1 / new.sum()) if new.sum() else float("nan")
        by_chance[key] = float(chance)
    num_known = sum(live)
    return Drift(
        num_purchases=num_known + num_unknown,
        stability=stability,
        by_chance=by_chance,
        unknown_share=_share(num_unknown, num_known + num_unknown, num_resamples, "unknown items"),
        new_user_share=None if buyers is None else _share(*buyers, num_resamples, "new users"),
    )


def stability_index(expected: Float64, actual: Float64) -> Float64:
    """PSI = sum over bins of (a_b - e_b) ln(a_b / e_b), a and e the shares of the bins.

    Shares are (count + 1/2) / (n + B / 2), so that an empty bin has a logarithm. 0 is no drift;
    credit scoring, where the index comes from, calls .1 to .25 some and more much. By chance alone
    it is about (B - 1) (1 / n + 1 / N) for n live and N learnt purchases.

    Args:
        expected: Counts by bin, length B.
        actual: Counts by bin, shape [..., B].
    """
    e, a = _shares(expected), _shares(actual)
    found: Float64 = ((a - e) * np.log(a / e)).sum(axis=-1)
    return found


def binned(expected: Counter[Any], actual: Counter[Any]) -> tuple[Float64, Float64]:
    """Counts by bin: a bin for each of the most frequent expected values, one for the others."""
    ranked = sorted(expected, key=lambda value: (-expected[value], str(value)))
    places = {value: min(place, NUM_BINS) for place, value in enumerate(ranked)}
    size = min(len(ranked), NUM_BINS + 1)
    found = np.zeros((2, size))
    for row, counts in enumerate((expected, actual)):
        for value, count in counts.items():
            found[row, places[value]] += count
    return found[0], found[1]


def _shares(counts: Float64) -> Float64:
    smooth = counts + _SMOOTHING
    found: Float64 = smooth / smooth.sum(axis=-1, keepdims=True)
    return found


def _with_interval(old: Float64, new: Float64, num_resamples: int, name: str) -> Estimate:
    n = int(new.sum())
    if n == 0:
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    drawn = generator(0, "stability", name).multinomial(n, new / n, size=num_resamples)
    low, high = bootstrap.percentile_interval(stability_index(old, drawn.astype(np.float64)))
    return Estimate(value=float(stability_index(old, new)), low=low, high=high)


def _share(part: int, whole: int, num_resamples: int, name: str) -> Estimate:
    if whole == 0:
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    drawn = generator(0, name).binomial(whole, part / whole, size=num_resamples) / whole
    low, high = bootstrap.percentile_interval(drawn)
    return Estimate(value=part / whole, low=low, high=high)


def estimates(samples: Float64, values: Sequence[float]) -> list[Estimate]:
    """Values with the intervals of their resamples, [R, M]."""
    found = []
    for column, value in enumerate(values):
        low, high = bootstrap.percentile_interval(samples[:, column])
        found.append(Estimate(value=float(value), low=low, high=high))
    return found
