"""The chance to buy within D days: how many days of purchase there will be, and what each holds.

Let N be the number of a user's days with a purchase within D, and r the chance that such a day has
the target. A timing model tells w = P(N >= 1) and m = E[N]. With N = 0 with probability 1 - w and
else geometric from 1 on with mean m / w (the plainest law that has both),

    P(buy) = 1 - E[(1 - r)^N] = w r / (r + (1 - r) w / m).

Such a day has S items, each in the target with the probability q that the next purchase has:
r = 1 - (1 - q)^S. Neither the items of a day nor the days of a user are independent: who buys once
buys again, and a basket holds things that go together. What that does is learnt afterwards, see
`calibration`.

Legend: U users, H horizons, G targets.
"""

from typing import Final

import numpy as np

from nextbuy.data.histories import Histories
from nextbuy.timing.events import Float64, events_before

_DAYS_OF_ALL: Final = 5.0
"""Days with purchases that the mean over users weighs, beside a user's own."""


def basket_sizes(histories: Histories, as_of: int) -> Float64:
    """Expected purchases on a day with any, [U]: the user's mean, shrunk to that of all.

    Args:
        histories: With dates.
        as_of: Only purchases before it count, UTC microseconds.
    """
    days_U = events_before(histories, as_of).counts
    rows_U = np.bincount(histories.owners[histories.times < as_of], minlength=len(histories))
    mean = rows_U.sum() / max(int(days_U.sum()), 1)
    return np.asarray((rows_U + _DAYS_OF_ALL * mean) / (days_U + _DAYS_OF_ALL))


def day_chances(next_U: Float64, sizes_U: Float64) -> Float64:
    """r: the chance that a day with purchases has the target, [U].

    Args:
        next_U: q, probability that the next purchase is in the target.
        sizes_U: S, purchases on such a day.
    """
    return np.asarray(-np.expm1(sizes_U * np.log1p(-np.clip(next_U, 0.0, 1.0 - 1e-12))))


def buying_chances(within_U: Float64, expected_U: Float64, days_U: Float64) -> Float64:
    """P(buy) of the module, [U]; `nan` where the outlook is.

    Args:
        within_U: w, probability of any purchase within the horizon.
        expected_U: m, expected days with a purchase; taken as w where a model says less.
        days_U: r, see `day_chances`.
    """
    expected_U = np.maximum(expected_U, within_U)
    share_U = np.divide(within_U, expected_U, out=np.ones_like(within_U), where=expected_U > 0)
    below_U = days_U + (1.0 - days_U) * share_U
    return np.divide(within_U * days_U, below_U, out=0.0 * within_U, where=below_U > 0)
