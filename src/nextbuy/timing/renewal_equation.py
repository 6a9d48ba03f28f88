"""Expected purchases where each starts a wait for the next, all waits alike but the first.

With G the probability that a wait which just began has ended (1 less, at its end, than 1 by the
share that never ends), the number M of purchases within a time solves

    M(t) = G(t) + integral of M(t - u) dG(u),

and those after a first purchase whose wait has the distribution F are the integral of M(t - u)
dF(u). Both by the trapezoidal rule on a grid.

Legend: U users, H horizons, J moments of a grid.
"""

import numpy as np

from nextbuy.timing.events import Float64


def after_the_first(first_UJ: Float64, later_UJ: Float64, places: Float64) -> Float64:
    """Expected purchases but for the first, [U, H].

    Args:
        first_UJ: P(the first wait ends within each moment of the grid), 0 at its start.
        later_UJ: The same of the waits after it, [U, J] or [1, J].
        places: The horizons in steps of the grid, [H] or [U, H].
    """
    num_moments = first_UJ.shape[1]
    low = np.minimum(places.astype(np.int64), num_moments - 2)
    wanted = np.union1d(low, low + (places > low))
    renewals_JU = _renewals(np.ascontiguousarray(later_UJ.T))
    means_JU = (renewals_JU[1:] + renewals_JU[:-1]) / 2.0
    steps_JU = np.ascontiguousarray(np.diff(first_UJ, axis=1).T)
    on_grid_JU = np.zeros((num_moments, len(first_UJ)))
    for j in wanted[wanted > 0]:
        on_grid_JU[j] = _dot(steps_JU[:j], means_JU[j - 1 :: -1])
    return _interpolated(on_grid_JU.T, places)


def _renewals(later_JU: Float64) -> Float64:
    """M on the grid, from G on it. With steps s of G, M_j (1 - s_0 / 2) = G_j + sum over 0 < m < j
    of (s_(m - 1) + s_m) / 2 M_(j - m)."""
    step_JU = np.diff(later_JU, axis=0)
    shares_JU = (step_JU[1:] + step_JU[:-1]) / 2.0
    rest_U = 1.0 - step_JU[0] / 2.0
    found_JU = np.zeros_like(later_JU)
    for j in range(1, len(later_JU)):
        found_JU[j] = (later_JU[j] + _dot(shares_JU[: j - 1], found_JU[j - 1 : 0 : -1])) / rest_U
    return found_JU


def _interpolated(on_grid_UJ: Float64, places: Float64) -> Float64:
    """Values between the points of a grid, [U, H]; `places` of [H] or [U, H] count its steps."""
    num_users, num_points = on_grid_UJ.shape
    places_UH = np.broadcast_to(places, (num_users, places.shape[-1]))
    low_UH = np.minimum(places_UH.astype(np.int64), num_points - 2)
    below, above = (np.take_along_axis(on_grid_UJ, low_UH + k, axis=1) for k in (0, 1))
    return np.asarray(below + (places_UH - low_UH) * (above - below))


def _dot(left_JU: Float64, right_JU: Float64) -> Float64:
    return np.asarray(np.einsum("ju,ju->u", left_JU, right_JU))
