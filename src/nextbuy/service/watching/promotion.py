"""May a new bundle take over from the one that answers? Both are asked the same new questions.

Legend: C cases, T targets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nextbuy.evaluation.comparison import Difference, mean_differences
from nextbuy.evaluation.scoring import CaseScores, score
from nextbuy.metrics import likelihood, ranking
from nextbuy.metrics.ranking import Float64
from nextbuy.predictor import Predictor
from nextbuy.progress import Progress
from nextbuy.splitting.cases import Cases
from nextbuy.splitting.repeat import RepeatPolicy


class PromotionConfig(BaseModel):
    """What counts as not worse."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss_tolerance: float = Field(
        default=0.02, ge=0, description="nats that the loss may be higher, at worst"
    )
    ndcg_tolerance: float = Field(default=0.01, ge=0, description="that ndcg@10 may be lower")
    fewest_cases: int = Field(default=50, ge=1, description="fewer decide nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One metric of both bundles on the same cases.

    Attributes:
        champion: Of the bundle that answers.
        challenger: Of the new one.
        gain: How much better the new one is, case by case; above 0 is better, for the loss, too.
    """

    champion: float
    challenger: float
    gain: Difference

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "champion": self.champion,
            "challenger": self.challenger,
            "gain": self.gain.as_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Champion and challenger on the same cases.

    Attributes:
        num_cases: How many.
        since: First moment of the period that they are from, UTC microseconds.
        until: First moment after it.
        champion: Name of the model that answers for the champion.
        challenger: The same for the challenger.
        metrics: `loss`, `ndcg@10`, `hit_rate@10` and `accuracy`. The loss is over the purchases of
            items that both catalogs have; in the others an unknown item is a miss.
        unknown_share: Shares of the targets that each catalog lacks, champion and challenger.
    """

    num_cases: int
    since: int
    until: int
    champion: str
    challenger: str
    metrics: Mapping[str, Compared]
    unknown_share: tuple[float, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "num_cases": self.num_cases,
            "since": self.since,
            "until": self.until,
            "models": {"champion": self.champion, "challenger": self.challenger},
            "metrics": {name: each.as_dict() for name, each in self.metrics.items()},
            "unknown_share": dict(zip(("champion", "challenger"), self.unknown_share, strict=True)),
        }


def compare_bundles(
    champion: Predictor, challenger: Predictor, cases: Cases, *, seed: int, progress: Progress
) -> Comparison:
    """Ask both the same questions, each by the model that is best on its own validation.

    Args:
        champion: The bundle that answers.
        challenger: The new one.
        cases: In the catalog of the challenger; neither has learnt from the answers.
        seed: Of the bootstrap.
        progress: Told about cases.
    """
    new = _scored(challenger, cases, progress)
    old = _scored(champion, cases.in_catalog(challenger.catalog, champion.catalog), progress)
    both = ~np.isnan(new.log_probabilities) & ~np.isnan(old.log_probabilities)
    of_new, of_old = _values(new, both), _values(old, both)
    sizes = ranking.sum_per_case(both, new.target_offsets)
    table = np.stack(
        [(of_old[n] - of_new[n]) if n == "loss" else (of_new[n] - of_old[n]) for n in of_new],
        axis=1,
    )
    gains = mean_differences(table, sizes={0: sizes}, seed=seed)
    metrics = {
        name: Compared(
            champion=ranking.mean(of_old[name], sizes if name == "loss" else None),
            challenger=ranking.mean(of_new[name], sizes if name == "loss" else None),
            gain=gain,
        )
        for name, gain in zip(of_new, gains, strict=True)
    }
    since = cases.since or 0
    return Comparison(
        num_cases=len(cases),
        since=since,
        until=since if cases.until is None else cases.until,
        champion=champion.best_model,
        challenger=challenger.best_model,
        metrics=metrics,
        unknown_share=(_unknown(old), _unknown(new)),
    )


def why_not(found: Comparison, config: PromotionConfig) -> str | None:
    """Why the challenger may not take over, in one sentence; None if it may.

    It may if the low end of the 95 % interval of its gain is above minus the tolerance, for the
    loss and for ndcg@10.
    """
    if found.num_cases < config.fewest_cases:
        return too_few(found.num_cases, config)
    for name, tolerance in (("loss", config.loss_tolerance), ("ndcg@10", config.ndcg_tolerance)):
        gain = found.metrics[name].gain
        if not gain.low > -tolerance:  # nan is not
            return (
                f"its gain in {name} is {gain.difference:+.4f}, by the interval "
                f"{gain.low:+.4f} to {gain.high:+.4f}, whose low end must be above "
                f"{-tolerance:+.4f}"
            )
    return None


def too_few(num_cases: int, config: PromotionConfig) -> str:
    """Why so few cases decide nothing."""
    return (
        f"only {num_cases} customers bought after the champion's last purchase, and fewer than "
        f"{config.fewest_cases} decide nothing"
    )


def _scored(predictor: Predictor, cases: Cases, progress: Progress) -> CaseScores:
    config = predictor.config
    return score(
        predictor.models[predictor.best_model], cases, predictor.catalog,
        repeat=RepeatPolicy.parse(config.repeat).by(predictor.cadence), rules=config.rules,
        progress=progress,
    )  # fmt: skip


def _values(scores: CaseScores, both: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Float64]:
    """Metrics as a value for each case, the loss first and only over the targets of `both`."""
    known = scores.part(both)
    ranks, offsets = scores.ranks, scores.target_offsets
    return {
        "loss": likelihood.log_loss(known.log_probabilities, known.target_offsets),
        "ndcg@10": ranking.ndcg(ranks, offsets, 10),
        "hit_rate@10": ranking.hit_rate(ranks, offsets, 10),
        "accuracy": ranking.hit_rate(ranks, offsets, 1),
    }


def _unknown(scores: CaseScores) -> float:
    targets = scores.target_items
    return float((targets < 0).mean()) if len(targets) else float("nan")
