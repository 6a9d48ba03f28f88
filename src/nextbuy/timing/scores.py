"""How good outlooks were, once it is known what came.

Legend: U users.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from nextbuy.metrics.calibration import reliability
from nextbuy.timing.events import Float64
from nextbuy.timing.protocol import Outlook, log_likelihood
from nextbuy.timing.waits import Waits

_LOW, _HIGH = 0.1, 0.9
_ROUNDING: Final = 1e-9


def score(
    outlook: Outlook, waits: Waits, period_days: float, horizons: Sequence[int]
) -> dict[str, float]:
    """Scores of an outlook on what came within a period.

    Args:
        outlook: Of U users, from the moment at which the period begins.
        waits: Of the same users, seen until the end of the period.
        period_days: Its length.
        horizons: Days; those that do not fit into the period are left out.

    Returns:
        `log_likelihood`, a wait, censored ones included (density per day); `coverage_80`, the share
        of waits between the 10 % and the 90 % quantile, of 80 % if the outlook is right; for each
        horizon of d days `brier_{d}d` and `ece_{d}d` of the probability to buy within it, its mean
        `p_buy_{d}d`, and `bought_{d}d`, the share that did.
    """
    known = np.flatnonzero(waits.known)
    outlook = outlook.take(known)
    days_U, observed_U = waits.days[known], waits.observed[known]
    found = {
        "log_likelihood": float(log_likelihood(outlook, days_U, observed_U).mean()),
        "coverage_80": coverage(outlook.probability_within(days_U[:, None])[:, 0], observed_U),
    }
    fitting = fitting_horizons(period_days, horizons)
    if not fitting:
        return found
    said_UH = outlook.probability_within(np.array(fitting, dtype=np.float64))
    for place, days in enumerate(fitting):
        said_U, did_U = said_UH[:, place], observed_U & (days_U <= days)
        found[f"brier_{days}d"] = float(((said_U - did_U) ** 2).mean())
        found[f"ece_{days}d"] = reliability(said_U, did_U).ece
        found[f"p_buy_{days}d"] = float(said_U.mean())
        found[f"bought_{days}d"] = float(did_U.mean())
    return found


def coverage(reached_U: Float64, observed_U: np.typing.NDArray[np.bool_]) -> float:
    """Share of waits between the 10 % and the 90 % quantile.

    Args:
        reached_U: F of each wait, or of the part of it that was seen.
        observed_U: Whether the wait has ended. One that has not is anywhere in what is left, and
            counts by the share of that which lies between the quantiles.
    """
    inside_U = (reached_U >= _LOW) & (reached_U <= _HIGH)
    left_U = np.maximum(1.0 - reached_U, 1e-12)
    ahead_U = np.maximum(_HIGH - np.maximum(reached_U, _LOW), 0.0) / left_U
    return float(np.where(observed_U, inside_U, ahead_U).mean())


def fitting_horizons(period_days: float, horizons: Sequence[int]) -> list[int]:
    """Those that a period is long enough for."""
    return [days for days in horizons if days <= period_days + _ROUNDING]


def in_words(facts: Mapping[str, Any]) -> list[str]:
    """What a person reads of `facts["timing"]`, line by line."""
    if facts.get("reason"):
        return [f"no forecasts: {facts['reason']}"]
    shares = ", ".join(f"{100 * w:.0f} % {n}" for n, w in facts["weights"].items() if w > 0)
    lines = [f"timing = {shares}"]
    found = facts.get("scores", {}).get("blend")
    if found:
        told = [
            f"{days} days: said {100 * found[f'p_buy_{days}d']:.1f} %, "
            f"came {100 * found[f'bought_{days}d']:.1f} %, "
            f"calibration error {found[f'ece_{days}d']:.3f}"
            for days in facts["horizons"]
        ]
        lines.append(
            f"when, on {facts['num_users']:,} customers and {facts['test_days']:.0f} days: "
            f"log-likelihood {found['log_likelihood']:.3f}, "
            f"{100 * found['coverage_80']:.0f} % inside 80 % intervals"
        )
        lines += [f"buys within {each}" for each in told]
    lines += [f"{name} was left out: {why}" for name, why in facts["left_out"].items()]
    return lines
