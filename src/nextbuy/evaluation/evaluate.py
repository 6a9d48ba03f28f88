"""Every metric of a model under a protocol, with intervals.

Legend: C cases, T targets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN, Int32
from nextbuy.evaluation.scoring import CaseScores, score
from nextbuy.evaluation.slices import slices_of
from nextbuy.metrics import bootstrap, calibration, classification, likelihood, ranking
from nextbuy.metrics.calibration import Reliability
from nextbuy.metrics.ranking import Float64
from nextbuy.models.protocol import FittedModel
from nextbuy.progress import Progress
from nextbuy.seeding import generator
from nextbuy.splitting.cases import Cases, Split
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.splitting.rules import Rules

CUTOFFS: Final = (1, 5, 10, 20)
"""Lengths k of the lists that are looked at."""

COMPARED: Final = ("loss", "accuracy", "recall@10", "ndcg@10")
"""Metrics by which two models are compared case by case."""

Value = TypeVar("Value")
Metrics = dict[str, float]
Intervals = dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evaluation:
    """How good a model is, and how that was found out.

    Attributes:
        metrics: Every metric by its key; `nan` where there was nothing to find.
        intervals: 95 % bootstrap percentile interval of those that have one.
        protocol: Split, target, candidates and definitions, to be shown beside the scores.
        slices: For parts of the cases: `n`, `accuracy`, `ndcg@10`, `loss`.
        values: Of each case, for the metrics of `COMPARED`; length C each.
        sizes: How many purchases the value of each case stands for, for those of `COMPARED` that
            are means over purchases; length C each.
        gains: Share of the targets among the first k offers, by k; see `ranking.gains`.
        reliability: Confidence of the first offer against the share of purchases that it named.
        first_offers: Item index of each case's best offer; `PADDING` where nothing may be offered.
        confidence: Its probability, length C.
    """

    metrics: Metrics
    intervals: Intervals
    protocol: dict[str, object]
    slices: dict[str, Metrics]
    values: dict[str, Float64]
    sizes: dict[str, Float64]
    gains: dict[int, float]
    reliability: Reliability
    first_offers: Int32
    confidence: Float64


def evaluate(
    model: FittedModel,
    cases: Cases,
    catalog: Catalog,
    *,
    repeat: RepeatPolicy = RepeatPolicy.ALLOW,
    rules: Rules | None = None,
    seed: int = 0,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
    protocol: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on cases; see `summarize` for what is reported.

    Args:
        model: Fitted on the same catalog.
        cases: Questions with answers.
        catalog: The candidates: all of it, never a sample.
        repeat: What may be offered.
        rules: Of the shop, as they will be followed in prediction.
        seed: Of the bootstrap, its only randomness.
        num_resamples: Of the bootstrap; 0 gives no intervals.
        protocol: More to say about how the scores were obtained, such as `protocol_of(split)`.
        progress: Told about cases.

    Raises:
        TrainingError: If the model answers with `nan` or with another shape.
    """
    scores = score(
        model, cases, catalog, repeat=repeat, rules=rules, k=max(CUTOFFS), progress=progress
    )
    if rules is not None:
        protocol = {**(protocol or {}), "rules": rules.model_dump(exclude_defaults=True)}
    return summarize(
        scores, catalog, repeat=repeat, seed=seed, num_resamples=num_resamples, protocol=protocol
    )


def summarize(
    scores: CaseScores,
    catalog: Catalog,
    *,
    repeat: RepeatPolicy = RepeatPolicy.ALLOW,
    seed: int = 0,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
    protocol: Mapping[str, object] | None = None,
) -> Evaluation:
    """All metrics of scored cases.

    The parts `repeat/` and `explore/` look for the targets that are, or are not, in the visible
    history, among the same offers; cases without such a target are left out of the part.
    """
    found = _Found(scores)
    values = found.values
    metrics: Metrics = {
        name: ranking.mean(column, found.sizes.get(name)) for name, column in values.items()
    }
    once = np.ones((1, len(scores)))
    metrics |= {name: float(column[0]) for name, column in found.ratios(once).items()}
    metrics["coverage@10"] = ranking.coverage(scores.top_items[:, :10], scores.num_items)
    metrics["ece_by_chance"] = calibration.ece_by_chance(found.confidence, found.num_purchases)
    metrics["num_cases"] = len(scores)
    targets = scores.target_items
    metrics["unknown_target_share"] = (
        float((targets == UNKNOWN).mean()) if len(targets) else float("nan")
    )
    for part in ("repeat", "explore"):
        metrics[f"{part}/num_cases"] = int(np.sum(~np.isnan(values[f"{part}/accuracy"])))
    intervals = _intervals(found, seed, num_resamples) if num_resamples and len(scores) else {}
    words: dict[str, object] = {
        "target": "the first basket after the moment of asking; its distinct items",
        "candidates": f"the whole catalog, {scores.num_items} items, none sampled",
        "ties": "broken by item index",
        "repeat": str(repeat),
        "loss": "mean over purchases of -log p, in nats",
        "ece": "probability of the first offer against the share of the purchases that it named",
        "ece_by_chance": "the ece to be expected if every probability were right",
        "unknown_targets": "a miss in every ranking metric, left out of the loss",
        "intervals": f"95 % bootstrap percentiles over cases, {num_resamples} resamples, "
        f"seed {seed}",
        "excluded_target_share": ranking.mean(scores.excluded.astype(np.float64)),
    }
    return Evaluation(
        metrics=_in_order(metrics),
        intervals=_in_order(intervals),
        protocol={**(protocol or {}), **words},
        slices=slices_of(scores, catalog),
        values={name: values[name] for name in COMPARED},
        sizes={name: found.sizes[name] for name in COMPARED if name in found.sizes},
        gains=ranking.gains(scores.ranks, scores.num_items),
        reliability=calibration.reliability(
            found.confidence, found.outcomes.hits, found.num_purchases
        ),
        first_offers=found.first_offers,
        confidence=found.confidence,
    )


def protocol_of(split: Split, part: Literal["validation", "test"] = "test") -> dict[str, object]:
    """The words of a split for the protocol."""
    words: dict[str, object] = {
        "split": split.name,
        "part": part,
        "description": split.description,
    }
    return words if split.warning is None else {**words, "warning": split.warning}


def case_values(scores: CaseScores) -> dict[str, Float64]:
    """Metrics as a value for each case, length C; `nan` leaves a case out.

    All are means over cases, but the loss: a mean over purchases, see `case_sizes`.
    """
    ranks, offsets = scores.ranks, scores.target_offsets
    values = {
        "loss": likelihood.log_loss(scores.log_probabilities, offsets),
        "accuracy": ranking.hit_rate(ranks, offsets, 1),
    }
    for k in CUTOFFS:
        values[f"hit_rate@{k}"] = ranking.hit_rate(ranks, offsets, k)
        values[f"recall@{k}"] = ranking.recall(ranks, offsets, k)
        values[f"ndcg@{k}"] = ranking.ndcg(ranks, offsets, k)
        values[f"mrr@{k}"] = ranking.reciprocal_rank(ranks, offsets, k)
    if scores.target_values is not None:
        values["revenue@10"] = ranking.revenue(scores.target_values, ranks, offsets, 10)
    return values


def case_sizes(scores: CaseScores) -> dict[str, Float64]:
    """How many purchases each case counts for, in the metrics that are means over purchases."""
    return {"loss": likelihood.num_known(scores.log_probabilities, scores.target_offsets)}


class _Found:
    """What the metrics and their resamples are computed from, prepared once."""

    def __init__(self, scores: CaseScores) -> None:
        self.values, self.sizes = case_values(scores), case_sizes(scores)
        for part, targets in (("repeat", scores.repeats), ("explore", ~scores.repeats)):
            mine = scores.part(targets)
            self.values |= {f"{part}/{name}": v for name, v in case_values(mine).items()}
            self.sizes |= {f"{part}/{name}": n for name, n in case_sizes(mine).items()}
        nothing = len(scores) == 0 or scores.num_items == 0
        self.first_offers: Int32 = (
            np.zeros(len(scores), np.int32) if nothing else scores.top_items[:, 0]
        )
        self.confidence: Float64 = (
            np.zeros(len(scores))
            if nothing
            else np.exp(scores.top_log_probabilities[:, 0].astype(np.float64))
        )
        self.outcomes = classification.outcomes(
            self.first_offers, scores.target_items, scores.target_offsets
        )
        self._thresholded = np.stack(
            classification.thresholded(self.outcomes, self.confidence), axis=1
        )
        self.num_purchases = np.diff(scores.target_offsets).astype(np.float64)
        # ECE = sum over bins of |right - n * confidence| / n: linear inside each bin.
        bins = calibration.confidence_bins(self.confidence)
        self._gaps = np.zeros((len(scores), calibration.NUM_BINS))
        self._gaps[np.arange(len(scores)), bins] = (
            self.outcomes.hits - self.num_purchases * self.confidence
        )

    def ratios(self, weights: Float64) -> dict[str, Float64]:
        """The metrics that are no means over cases, under each row of case weights [b, C]."""
        counts = [classification.confusion(self.outcomes, row) for row in weights]
        hits, offered, targets = (weights @ self._thresholded).T
        return {
            "precision": np.array([classification.macro_precision(c) for c in counts]),
            "recall": np.array([classification.macro_recall(c) for c in counts]),
            "precision_weighted": np.array([classification.weighted_precision(c) for c in counts]),
            "recall_weighted": np.array([classification.weighted_recall(c) for c in counts]),
            "precision_thresholded": classification.ratios(hits, offered),
            "recall_thresholded": classification.ratios(hits, targets),
            "ece": classification.ratios(
                np.abs(weights @ self._gaps).sum(axis=1), weights @ self.num_purchases
            ),
        }


def _intervals(found: _Found, seed: int, num_resamples: int) -> Intervals:
    names, table = list(found.values), np.stack(list(found.values.values()), axis=1)
    sizes = {names.index(name): size for name, size in found.sizes.items()}
    samples: dict[str, list[NDArray[np.float64]]] = {}
    rng = generator(seed, "bootstrap")
    for weights in bootstrap.resamples(len(table), num_resamples, rng):
        means = bootstrap.weighted_means(weights, table, sizes)
        for name, column in [*zip(names, means.T, strict=True), *found.ratios(weights).items()]:
            samples.setdefault(name, []).append(column)
    return {n: bootstrap.percentile_interval(np.concatenate(parts)) for n, parts in samples.items()}


def _in_order(metrics: dict[str, Value]) -> dict[str, Value]:
    """The whole before its parts."""
    return dict(sorted(metrics.items(), key=lambda item: "/" in item[0]))
