"""How good a ranking of users is for a campaign: precision, lift and gain at shares of them.

Users are taken from the highest score down; ties are broken by their position. Of n users the first
share s is the first round(s n), at least one.

Legend: U users, J parts.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nextbuy.metrics.ranking import Float64

NUM_PARTS: Final = 10


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Targeting:
    """What the first j tenths of the users hold, j = 1..J; `nan` where there is nothing to find.

    Attributes:
        precision: Share of them that bought.
        lift: Precision over the share of all users that bought.
        gain: Share of all buyers that is among them.
        revenue: Share of all the money that they paid; None where money is not known.
    """

    precision: Float64
    lift: Float64
    gain: Float64
    revenue: Float64 | None

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "precision": self.precision.tolist(),
            "lift": self.lift.tolist(),
            "gain": self.gain.tolist(),
            "revenue": None if self.revenue is None else self.revenue.tolist(),
        }


def targeting(
    scores: NDArray[np.floating],
    bought: NDArray[np.bool_] | Float64,
    values: Float64 | None = None,
    num_parts: int = NUM_PARTS,
) -> Targeting:
    """Precision, lift, gain and revenue of a ranking.

    Args:
        scores: The higher, the earlier; length U, at least 1.
        bought: Whether each user bought, or the chance of it, length U.
        values: Money that each paid, length U, `nan` unknown (counts as 0).
        num_parts: J.
    """
    order = np.argsort(-scores, kind="stable")
    sizes = np.maximum(np.round(len(order) * np.arange(1, num_parts + 1) / num_parts), 1)
    ends = sizes.astype(np.int64) - 1
    found = np.cumsum(np.asarray(bought, dtype=np.float64)[order])
    precision = found[ends] / sizes
    share = found[-1] / len(order)
    money = None
    if values is not None:
        money = _shares(np.cumsum(np.nan_to_num(values)[order]), ends)
    return Targeting(
        precision=precision,
        lift=precision / share if share else np.full(num_parts, np.nan),
        gain=_shares(found, ends),
        revenue=money,
    )


def _shares(sums: Float64, ends: NDArray[np.int64]) -> Float64:
    return sums[ends] / sums[-1] if sums[-1] else np.full(len(ends), np.nan)
