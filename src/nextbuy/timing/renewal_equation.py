"""Expected purchases where each starts a wait for the next, all waits alike but the first.

With G the probability that a wait which just began has ended (1 less, at its end, than 1 by the
share that never ends), the number M of purchases within a time solves

    M(t) = G(t) + integral of M(t - u) dG(u),

and those after a first purchase whose wait has the distribution F are the integral of M(t - u)
dF(u). Both on a grid of `STEPS` steps to the longest horizon, M taken for linear between its
moments. Distributions are looked at more finely inside the first two steps, so that a user who buys
several times within a step is foretold right but for some percent.

Legend: U users, H horizons, J moments of the grid, F moments at which distributions are asked.
"""

from typing import Final

import numpy as np

from nextbuy.timing.events import Float64

STEPS: Final = 40

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_POINTS, _WEIGHTS = (_POINTS + 1.0) / 2.0, _WEIGHTS / 2.0
_INSIDE: Final = np.concatenate([_POINTS**2, 1.0 + _POINTS])
"""Where we look inside the first two steps, in steps: closer together near 0, where a distribution
that is narrow beside a step rises."""

_COUNTS: Final = (2.0 * _POINTS * _WEIGHTS, _WEIGHTS)
"""How much each counts in the mean over its step."""


def moments_asked(longest: float) -> Float64:
    """At which distributions are asked for horizons up to `longest`, [F]."""
    grid_J = np.linspace(0.0, longest, STEPS + 1)
    return np.concatenate([_INSIDE * grid_J[1], grid_J])


def after_the_first(first_UF: Float64, later_UF: Float64, places: Float64) -> Float64:
    """Expected purchases but for the first, [U, H].

    Args:
        first_UF: P(the first wait ends within each of `moments_asked`).
        later_UF: The same of the waits after it, [U, F] or [1, F].
        places: The horizons in steps of the grid, [H] or [U, H].
    """
    low = np.minimum(places.astype(np.int64), STEPS - 1)
    wanted = np.union1d(low, low + (places > low))
    # Users lie side by side, so that the sums run through the cache.
    renewals_JU = _renewals(np.ascontiguousarray(later_UF.T))
    shares_JU = _shares(np.ascontiguousarray(first_UF.T))
    on_grid_JU = np.zeros((STEPS + 1, len(first_UF)))
    for j in wanted[wanted > 0]:
        on_grid_JU[j] = _dot(shares_JU[:j], renewals_JU[j:0:-1])
    return _interpolated(on_grid_JU.T, places)


def _renewals(later_FU: Float64) -> Float64:
    """M on the grid, from G. With shares g of G, M_j (1 - g_0) = G_j + sum over 0 < m < j of
    g_m M_(j - m)."""
    later_JU, shares_JU = later_FU[len(_INSIDE) :], _shares(later_FU)
    rest_U = 1.0 - shares_JU[0]
    found_JU = np.zeros_like(later_JU)
    for j in range(1, len(later_JU)):
        found_JU[j] = (later_JU[j] + _dot(shares_JU[1:j], found_JU[j - 1 : 0 : -1])) / rest_U
    return found_JU


def _shares(asked_FU: Float64) -> Float64:
    """What of a distribution belongs to each point of the grid but the last.

    With I_m the mean of the distribution over step m, share_0 = I_0 and share_m = I_m - I_(m - 1):
    then the integral of M(t_j - u) dF(u) is the sum of share_m M_(j - m) for every M that is 0 at 0
    and linear between the points.
    """
    on_grid_JU = asked_FU[len(_INSIDE) :]
    means_JU = (on_grid_JU[1:] + on_grid_JU[:-1]) / 2.0
    for step, counts in enumerate(_COUNTS):
        means_JU[step] = counts @ asked_FU[step * len(counts) : (step + 1) * len(counts)]
    return np.diff(means_JU, axis=0, prepend=0.0)


def _interpolated(on_grid_UJ: Float64, places: Float64) -> Float64:
    """Values between the points of a grid, [U, H]; `places` of [H] or [U, H] count its steps."""
    num_users, num_points = on_grid_UJ.shape
    places_UH = np.broadcast_to(places, (num_users, places.shape[-1]))
    low_UH = np.minimum(places_UH.astype(np.int64), num_points - 2)
    below, above = (np.take_along_axis(on_grid_UJ, low_UH + k, axis=1) for k in (0, 1))
    return np.asarray(below + (places_UH - low_UH) * (above - below))


def _dot(left_JU: Float64, right_JU: Float64) -> Float64:
    return np.asarray(np.einsum("ju,ju->u", left_JU, right_JU))
