"""What a chance is worth: three views of it, weighed on what came.

The views are P(buy) as `chances` has it, the share of a user's own past windows with a purchase,
and that share over all users (`own_shares`). Weighed are log hazards, x(p) = log(-log(1 - p)):

    log(-log(1 - P)) = a + a' t + (b + b' t) x(formula) + (c + c' t) x(own) + d x(all)

with t = log(days / 14), since the next purchase tells less of a longer time, and a half-life of the
shares. The weights are those of highest likelihood on the validation period, over many users,
targets and horizons at once, with a normal prior of spread .2 around the formula alone (b = 1, else
0), which is also the answer where nothing could be learnt. Horizons that are shorter or longer than
those that were learnt at take the weights of the nearest.

Legend: C cases: pairs of a user and a target, and a horizon.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import optimize

from nextbuy.timing.events import Float64
from nextbuy.timing.stored import Stored

HALF_LIVES: Final = (30.0, 60.0, 120.0, 365.0)
"""Days; the likeliest is chosen."""

_FORMULA_ALONE: Final = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
_USUAL_DAYS: Final = 14.0
_SPREAD: Final = 0.2
_LEAST: Final = 1e-9
_HIGHEST: Final = 4.0
"""Of log hazards: beyond it the chance to buy is 1 to the last digit."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Views:
    """What is known of C cases before they happen; probabilities, and days."""

    formula: Float64
    own: Float64
    population: Float64
    days: Float64

    def features(self, horizons: tuple[int, ...]) -> Float64:
        """What the weights of a, b, c, d, a', b' and c' stand beside, shape [C, 7].

        Args:
            horizons: Days that the weights are learnt at.
        """
        days = np.clip(self.days, min(horizons), max(horizons)) if horizons else self.days
        formula, own, time = log_hazard(self.formula), log_hazard(self.own), np.log(days)
        time -= np.log(_USUAL_DAYS)
        once = np.ones(len(formula))
        everybody = log_hazard(self.population)
        return np.stack([once, formula, own, everybody, time, time * formula, time * own], axis=1)


class Calibration(Stored):
    """Weights of the module.

    Attributes:
        half_life: Of the shares, days.
        weights: a, b, c, d, a', b' and c'.
        horizons: Days that it was learnt at; none where nothing could be learnt.
        num_cases: That it was learnt from.
    """

    half_life: float = Field(default=HALF_LIVES[1], gt=0)
    weights: tuple[float, float, float, float, float, float, float] = (0, 1, 0, 0, 0, 0, 0)
    horizons: tuple[int, ...] = ()
    num_cases: int = Field(default=0, ge=0)

    @classmethod
    def learnt(
        cls,
        views: Mapping[float, Views],
        bought: NDArray[np.bool_],
        horizons: tuple[int, ...],
    ) -> Self:
        """Weights of highest posterior, with the likeliest half-life.

        Args:
            views: Of the same cases, by half-life.
            bought: What came, length C.
            horizons: Days that the cases are about.
        """
        found = {
            half_life: _fitted(seen.features(horizons), bought) for half_life, seen in views.items()
        }
        half_life = min(found, key=lambda each: found[each][0])
        a, b, c, d, a_time, b_time, c_time = (float(weight) for weight in found[half_life][1])
        return cls(
            half_life=half_life, weights=(a, b, c, d, a_time, b_time, c_time),
            horizons=horizons, num_cases=len(bought),
        )  # fmt: skip

    def probabilities(self, views: Views) -> Float64:
        """P(buy), length C; `nan` where the formula is, and 0 where it is 0."""
        raised = np.minimum(views.features(self.horizons) @ np.array(self.weights), _HIGHEST)
        return np.where(views.formula == 0, 0.0, -np.expm1(-np.exp(raised)))


def log_hazard(p: Float64) -> Float64:
    """log(-log(1 - p)), of probabilities kept off 0 and 1 by 1e-9."""
    return np.log(-np.log1p(-np.clip(p, _LEAST, 1.0 - _LEAST)))


def _fitted(features: Float64, bought: NDArray[np.bool_]) -> tuple[float, Float64]:
    """The least negative log posterior, and its weights."""

    def descend(weights: Float64) -> tuple[float, Float64]:
        hazard = np.exp(np.clip(features @ weights, -30.0, _HIGHEST))
        log_p = np.where(bought, np.log(-np.expm1(-hazard)), -hazard)
        slope = np.where(bought, hazard / np.expm1(hazard), -hazard)
        away = (weights - _FORMULA_ALONE) / _SPREAD
        value = -log_p.sum() + 0.5 * away @ away
        return float(value) / len(bought), (away / _SPREAD - features.T @ slope) / len(bought)

    done = optimize.minimize(descend, _FORMULA_ALONE, jac=True, method="BFGS")
    return float(done.fun), np.asarray(done.x)
