"""Which of two models is better, on the same cases.

The intervals of two scores may overlap widely although one model is better in nearly every case:
hard cases are hard for both. So the differences are drawn again and again, case by case.
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

Legend: C cases, M columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nextbuy.errors import ConfigError
from nextbuy.evaluation.evaluate import Evaluation
from nextbuy.metrics import bootstrap
from nextbuy.metrics.ranking import Float64
from nextbuy.seeding import generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One model's score minus the other's: the mean over cases, of losses over purchases.

    Attributes:
        difference: The mean; `nan` without cases.
        low: Low end of its 95 % bootstrap percentile interval.
        high: High end.
    """

    difference: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return asdict(self)


def compare(
    one: Evaluation,
    other: Evaluation,
    *,
    seed: int = 0,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
) -> dict[str, Difference]:
    """One minus the other, for each metric of `Evaluation.values`.

    A case that has no value for either (all of its targets unknown) is left out.

    Raises:
        ConfigError: If they are not about equally many cases; they must be about the same ones.
    """
    lengths = {len(column) for found in (one, other) for column in found.values.values()}
    if len(lengths) > 1:
        raise ConfigError(
            f"Only scores on the same cases can be compared; there are {sorted(lengths)} cases."
        )
    names = list(one.values)
    table = np.stack([one.values[name] - other.values[name] for name in names], axis=1)
    sizes = {names.index(name): size for name, size in one.sizes.items() if name in names}
    if len(table) == 0:
        nothing = Difference(difference=float("nan"), low=float("nan"), high=float("nan"))
        return dict.fromkeys(names, nothing)
    found = mean_differences(table, sizes=sizes, seed=seed, num_resamples=num_resamples)
    return dict(zip(names, found, strict=True))


def mean_differences(
    table_CM: Float64,
    *,
    sizes: Mapping[int, Float64] | None = None,
    seed: int = 0,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
) -> list[Difference]:
    """The mean of each of M columns of differences, with the interval that a bootstrap gives.

    Args:
        table_CM: One score minus another, case by case; at least one case.
        sizes: See `bootstrap.weighted_means`.
        seed: Of the resamples.
        num_resamples: How many.
    """
    rng = generator(seed, "comparison")
    drawn = [
        bootstrap.weighted_means(weights, table_CM, sizes)
        for weights in bootstrap.resamples(len(table_CM), num_resamples, rng)
    ]
    samples = np.concatenate(drawn)
    means = bootstrap.weighted_means(np.ones((1, len(table_CM))), table_CM, sizes)[0]
    found = []
    for place, mean in enumerate(means):
        low, high = bootstrap.percentile_interval(samples[:, place])
        found.append(Difference(difference=float(mean), low=low, high=high))
    return found


def told_apart(rows: Sequence[Mapping[str, Any]], metric: str = "ndcg@10") -> str:
    """`By ndcg@10 blend is above markov and not told apart from tifu-knn`; empty for one model.

    Args:
        rows: Of a leaderboard, as JSON.
        metric: Of `COMPARED`, higher is better.
    """
    words: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
    best = [row["model"] for row in rows if not row.get("minus_best")]
    for row in rows:
        found = (row.get("minus_best") or {}).get(metric)
        if found and None not in found.values():
            clear = found["low"] > 0 or found["high"] < 0
            how = "not told apart from" if not clear else "above" if found["high"] < 0 else "below"
            words[how].append(row["model"])
    parts = [f"{how} {', '.join(names)}" for how, names in words.items() if names]
    if not parts or len(best) != 1:
        return ""
    return f"By {metric}, case by case, {best[0]} is {' and '.join(parts)} (95 % intervals)."
