"""How good outlooks were, once it is known what came.

Legend: U users, Q probabilities, B bins, H horizons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nextbuy.metrics.calibration import Reliability, reliability
from nextbuy.timing.events import Float64
from nextbuy.timing.forecaster import QUANTILES
from nextbuy.timing.protocol import Outlook, log_likelihood
from nextbuy.timing.waits import Waits

_BINS: Final = 10
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scores:
    """What `score` found.

    Attributes:
        values: Plain numbers by name.
        log_likelihood: Of each known wait, [U].
        pit: See `pit_histogram`.
        reliability: Of the probability to buy within each horizon, by its days.
    """

    values: dict[str, float]
    log_likelihood: Float64
    pit: Float64
    reliability: dict[int, Reliability]


def score(outlook: Outlook, waits: Waits, period_days: float, horizons: Sequence[int]) -> Scores:
    """Scores of an outlook on what came within a period.

    Args:
        outlook: Of U users, from the moment at which the period begins.
        waits: Of the same users, seen until the end of the period.
        period_days: Its length.
        horizons: Days; those that do not fit into the period are left out.

    Returns:
        With the values `log_likelihood`, the mean over waits, censored ones included (density per
        day); `log_likelihood_per_event`, the same sum over waits that ended; `quantile_loss_p10`,
        `_p50`, `_p90` and their mean `quantile_loss`, in days, see `quantile_losses`;
        `coverage_80`, the share of waits between the 10 % and the 90 % quantile, of 80 % if the
        outlook is right; for each horizon of d days `brier_{d}d` and `ece_{d}d` of the probability
        to buy within it, its mean `p_buy_{d}d`, and `bought_{d}d`, the share that did.
    """
    known = np.flatnonzero(waits.known)
    outlook = outlook.take(known)
    days_U, observed_U = waits.days[known], waits.observed[known]
    worth_U = log_likelihood(outlook, days_U, observed_U)
    pit_B = pit_histogram(outlook.probability_within(days_U[:, None])[:, 0], observed_U)
    losses_Q = quantile_losses(outlook, days_U, period_days)
    names = [f"quantile_loss_p{100 * q:.0f}" for q in QUANTILES]
    values = {
        "log_likelihood": float(worth_U.mean()),
        "log_likelihood_per_event": float(worth_U.sum() / max(observed_U.sum(), 1)),
        "quantile_loss": float(losses_Q.mean()),
        **dict(zip(names, losses_Q.tolist(), strict=True)),
        "coverage_80": float(pit_B[1:-1].sum()),
    }
    bins: dict[int, Reliability] = {}
    for days in fitting_horizons(period_days, horizons):
        said_U = outlook.probability_within(float(days))[:, 0]
        did_U = observed_U & (days_U <= days)
        bins[days] = reliability(said_U, did_U)
        values[f"brier_{days}d"] = float(((said_U - did_U) ** 2).mean())
        values[f"ece_{days}d"] = bins[days].ece
        values[f"p_buy_{days}d"] = float(said_U.mean())
        values[f"bought_{days}d"] = float(did_U.mean())
    return Scores(values=values, log_likelihood=worth_U, pit=pit_B, reliability=bins)


def quantile_losses(outlook: Outlook, days_U: Float64, period_days: float) -> Float64:
    """Mean pinball loss of each of `QUANTILES`, in days, [Q].

    Scored is the wait up to the end of the period, y = min(wait, period): that is known of every
    user, also of those who were not seen again. Its quantiles are those of the wait, cut off at the
    period, so that nothing is gained by saying what is not believed:

        loss(y, x) = (q - [y < x]) (y - x),   x = min(quantile q of the wait, period)

    (Koenker and Bassett 1978). 0 is certain and right; for the median it is half of the mean
    absolute error.
    """
    said_UQ = np.minimum(outlook.days_to_next(QUANTILES), period_days)
    off_UQ = np.minimum(days_U, period_days)[:, None] - said_UQ
    return np.asarray(((np.array(QUANTILES) - (off_UQ < 0)) * off_UQ).mean(axis=0))


def pit_histogram(reached_U: Float64, observed_U: NDArray[np.bool_]) -> Float64:
    """Share of the waits in each tenth of the distribution that was said, [B], sum 1.

    If the outlook is right there is a tenth in each (the probability integral transform; Dawid
    1984). Much at both ends says that intervals are too narrow, much in the middle that they are
    too wide, much at the right end that people come later than was said.

    Args:
        reached_U: F of each wait, or of the part of it that was seen.
        observed_U: Whether the wait has ended. One that has not is anywhere in what is left, and
            counts in each bin by the share of that which lies there.
    """
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    reached_U = np.clip(reached_U, 0.0, 1.0)
    ended_B = np.bincount(
        np.minimum((reached_U[observed_U] * _BINS).astype(np.int64), _BINS - 1), minlength=_BINS
    )
    open_U1 = reached_U[~observed_U, None]
    left_U1 = np.maximum(1.0 - open_U1, 1e-12)
    beyond_UB = np.clip((edges[None, 1:] - open_U1) / left_U1, 0.0, 1.0)  # up to the end of a bin
    beyond_UB[:, -1] = 1.0
    open_B = np.diff(beyond_UB, axis=1, prepend=0.0).sum(axis=0)
    return np.asarray((ended_B + open_B) / max(len(reached_U), 1))


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
        lines += _in_words(facts, found)
    lines += [f"{name} was left out: {why}" for name, why in facts["left_out"].items()]
    return lines


def _in_words(facts: Mapping[str, Any], found: Mapping[str, float]) -> list[str]:
    """The scores of the blend, beside the limit and its members where they are stored."""
    limit = facts.get("limit") or {}

    def told(name: str, shape: str) -> str:
        beside = f" (limit {limit[name]:{shape}})" if name in limit else ""
        return f"{found[name]:{shape}}{beside}"

    parts = [f"log-likelihood a wait {told('log_likelihood', '.3f')}"]
    if "quantile_loss" in found:  # not in older bundles
        parts.append(f"quantile loss {told('quantile_loss', '.2f')} days")
    parts.append(f"{100 * found['coverage_80']:.0f} % inside 80 % intervals")
    when = f"{facts['num_users']:,} customers and {facts['test_days']:.0f} days"
    lines = [f"when, on {when}: {', '.join(parts)}"]
    lines += [
        f"buys within {days} days: said {100 * found[f'p_buy_{days}d']:.1f} %, "
        f"came {100 * found[f'bought_{days}d']:.1f} %, Brier {told(f'brier_{days}d', '.3f')}, "
        f"calibration error {found[f'ece_{days}d']:.3f}"
        for days in facts["horizons"]
    ]
    minus = [
        f"{name} {each['difference']:+.4f} ({each['low']:+.4f} to {each['high']:+.4f})"
        for name, each in (facts.get("blend_minus") or {}).items()
        if None not in each.values()
    ]
    if minus:
        lines.append(f"log-likelihood a wait of the blend, minus {', '.join(minus)}")
    return lines
