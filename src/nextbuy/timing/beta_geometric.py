"""The mathematics that BG/NBD and MBG/NBD share.

A user buys at rate lambda while active, and may drop out, with probability p, after a purchase;
lambda ~ Gamma(r, alpha) and p ~ Beta(a, b) over users. With x repeat purchases, the last at t_x,
seen until T, and n chances of dropping out that were not taken before the last purchase:

    L = G [ (alpha + T)^-(r + x) + D (alpha + t_x)^-(r + x) ]
    G = Gamma(r + x) alpha^r / Gamma(r) * B(a, b + n) / B(a, b),   D = a / (b + n - 1)

BG/NBD (Fader, Hardie and Lee 2005, "Counting your customers the easy way", Marketing Science 24(2),
equation 6): the first chance is the first repeat purchase, n = x, and D = 0 where x = 0. MBG/NBD
(Batislam, Denizel and Filiztekin 2007, IJRM 24(3); Hoppe and Wagner 2007, Marketing ZFP 29): the
first purchase is a chance too, n = x + 1. (n counts the chances up to `as_of`; the last of them
was taken in the second term, which is where D comes from.)

Legend: any shapes that broadcast; D distinct rows. Times in the unit of alpha.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import betaln, digamma, expit, gammaln, log_expit, polygamma, xlogy

from nextbuy.errors import ConfigError
from nextbuy.timing.events import Float64
from nextbuy.timing.repeat_purchases import RepeatPurchases

MOST_TERMS: Final = 1_000_000
_SMALL: Final = 1e-16
_LIKE: Final = 30.0
_REACH: Final = 4.6
"""sinh of it is 50 standard deviations."""
_WIDEST: Final = 8.0
"""Standard deviation of logit p beyond which steps grow no finer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """r and alpha of the rate, a and b of the dropout; `first` is 1 for MBG/NBD, else 0."""

    r: float
    alpha: float
    a: float
    b: float
    first: int


def log_likelihood(parameters: Parameters, x: Float64, t_x: Float64, T: Float64) -> Float64:
    """Log L of the module's docstring; T may be infinite."""
    p, n = parameters, x + parameters.first
    active = -(p.r + x) * np.log(p.alpha + T)
    with np.errstate(invalid="ignore"):  # users who never bought are nan, and stay so
        total = np.logaddexp(active, _log_dropped(p, x, t_x))
    return np.asarray(
        gammaln(p.r + x) - gammaln(p.r) + xlogy(p.r, p.alpha)
        + betaln(p.a, p.b + n) - betaln(p.a, p.b) + total
    )  # fmt: skip


def log_next(parameters: Parameters, x: Float64, T: Float64) -> Float64:
    """Log -dL/dT: of the same history and a purchase at T, per unit of time."""
    p, n = parameters, x + parameters.first
    return np.asarray(
        gammaln(p.r + x + 1) - gammaln(p.r) + xlogy(p.r, p.alpha)
        + betaln(p.a, p.b + n) - betaln(p.a, p.b) - (p.r + x + 1) * np.log(p.alpha + T)
    )  # fmt: skip


def p_active(parameters: Parameters, x: Float64, t_x: Float64, T: Float64) -> Float64:
    """P(not dropped out at T | x, t_x, T), the share of the first term in L."""
    active = -(parameters.r + x) * np.log(parameters.alpha + T)
    return np.asarray(expit(active - _log_dropped(parameters, x, t_x)))


def mean_log_likelihood(
    log_parameters: Float64, data: RepeatPurchases, first: int
) -> tuple[float, Float64]:
    """Weighted mean of log L, and its gradient by log r, log alpha, log a and log b.

    Args:
        log_parameters: Of r, alpha, a, b.
        data: Sorted by x, as `RepeatPurchases.collapsed` leaves it.
        first: See `Parameters`.
    """
    r, alpha, a, b = np.exp(log_parameters)
    x, w = data.repeats, data.weights
    starts = np.flatnonzero(np.diff(x, prepend=-1.0))
    counts, w_x = x[starts], np.add.reduceat(w, starts)
    total = float(w_x.sum())
    n = counts + first

    # Terms that hold the gamma function depend on x alone, of which there are few.
    psi = (
        digamma(r + counts) - digamma(r),
        digamma(b + n) - digamma(b),
        digamma(a + b) - digamma(a + b + n),
    )
    value = w_x @ (
        gammaln(r + counts) - gammaln(r)
        + gammaln(b + n) - gammaln(b) - gammaln(a + b + n) + gammaln(a + b)
    )  # fmt: skip
    sum_r, sum_b, sum_ab = (float(w_x @ p) for p in psi)

    never = int(np.searchsorted(x, 0.5)) if first == 0 else 0  # rows that cannot have dropped out
    log_now = np.log(alpha + data.age)
    value -= w @ ((r + x) * log_now)
    sum_log, sum_inverse = w[:never] @ log_now[:never], w[:never] @ (r / (alpha + data.age[:never]))

    k, w, log_now = r + x[never:], w[never:], log_now[never:]
    log_last = np.log(alpha + data.last[never:])
    chances = b - 1.0 + first + x[never:]
    dropped = np.exp(-np.abs(more := np.log(a / chances) + k * (log_now - log_last)))
    value += w @ (np.maximum(more, 0.0) + np.log1p(dropped))
    dead = w * np.where(more > 0, 1.0, dropped) / (1.0 + dropped)
    alive = w - dead
    sum_log += alive @ log_now + dead @ log_last
    sum_inverse += k @ (alive / (alpha + data.age[never:]) + dead / (alpha + data.last[never:]))

    value += total * r * np.log(alpha)
    gradient = np.array(
        [
            r * (sum_r + total * np.log(alpha) - sum_log),
            total * r - alpha * sum_inverse,
            a * sum_ab + dead.sum(),
            b * (sum_b + sum_ab - (dead / chances).sum()),
        ]
    )
    return float(value) / total, gradient / total


def expected_purchases(
    parameters: Parameters, x: Float64, t_x: Float64, T: Float64, time: Float64
) -> Float64:
    """Expected number of purchases in (T, T + time] given x, t_x and T.

    An active user drops out at rate lambda p, and is expected to buy E[(1 - e^(-lambda p t)) / p]
    times, with lambda ~ Gamma(k, alpha + T), k = r + x, and p ~ Beta(a, B), B = b + n. Fader,
    Hardie and Lee write that with 2F1 (equation 10), which is 0/0 at a = 1 and overflows for large
    x. Euler's and Pfaff's transformations bring, with c = a + B - 1, e = a - 1, m = c - k,
    z = time / (alpha + T) and y = z / (1 + z),

        c (1 - (1 + z)^-e) / e - (1 + z)^-e S
        S = sum over j > 0 of (m)_j (a)_(j - 1) / ((c + 1)_(j - 1) j!) y^j

    where m does not grow with x and nothing is singular. Where users are so alike (large a or r)
    that the terms grow before they fall, p is integrated numerically.

    Raises:
        ConfigError: If the horizon is so long beside the age of a user that the sum is endless.
    """
    p, n = parameters, x + parameters.first
    k, z = p.r + x, time / (p.alpha + T)
    m = p.a + p.b + p.first - 1.0 - p.r
    if p.a <= _LIKE and m >= -_LIKE:
        c, e, log_z = p.a + p.b + n - 1.0, p.a - 1.0, np.log1p(z)
        lead = log_z if e == 0 else -np.expm1(-e * log_z) / e
        purchases = c * lead - np.exp(-e * log_z) * _series(m, p.a, c, z / (1.0 + z))
    else:
        purchases = _integrated(p.a, p.b + n, k, z)
    return np.asarray(p_active(p, x, t_x, T) * np.maximum(purchases, 0.0))


def _series(m: float, a: float, c: Float64, y: Float64) -> Float64:
    """S of `expected_purchases`, by its terms; `nan` where an argument is."""
    shape = np.broadcast_shapes(c.shape, y.shape)
    c, y = (np.broadcast_to(v, shape).ravel() for v in (c, y))
    total = np.where(np.isnan(y * c), np.nan, 0.0)
    left = np.flatnonzero(y > 0)
    c, y = c[left], y[left]
    term = m * y
    sums = term.copy()
    for j in range(1, MOST_TERMS):
        # What is left out is about the last term times 1 / (1 - y).
        going = np.abs(term) > _SMALL * np.abs(sums) * (1.0 - y)
        if j % 8 == 0 and not going.all():
            total[left[~going]] = sums[~going]
            left, c, y = left[going], c[going], y[going]
            term, sums = term[going], sums[going]
        if not len(left):
            return total.reshape(shape)
        term = term * ((m + j) * (a + j - 1.0) / ((c + j) * (j + 1.0)) * y)
        sums = sums + term
    raise ConfigError(
        f"The expectation for {len(left)} users needs more than {MOST_TERMS} terms: the horizon is "
        f"{1 / (1 - y.max()):.3g} times as long as what is known of them. Ask for a shorter one."
    )


def _integrated(a: float, B: Float64, k: Float64, z: Float64) -> Float64:
    """E[g(p)], g(p) = (1 - (1 + p z)^-k) / p, for p ~ Beta(a, B), by the trapezoidal rule.

    In s, where logit p = mean + sd sinh s with the mean and sd that logit p has: the tails of the
    density, which are exponential in logit p, then fall doubly exponentially. Below a = 1, where
    the left tail is so long that g happens in a corner of it, E_a[g] = g(0) - a / (a + B) times
    E_(a + 1)[(g(0) - g(p)) / p].
    """
    shifted = a < 1.0
    shape = a + 1.0 if shifted else a
    mean = digamma(shape) - digamma(B)
    sd = np.sqrt(polygamma(1, shape) + polygamma(1, B))
    step = 0.15 / min(max(1.0, float(np.nanmax(sd, initial=1.0))), _WIDEST)
    numerator, denominator = np.zeros(()), np.zeros(())
    for s in np.arange(-_REACH, _REACH + step, step):
        logit = mean + sd * np.sinh(s)
        log_p, log_q = log_expit(logit), log_expit(-logit)
        density = np.exp(shape * log_p + B * log_q - betaln(shape, B)) * np.cosh(s)
        p = np.maximum(np.exp(log_p), _SMALL**2)
        value = -np.expm1(-k * np.log1p(p * z)) / p
        if shifted:  # by its first terms where the difference would cancel
            fall = k * (k + 1.0) * z**2 * (0.5 - (k + 2.0) * p * z / 6.0)
            value = np.where((k + 2.0) * p * z < 1e-5, fall, (k * z - value) / p)
        numerator = numerator + density * value
        denominator = denominator + density
    mean_value = numerator / denominator
    return np.asarray(k * z - a / (a + B) * mean_value if shifted else mean_value)


def _log_dropped(p: Parameters, x: Float64, t_x: Float64) -> Float64:
    """Log of the second term in the brackets of L; `-inf` where nobody can have dropped out."""
    n = x + p.first
    chances = np.where(n > 0, p.b + n - 1.0, 1.0)
    log_d = np.where(n > 0, np.log(p.a / np.where(np.isnan(n), 1.0, chances)), -np.inf)
    return np.asarray(np.where(np.isnan(x), np.nan, log_d - (p.r + x) * np.log(p.alpha + t_x)))
