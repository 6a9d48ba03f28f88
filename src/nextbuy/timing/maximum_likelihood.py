"""Maximum likelihood for a handful of positive parameters, with analytic gradients."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import optimize

from nextbuy.errors import TrainingError
from nextbuy.timing.events import Float64

_log = logging.getLogger(__name__)

BOX: Final = 11.5
"""Logarithms of parameters stay within this of 0, that is between 1e-5 and 1e5."""

_STEEPEST: Final = 1e-5
"""Of the mean log-likelihood per unit of a log-parameter, where we still call it a maximum."""

Objective = Callable[[Float64], tuple[float, Float64]]
"""Of log-parameters: the mean log-likelihood, and its gradient by log-parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maximum:
    """Where a likelihood is highest.

    Attributes:
        parameters: The parameters themselves, not their logarithms.
        mean_log_likelihood: The value there.
        num_evaluations: How often likelihood and gradient were computed.
        steepness: Largest absolute slope by a log-parameter that is not at the edge.
        at_edge: Names of parameters that ran to the edge of the box.
    """

    parameters: tuple[float, ...]
    mean_log_likelihood: float
    num_evaluations: int
    steepness: float
    at_edge: tuple[str, ...]


def maximize(
    objective: Objective,
    starts: Sequence[Float64],
    names: Sequence[str],
    *,
    close: float = 1e-9,
) -> Maximum:
    """Climb from the first start that leads to a maximum.

    BFGS, whose memory of all four directions suits the narrow ridges of these likelihoods; where
    that leaves the box, L-BFGS-B inside it. Data without dropout, or without difference between
    users, have their maximum at infinity: that is logged, and the model at the edge is as good.

    Args:
        objective: See `Objective`. Should be scaled so that good parameters are near 1.
        starts: Log-parameters to start from, the likeliest first.
        names: Of the parameters, for messages.
        close: Slope at which the climb ends.

    Raises:
        TrainingError: If no start leads to a maximum.
    """
    calls = 0

    def descend(log_parameters: Float64) -> tuple[float, Float64]:
        nonlocal calls
        calls += 1
        inside = np.clip(log_parameters, -2 * BOX, 2 * BOX)
        value, gradient = objective(inside)
        return -value, -gradient

    tried: list[Maximum] = []
    for start in starts:
        for method in ("BFGS", "L-BFGS-B"):
            place = _climb(descend, start, method, close)
            found = _described(descend, place, names, calls)
            tried.append(found)
            if found.steepness <= _STEEPEST and (method == "L-BFGS-B" or not found.at_edge):
                return _logged(found)
    best = min(tried, key=lambda found: found.steepness)
    raise TrainingError(
        f"No maximum of the likelihood was found from {len(starts)} starts: at "
        f"{_words(names, best.parameters)} the mean log-likelihood still rises by "
        f"{best.steepness:.2g} per unit of a log-parameter. Look for outliers in the purchases, "
        "or use another timing model."
    )


def _climb(descend: Objective, start: Float64, method: str, close: float) -> Float64:
    with np.errstate(all="ignore"):  # a line search may try parameters that overflow
        if method == "BFGS":
            options = {"gtol": close, "maxiter": 300}
            return np.asarray(
                optimize.minimize(descend, start, jac=True, method=method, options=options).x
            )
        done = optimize.minimize(
            descend, start, jac=True, method=method, bounds=[(-BOX, BOX)] * len(start),
            options={"ftol": 1e-16, "gtol": close, "maxiter": 2000, "maxfun": 4000, "maxcor": 20},
        )  # fmt: skip
        return np.asarray(done.x)


def _described(descend: Objective, place: Float64, names: Sequence[str], calls: int) -> Maximum:
    value, gradient = descend(place)
    edge = np.abs(place) > BOX - 1e-3
    outwards = edge & (np.sign(place) == -np.sign(gradient))
    slopes = np.abs(np.where(outwards, 0.0, gradient))
    steepness = float(slopes.max()) if np.isfinite(slopes).all() else np.inf
    return Maximum(
        parameters=tuple(float(p) for p in np.exp(np.clip(place, -2 * BOX, 2 * BOX))),
        mean_log_likelihood=-float(value),
        num_evaluations=calls,
        steepness=steepness if np.isfinite(value) else np.inf,
        at_edge=tuple(name for name, at in zip(names, edge, strict=True) if at),
    )


def _logged(found: Maximum) -> Maximum:
    if found.at_edge:
        _log.info(
            "The purchases do not determine %s: the likelihood rises to the edge of what is tried.",
            " and ".join(found.at_edge),
        )
    return found


def _words(names: Sequence[str], parameters: Sequence[float]) -> str:
    return ", ".join(f"{n} = {p:.4g}" for n, p in zip(names, parameters, strict=True))
