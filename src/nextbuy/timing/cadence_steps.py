"""Steps that fit cadences of items to gaps, complete and open ones; see `item_cadence`.

Own means are integrated out. Of an open gap it matters how likely it will end at all (`returns`),
and where it then lies: a normal distribution cut off below at what has elapsed.

Legend: V items, P pairs of a user and an own item.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.special import digamma, expit, gammaln, log_ndtr

from nextbuy.timing.item_gaps import Float64, ItemGaps
from nextbuy.timing.shrinkage import Shrunk, next_variance

_NEARBY: Final = np.exp(np.linspace(-0.5, 0.5, 3))
_MOST_REGULAR: Final = 0.01
"""Gaps are held to scatter by a tenth at least: else who is a day late would seem to be gone."""

_MOST_ALIKE: Final = 1e4
"""Concentration beyond which users are the same; sums of gamma functions lose digits there."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Cadences:
    """What is known at some step.

    Attributes:
        means: Of log gaps, by item.
        stops: Log-odds of being through with an item after the first purchase.
        gap_variance: Of the log gaps of one user and item.
        pair_variance: Of users around an item; 0 gives all users the item's own mean.
        concentration: Of the shares; infinite gives all users the item's own.
    """

    means: Shrunk
    stops: Shrunk
    gap_variance: float
    pair_variance: float
    concentration: float

    def distance(self, other: "Cadences") -> float:
        """The largest change of what all items share."""
        pairs = [
            (self.means.overall, other.means.overall),
            (self.stops.overall, other.stops.overall),
            *(
                (np.log(max(a, 1e-9)), np.log(max(b, 1e-9)))
                for a, b in (
                    (self.gap_variance, other.gap_variance),
                    (self.pair_variance, other.pair_variance),
                    (self.means.item_variance, other.means.item_variance),
                    (self.stops.item_variance, other.stops.item_variance),
                )
            ),
        ]
        return max(abs(float(a) - float(b)) for a, b in pairs)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Seen:
    """Of each pair, length P: what complete gaps say of its own mean, and of the open one.

    Attributes:
        weights: Of the item's mean in the own mean.
        residuals: Sum of the log gaps less the item's mean.
        shifts: Own mean less the item's.
        left: Variance that is left of the own mean.
        next_variance: Of the next log gap.
        places: Of what has elapsed, in standard deviations of the next gap.
        hazards: Density over survival of a standard normal at `places`.
        survivals: Share of gaps that are longer.
        stops: Share of users who are through after so many gaps.
        returns: P(the open gap ends).
    """

    weights: Float64
    residuals: Float64
    shifts: Float64
    left: Float64
    next_variance: Float64
    places: Float64
    hazards: Float64
    survivals: Float64
    stops: Float64
    returns: Float64


def next_cadences(now: Cadences, gaps: ItemGaps) -> Cadences:
    """One step of everything: how long gaps are, then, seen anew, how many will end. Both at once
    swing for ever, since a long gap and one that never ends look alike."""
    seen = _seen(now, gaps)
    gap_variance, pair_variance = _variances(now, gaps, seen)
    now = replace(
        now,
        means=now.means.step(*_score_of_means(now, gaps, seen)),
        gap_variance=gap_variance,
        pair_variance=pair_variance,
    )
    seen = _seen(now, gaps)
    return replace(
        now,
        stops=now.stops.step(*_score_of_stops(now, gaps, seen)),
        concentration=_concentration(now, gaps, seen),
    )


def _seen(now: Cadences, gaps: ItemGaps) -> _Seen:
    mu_P, n_P = now.means.items[gaps.items], gaps.counts.astype(np.float64)
    weights = now.gap_variance / (now.gap_variance + n_P * now.pair_variance)
    residuals = gaps.log_sums - n_P * mu_P
    left = now.pair_variance * weights
    shifts = left * residuals / now.gap_variance
    variance = now.gap_variance + left
    sd = np.sqrt(variance)
    places = (np.log(gaps.elapsed) - mu_P - shifts) / sd
    log_survival = log_ndtr(-places)
    hazards = np.exp(-0.5 * places**2 - 0.5 * np.log(2 * np.pi) - log_survival)
    survivals = np.exp(log_survival)
    stops = expit(now.stops.items)[gaps.items] / (1.0 + n_P / now.concentration)
    open_P = (1.0 - stops) * survivals
    return _Seen(
        weights=weights, residuals=residuals, shifts=shifts, left=left, next_variance=variance,
        places=places, hazards=hazards, survivals=survivals, stops=stops,
        returns=open_P / (stops + open_P),
    )  # fmt: skip


def _score_of_means(now: Cadences, gaps: ItemGaps, seen: _Seen) -> tuple[Float64, Float64]:
    """Score and information of each item's mean."""
    total_P = now.gap_variance + gaps.counts * now.pair_variance
    pull_P = seen.returns * seen.hazards
    bend_P = np.maximum(pull_P * (pull_P - seen.places), 0.0) * seen.weights**2 / seen.next_variance
    score_P = seen.residuals / total_P + pull_P * seen.weights / np.sqrt(seen.next_variance)
    return _by_item(now, gaps, score_P), _by_item(now, gaps, gaps.counts / total_P + bend_P)


def _score_of_stops(now: Cadences, gaps: ItemGaps, seen: _Seen) -> tuple[Float64, Float64]:
    """Score and information of each item's log-odds of stopping."""
    share_P = expit(now.stops.items)[gaps.items]
    again = np.flatnonzero(gaps.counts)
    n_A, share_A, k = gaps.counts[again], share_P[again], now.concentration
    slope_P = (1.0 - seen.survivals) / (1.0 + gaps.counts / k)
    slope_P /= seen.stops + (1.0 - seen.stops) * seen.survivals
    bend_P = slope_P**2
    bend_A = n_A / (1.0 - share_A) ** 2 / (1.0 + n_A / k)
    if np.isinf(k):
        slope_P[again] -= n_A / (1.0 - share_A)
    else:  # to go on n times is a ratio of beta functions
        rest_A = k * (1.0 - share_A)
        slope_P[again] -= k * (digamma(rest_A + n_A) - digamma(rest_A))
    bend_P[again] += bend_A
    odds_P = share_P * (1.0 - share_P)  # derivative of the share by its log-odds
    return _by_item(now, gaps, slope_P * odds_P), _by_item(now, gaps, bend_P * odds_P**2)


def _variances(now: Cadences, gaps: ItemGaps, seen: _Seen) -> tuple[float, float]:
    """Of gaps, and of users around an item."""
    sigma, tau, n_P = now.gap_variance, now.pair_variance, gaps.counts
    ratio_P = seen.left / seen.next_variance
    move_P = seen.returns * ratio_P * np.sqrt(seen.next_variance) * seen.hazards
    bend_P = seen.returns * seen.places * seen.hazards
    # Own mean less the item's: its expected value, and that of its square.
    shift_P = seen.shifts + move_P
    square_P = (
        seen.shifts**2 + 2.0 * seen.shifts * move_P + seen.left
        + ratio_P**2 * seen.next_variance * bend_P
    )  # fmt: skip
    mu_P = now.means.items[gaps.items]
    around_P = gaps.log_squares - 2.0 * mu_P * gaps.log_sums + n_P * mu_P**2
    complete_P = around_P - 2.0 * shift_P * seen.residuals + n_P * square_P
    open_P = sigma**2 / seen.next_variance * bend_P  # beyond what is expected of a gap
    total_P = sigma + n_P * tau
    told = float((np.maximum(n_P - 1, 0) / sigma**2 + (n_P > 0) / total_P**2).sum())
    told += float((seen.returns * np.minimum(bend_P**2, 1.0)).sum()) / sigma**2
    step = float((complete_P - n_P * sigma + open_P).sum()) / sigma**2 / told
    gap_variance = max(sigma * float(np.exp(np.clip(step / sigma, -0.5, 0.5))), _MOST_REGULAR)
    if tau == 0.0:
        return gap_variance, 0.0
    return gap_variance, next_variance(tau, square_P, n_P / total_P)


def _concentration(now: Cadences, gaps: ItemGaps, seen: _Seen) -> float:
    """Towards the best, by a parabola through the likelihoods of three near the present one."""
    if np.isinf(now.concentration):
        return now.concentration
    again = np.flatnonzero(gaps.counts)  # a first purchase does not depend on it
    n_A, survival_A = gaps.counts[again], seen.survivals[again]
    share_A = expit(now.stops.items)[gaps.items[again]]
    worth = []
    for k in now.concentration * _NEARBY:
        rest_A, stop_A = k * (1.0 - share_A), share_A / (1.0 + n_A / k)
        went_on_A = gammaln(rest_A + n_A) - gammaln(rest_A) + gammaln(k) - gammaln(k + n_A)
        worth.append(float((went_on_A + np.log(stop_A + (1.0 - stop_A) * survival_A)).sum()))
    low, middle, high = worth
    bend = low - 2.0 * middle + high
    step = 0.25 * (low - high) / bend if bend < 0 else 0.5 * float(np.sign(high - low))
    return min(float(now.concentration * np.exp(np.clip(step, -0.5, 0.5))), _MOST_ALIKE)


def _by_item(now: Cadences, gaps: ItemGaps, values_P: Float64) -> Float64:
    sums = np.bincount(gaps.items, values_P, minlength=len(now.means.items))
    return np.asarray(sums, dtype=np.float64)
