"""Values of items that are drawn towards those of their categories, and these towards one for all.

Empirical Bayes: value of an item ~ N(value of its category, a variance), value of a category ~
N(value of all, another variance). The likelihood comes as a score and an information at the present
values; steps are Newton's, and the variances take scoring steps by Fisher's identity,

    d log L / d v = (E[(value - mean)^2] - v) / (2 v^2).

Legend: V items, C categories.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from nextbuy.data.histories import Int64
from nextbuy.timing.item_gaps import Float64

_LONGEST_STEP: Final = 0.5
_LEAST_VARIANCE: Final = 1e-4


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shrunk:
    """Values at three levels.

    Attributes:
        categories: Category of each item, length V.
        items: Value of each item.
        uncertainties: Variance that is left of each item's value.
        groups: Value of each category, length C.
        overall: Value of all.
        item_variance: Of items in their category.
        group_variance: Of categories.
    """

    categories: Int64
    items: Float64
    uncertainties: Float64
    groups: Float64
    overall: float
    item_variance: float
    group_variance: float

    @classmethod
    def start(cls, categories: Int64, value: float) -> "Shrunk":
        """The same value everywhere."""
        num_groups = int(categories.max(initial=-1)) + 1
        return cls(
            categories=categories,
            items=np.full(len(categories), value),
            uncertainties=np.full(len(categories), 0.2),
            groups=np.full(num_groups, value),
            overall=value,
            item_variance=0.1,
            group_variance=0.1,
        )

    def step(self, scores: Float64, information: Float64) -> "Shrunk":
        """Nearer to the most probable values.

        Args:
            scores: Derivative of the log-likelihood by each item's value, length V.
            information: Its negative second derivative or something near it, not below 0.
        """
        seen = information > 0
        at = self.items + np.divide(scores, information, out=np.zeros_like(scores), where=seen)
        at = np.clip(at, self.items - 2.0, self.items + 2.0)
        # What the items say of their category, each with its own variance.
        weights = np.where(seen, information / (1.0 + information * self.item_variance), 0.0)
        size = len(self.groups)
        told = np.bincount(self.categories, weights, minlength=size)
        sums = np.bincount(self.categories, weights * at, minlength=size)
        above = told / (1.0 + told * self.group_variance)
        means = np.divide(sums, told, out=np.full(size, self.overall), where=told > 0)
        overall = float((above * means).sum() / max(above.sum(), 1e-300))
        groups = (sums + overall / self.group_variance) / (told + 1.0 / self.group_variance)
        mine = groups[self.categories]
        precision = information + 1.0 / self.item_variance
        step = (scores + (mine - self.items) / self.item_variance) / precision
        items = self.items + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        left = 1.0 / (told + 1.0 / self.group_variance)
        return replace(
            self, items=items, uncertainties=1.0 / precision, groups=groups, overall=overall,
            item_variance=next_variance(
                self.item_variance, (items - mine) ** 2 + 1.0 / precision, weights
            ),
            group_variance=next_variance(
                self.group_variance, (groups - overall) ** 2 + left, above
            ),
        )  # fmt: skip


def next_variance(variance: float, squares: Float64, weights: Float64) -> float:
    """A scoring step of a variance, at most by half or as much again.

    Args:
        variance: As it is.
        squares: Expected squared distance of each value from its mean.
        weights: 1 / (variance + variance of what is seen of the value); 0 where nothing is.
    """
    told = float((weights**2).sum())
    if told == 0.0:
        return variance
    step = float((squares - variance).sum()) / variance**3 / told
    return max(variance * float(np.exp(np.clip(step, -0.5, 0.5))), _LEAST_VARIANCE)
