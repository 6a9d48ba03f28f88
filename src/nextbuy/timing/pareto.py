"""The mathematics of Pareto/NBD.

A user buys at rate lambda ~ Gamma(r, alpha) and drops out at rate mu ~ Gamma(s, beta), at any time
(Schmittlein, Morrison and Colombo 1987, "Counting your customers: who are they and what will they
do next?", Management Science 33(1)). With k = r + x:

    L = Gamma(k) alpha^r beta^s / Gamma(r) [ (alpha + T)^-k (beta + T)^-s + s I ]
    I = integral over tau from t_x to T of (alpha + tau)^-k (beta + tau)^-(s + 1)

where tau is the moment of dropping out. The literature writes I as a difference of two 2F1, which
cancel, and overflow for large x. I is integrated here as it stands, by Gauss and Legendre in
l = log(h + tau), h = min(alpha, beta): the log of the integrand is concave there, smooth on a scale
of 1, and cut off where it has fallen by e^-45. The same nodes give the gradient.

Legend: any shapes that broadcast; D distinct rows. Times in the unit of alpha and beta.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from scipy.special import digamma, expit, gammaln

from nextbuy.timing.events import Float64
from nextbuy.timing.repeat_purchases import RepeatPurchases

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(32)
_FALL: Final = 45.0


_LARGEST_LOG: Final = 700.0
"""Of a number that a float64 holds; beyond it `far` is nothing beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """r and alpha of the rate of purchases, s and beta of the rate of dropping out."""

    r: float
    alpha: float
    s: float
    beta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dropped:
    """Log s I, and the means of four functions of tau under its integrand (None if not asked)."""

    log: Float64
    log_alpha: Float64
    inverse_alpha: Float64
    log_beta: Float64
    inverse_beta: Float64


def log_likelihood(parameters: Parameters, x: Float64, t_x: Float64, T: Float64) -> Float64:
    """Log L of the module's docstring; T may be infinite."""
    p = parameters
    constant = gammaln(p.r + x) - gammaln(p.r) + p.r * np.log(p.alpha) + p.s * np.log(p.beta)
    dropped = _dropped(p, x, t_x, T, means=False).log
    with np.errstate(invalid="ignore"):  # users who never bought are nan, and stay so
        return np.asarray(constant + np.logaddexp(_log_active(p, x, T), dropped))


def log_next(parameters: Parameters, x: Float64, T: Float64) -> Float64:
    """Log -dL/dT: of the same history and a purchase at T, per unit of time."""
    p = parameters
    constant = gammaln(p.r + x + 1) - gammaln(p.r) + p.r * np.log(p.alpha) + p.s * np.log(p.beta)
    return np.asarray(constant + _log_active(p, x, T) - np.log(p.alpha + T))


def p_active(parameters: Parameters, x: Float64, t_x: Float64, T: Float64) -> Float64:
    """P(not dropped out at T | x, t_x, T), the share of the first term in L."""
    dropped = _dropped(parameters, x, t_x, T, means=False).log
    return np.asarray(expit(_log_active(parameters, x, T) - dropped))


def expected_purchases(
    parameters: Parameters, x: Float64, t_x: Float64, T: Float64, time: Float64
) -> Float64:
    """Expected number of purchases in (T, T + time] given x, t_x and T.

    P(active) (r + x) / (alpha + T) times the expected time until dropping out or the horizon,
    (beta + T) (1 - (1 + time / (beta + T))^-(s - 1)) / (s - 1).
    """
    p, e = parameters, parameters.s - 1.0
    log_z = np.log1p(time / (p.beta + T))
    active_time = (p.beta + T) * (log_z if e == 0 else -np.expm1(-e * log_z) / e)
    return np.asarray(p_active(p, x, t_x, T) * (p.r + x) / (p.alpha + T) * active_time)


def mean_log_likelihood(log_parameters: Float64, data: RepeatPurchases) -> tuple[float, Float64]:
    """Weighted mean of log L, and its gradient by log r, log alpha, log s and log beta."""
    r, alpha, s, beta = (float(v) for v in np.exp(log_parameters))
    p = Parameters(r=r, alpha=alpha, s=s, beta=beta)
    x, T = data.repeats, data.age
    w = data.weights / data.weights.sum()
    dropped = _dropped(p, x, data.last, T, means=True)
    active = _log_active(p, x, T)
    both = np.logaddexp(active, dropped.log)
    constant = gammaln(r + x) - gammaln(r) + r * np.log(alpha) + s * np.log(beta)
    alive = np.exp(active - both)
    dead, k = 1.0 - alive, r + x
    log_alpha = alive * np.log(alpha + T) + dead * dropped.log_alpha
    inverse_alpha = alive / (alpha + T) + dead * dropped.inverse_alpha
    log_beta = alive * np.log(beta + T) + dead * dropped.log_beta
    inverse_beta = alive * s / (beta + T) + dead * (s + 1.0) * dropped.inverse_beta
    gradient = np.array(
        [
            r * (w @ (digamma(k) - digamma(r) + np.log(alpha) - log_alpha)),
            r - alpha * (w @ (k * inverse_alpha)),
            s * (np.log(beta) - w @ log_beta) + w @ dead,
            s - beta * (w @ inverse_beta),
        ]
    )
    return float(w @ (constant + both)), gradient


def _log_active(p: Parameters, x: Float64, T: Float64) -> Float64:
    return np.asarray(-(p.r + x) * np.log(p.alpha + T) - p.s * np.log(p.beta + T))


def _dropped(p: Parameters, x: Float64, t_x: Float64, T: Float64, *, means: bool) -> _Dropped:
    """The integral over the moment of dropping out; log 0 where T is t_x."""
    alpha_near = p.alpha <= p.beta
    powers = (p.r + x, p.s + 1.0) if alpha_near else (p.s + 1.0, p.r + x)
    shape = _Integrand(
        near_power=powers[0], far_power=powers[1], low=min(p.alpha, p.beta),
        far=abs(p.alpha - p.beta), t_x=t_x,
    )  # fmt: skip
    end = shape.end(T)
    middle = np.minimum(shape.settled, end)
    total = log_near = log_far = inverse_near = inverse_far = np.zeros(())
    for left, right in ((shape.begin, middle), (middle, end)):
        half = (right - left) / 2.0
        if not (half > 0).any():
            continue
        for node, node_weight in zip(_NODES + 1.0, _NODE_WEIGHTS, strict=True):
            log_n = left + half * node
            near = np.exp(np.minimum(log_n, _LARGEST_LOG))
            log_f = np.maximum(np.log(near + shape.far), log_n)
            value = node_weight * half * np.exp(shape.log(log_n, log_f) - shape.at_begin)
            total = total + value
            if means:
                log_near, log_far = log_near + value * log_n, log_far + value * log_f
                inverse_near = inverse_near + value / near
                inverse_far = inverse_far + value / (near + shape.far)
    some = np.where(total > 0, total, 1.0)  # where T is t_x, all sums are 0
    near_means, far_means = (
        (log_near / some, inverse_near / some),
        (log_far / some, inverse_far / some),
    )
    of_alpha, of_beta = (near_means, far_means) if alpha_near else (far_means, near_means)
    with np.errstate(divide="ignore"):
        log = np.log(p.s) + shape.at_begin + np.log(total)
    return _Dropped(
        log=log, log_alpha=of_alpha[0], inverse_alpha=of_alpha[1],
        log_beta=of_beta[0], inverse_beta=of_beta[1],
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Integrand:
    """(e^l)^-near_power (e^l + far)^-far_power e^l, from the moment t_x on."""

    near_power: Float64 | float
    far_power: Float64 | float
    low: float
    far: float
    t_x: Float64

    @cached_property
    def begin(self) -> Float64:
        return np.log(self.low + self.t_x)

    @cached_property
    def at_begin(self) -> Float64:
        return self.log(self.begin, np.log(self.low + self.t_x + self.far))

    @cached_property
    def settled(self) -> Float64:
        """From here on the integrand falls nearly as a power of e^l."""
        return np.maximum(self.begin, np.log(self.far) + 3.0) if self.far > 0 else self.begin

    def log(self, log_near: Float64, log_far: Float64) -> Float64:
        """Log of the integrand."""
        return np.asarray((1.0 - self.near_power) * log_near - self.far_power * log_far)

    def end(self, T: Float64) -> Float64:
        """Where its log has fallen by 45 from the begin, or somewhat beyond; at most T.

        Newton's method from the right: the tangent of a concave function lies above it, so that
        each step stays beyond the place and none cuts anything off.
        """
        full = self.near_power + self.far_power - 1.0
        enough = self.settled + (1.2 * _FALL + 3.0 * self.far_power) / full
        end = np.minimum(np.log(self.low + T), enough)
        wanted = self.at_begin - _FALL
        for _ in range(4):
            ratio = 1.0 / (1.0 + self.far * np.exp(-end))
            value = self.log(end, end - np.log(ratio))
            slope = 1.0 - self.near_power - self.far_power * ratio
            beyond = (value < wanted) & (slope < 0)
            end = np.where(beyond, end + (wanted - value) / np.where(beyond, slope, -1.0), end)
        return np.maximum(end, self.begin)
