"""What an all-knowing observer of `world:market` believes: Bayes' rule on its own laws.

Legend: C users, N purchases, K segments, J quadrature nodes, M = MEMORY, P platforms, I items.
Histories are in the world's item numbers; times become days since START.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import Histories, Int64
from nextbuy.data.worlds.market_parameters import (
    ARRIVAL_DAYS,
    DAY_US,
    MEMORY,
    START_US,
    Float64,
    Index,
    MarketParameters,
    repeat_weights,
    season_shares,
)
from nextbuy.data.worlds.normal import NormalTail

NUM_NODES = 24
"""Of the quadrature. Against 384 nodes, on 1,500 users: no probability is off by more than 0.002,
the mean entropy by less than 0.0001 nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What is known about the time of each user's next purchase, besides the history.

    Attributes:
        as_of: It is not before this moment, UTC microseconds, length C; None: nothing is known.
        until: It is before this moment, UTC microseconds; None: nothing is known.
        is_at_as_of: It is exactly at `as_of`.
    """

    as_of: Int64 | None = None
    until: int | None = None
    is_at_as_of: bool = False

    def part(self, rows: slice) -> "Window":
        """The window of some of the users."""
        return replace(self, as_of=None if self.as_of is None else self.as_of[rows])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class NextTime:
    """The segment of each user and the time of the next purchase, given all that is known.

    Attributes:
        posterior: P(segment), shape [C, K].
        days: Quadrature nodes of the time given the segment, shape [C, K, J].
        weights: Of the nodes, length J, sums to 1.
        log_gap_density: Of ln(gap in days) at the nodes, shape [C, K, J]; `nan` for users who
            have not bought.
    """

    posterior: Float64
    days: Float64
    weights: Float64
    log_gap_density: Float64


def days_of(times: Int64) -> Float64:
    """Days since START of UTC microseconds."""
    return np.asarray((times - START_US) / DAY_US)


def filtered_log_posterior(parameters: MarketParameters, histories: Histories) -> Float64:
    """ln P(segment, history) up to a constant, shape [C, K].

    The product over purchases of the likelihood of its gap and of its item, in each segment.
    """
    evidence = _item_log_likelihoods(parameters, histories)
    starts, lengths = histories.offsets[:-1], histories.lengths
    later = np.ones(histories.num_purchases, dtype=bool)
    later[starts[lengths > 0]] = False
    rows = np.flatnonzero(later)
    days = days_of(histories.times)
    evidence[rows] += _gap_log_density(parameters, np.log(np.diff(days)[rows - 1]))
    sums = np.concatenate([np.zeros((1, evidence.shape[1])), np.cumsum(evidence, axis=0)])
    per_user = sums[histories.offsets[1:]] - sums[starts]
    return np.asarray(np.log(parameters.prior) + per_user)


def next_time(
    parameters: MarketParameters,
    histories: Histories,
    window: Window,
    tail: NormalTail,
    num_nodes: int = NUM_NODES,
) -> NextTime:
    """Segment and time of the next purchase, given the history and the window.

    The time given the segment is a gap cut off on both sides; its nodes are those of
    Gauss-Legendre in the quantile of that cut gap, so that they lie where the purchase does.
    """
    has_bought = histories.lengths > 0
    last = np.zeros(len(histories))
    last[has_bought] = days_of(histories.times[histories.offsets[1:][has_bought] - 1])
    low = last if window.as_of is None else np.maximum(days_of(window.as_of), last)
    high = np.inf if window.until is None else (window.until - START_US) / DAY_US
    log_joint = filtered_log_posterior(parameters, histories)
    if window.is_at_as_of:
        return _known_time(parameters, log_joint, last, low, has_bought)
    mean, spread = parameters.gap_mean, parameters.gap_spread
    with np.errstate(divide="ignore"):
        z_low = (np.log(low - last)[:, None] - mean) / spread
        z_high = (np.log(np.maximum(high - last, 0.0))[:, None] - mean) / spread
    log_low, log_high = tail.log_tail(z_low), tail.log_tail(z_high)
    share = -np.expm1(np.minimum(log_high - log_low, 0.0))  # of the tail beyond low, before high
    log_mass = log_low + np.log(np.maximum(share, 1e-300))
    log_seen = np.where(has_bought[:, None], log_joint + log_mass, log_joint)
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    quantiles, weights = (nodes + 1) / 2, weights / 2
    z = tail.z_of(log_low[..., None] + np.log1p(-quantiles * share[..., None]))
    log_gaps = mean[:, None] + spread[:, None] * z
    density = _mixture_log_density(parameters, log_joint, log_gaps)
    is_later = has_bought[:, None, None]
    return NextTime(
        posterior=_normalised(log_seen),
        days=np.where(
            is_later,
            last[:, None, None] + np.exp(log_gaps),
            _first_days(low, high, quantiles)[:, None, :],
        ),
        weights=weights,
        log_gap_density=np.where(is_later, density - _log_sum_exp(log_seen)[:, None, None], np.nan),
    )


def _known_time(
    parameters: MarketParameters,
    log_joint: Float64,
    last: Float64,
    days: Float64,
    has_bought: NDArray[np.bool_],
) -> NextTime:
    """One node: the moment itself, whose gap is evidence about the segment."""
    log_gaps = np.log(np.where(has_bought, np.maximum(days - last, 1 / DAY_US), 1.0))
    evidence = np.where(has_bought[:, None], _gap_log_density(parameters, log_gaps), 0.0)
    shape = (*log_joint.shape, 1)
    return NextTime(
        posterior=_normalised(log_joint + evidence),
        days=np.broadcast_to(days[:, None, None], shape),
        weights=np.ones(1),
        log_gap_density=np.full(shape, np.nan),
    )


def item_probabilities(
    parameters: MarketParameters, histories: Histories, time: NextTime
) -> Float64:
    """P(next item), shape [C, I], summed over segments and times."""
    a, b, c = parameters.mixture
    has_bought = histories.lengths > 0
    a, b, c = (
        np.where(has_bought[:, None], part, first) for part, first in ((a, 0.0), (b, 0.0), (c, 1.0))
    )
    shares = np.einsum("ckjs,j->cks", season_shares(time.days), time.weights)
    seasonal = np.einsum("ck,cks,ksp->cp", time.posterior * c, shares, parameters.seasons,
                         optimize=True)  # fmt: skip
    slots = recent_rows(histories)
    used = slots >= 0
    items = histories.items[slots] if histories.num_purchases else np.zeros_like(slots)
    last = parameters.platform_of[items[:, 0]]
    habitual = np.einsum("ck,kcp->cp", time.posterior * b, parameters.habits[:, last])
    by_platform = seasonal + habitual
    p = by_platform[:, parameters.platform_of] * parameters.popularity
    again = _repeat_shares(parameters, histories, time, a * time.posterior, slots)
    np.add.at(p, (np.nonzero(used)[0], items[used]), again[used])
    return np.asarray(p)


def gap_probability(
    parameters: MarketParameters, histories: Histories, gap_days: Float64, tail: NormalTail
) -> Float64:
    """P(next gap <= gap_days | history) of users who have bought, length C."""
    log_joint = filtered_log_posterior(parameters, histories)
    posterior = _normalised(log_joint)
    z = (np.log(gap_days)[:, None] - parameters.gap_mean) / parameters.gap_spread
    return np.asarray((posterior * -np.expm1(tail.log_tail(z))).sum(axis=1))


def recent_rows(histories: Histories) -> Index:
    """Flat rows of the last M purchases of each user, latest first, shape [C, M]; -1 for none."""
    rows = histories.offsets[1:, None] - 1 - np.arange(MEMORY)
    return np.where(rows >= histories.offsets[:-1, None], rows, -1)


def _item_log_likelihoods(parameters: MarketParameters, histories: Histories) -> Float64:
    """ln P(item | segment, what came before, its time) of every purchase, shape [N, K]."""
    items, days = histories.items, days_of(histories.times)
    num_rows = len(items)
    position = np.arange(num_rows) - np.repeat(histories.offsets[:-1], histories.lengths)
    log_cadence = parameters.log_cadence[items]
    matching, total = np.zeros(num_rows), np.zeros(num_rows)
    for lag in range(1, min(MEMORY, int(position.max(initial=0))) + 1):
        now = np.flatnonzero(position >= lag)
        then = now - lag
        weights = repeat_weights(days[now] - days[then], log_cadence[then])
        total[now] += weights
        matching[now] += weights * (items[now] == items[then])
    a, b, c = parameters.mixture
    platforms = parameters.platform_of[items]
    seasonal = np.einsum("ns,ksn->nk", season_shares(days), parameters.seasons[:, :, platforms])
    is_first = position == 0
    before = np.roll(platforms, 1)
    habitual = parameters.habits[:, before, platforms].T
    repeated = np.divide(matching, total, out=np.zeros(num_rows), where=total > 0)
    popularity = parameters.popularity[items][:, None]
    later = a * repeated[:, None] + (b * habitual + c * seasonal) * popularity
    return np.asarray(np.log(np.where(is_first[:, None], seasonal * popularity, later)))


def _repeat_shares(
    parameters: MarketParameters,
    histories: Histories,
    time: NextTime,
    segment_weights: Float64,
    slots: Index,
) -> Float64:
    """P(the next purchase repeats that one) for the recent purchases, shape [C, M]."""
    if histories.num_purchases == 0:
        return np.zeros(slots.shape)
    used = (slots >= 0)[:, None, None, :]
    then = days_of(histories.times)[slots][:, None, None, :]
    ages = np.where(used, time.days[..., None] - then, 1.0)
    log_cadence = parameters.log_cadence[histories.items[slots]][:, None, None, :]
    weights = np.where(used, repeat_weights(ages, log_cadence), 0.0)
    total = weights.sum(axis=-1)
    scale = segment_weights[:, :, None] * time.weights
    scale = np.divide(scale, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(np.einsum("ckj,ckjm->cm", scale, weights))


def _gap_log_density(parameters: MarketParameters, log_gaps: Float64) -> Float64:
    """ln of the normal density of ln(gap in days) in each segment, one more axis of length K."""
    z = (log_gaps[..., None] - parameters.gap_mean) / parameters.gap_spread
    constant = np.log(parameters.gap_spread) + 0.5 * np.log(2 * np.pi)
    return np.asarray(-0.5 * z**2 - constant)


def _mixture_log_density(
    parameters: MarketParameters, log_joint: Float64, log_gaps: Float64
) -> Float64:
    """ln sum_k joint_k density_k(log_gap) at nodes of shape [C, K, J]."""
    return _log_sum_exp(log_joint[:, None, None, :] + _gap_log_density(parameters, log_gaps))


def _first_days(low: Float64, high: float, quantiles: Float64) -> Float64:
    """Nodes of a first purchase's time, uniform before ARRIVAL_DAYS; `low` for who asks later."""
    low = np.maximum(low, 0.0)
    width = np.maximum(min(high, ARRIVAL_DAYS) - low, 0.0)
    return np.asarray(low[:, None] + width[:, None] * quantiles)


def _normalised(log_weights: Float64) -> Float64:
    """Probabilities along the last axis."""
    return np.asarray(np.exp(log_weights - _log_sum_exp(log_weights)[..., None]))


def _log_sum_exp(values: Float64) -> Float64:
    """ln of the sum of exponentials over the last axis."""
    top = values.max(axis=-1)
    return np.asarray(top + np.log(np.exp(values - top[..., None]).sum(axis=-1)))
