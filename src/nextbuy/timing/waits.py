"""What came of an outlook: how long each user took to buy again, or how long nothing was seen.

Legend: U users, N purchases.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import DAY, Histories, Int64
from nextbuy.errors import ConfigError
from nextbuy.timing.events import Float64, events_before


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Waits:
    """Days from a moment to each user's next purchase event.

    Attributes:
        days: To the next event, or to the end of observation; `nan` for a user who had not bought
            before the moment.
        observed: Whether the event was seen; if not, the wait is at least `days` (censored).
    """

    days: Float64
    observed: NDArray[np.bool_]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Users whose wait says something."""
        return ~np.isnan(self.days)

    def take(self, users: NDArray[np.integer]) -> "Waits":
        """Those of some users, in the order given."""
        return Waits(days=self.days[users], observed=self.observed[users])


def waits_after(histories: Histories, as_of: int | Int64, until: int | Int64) -> Waits:
    """Each user's wait from `as_of` on, seen until `until` (exclusive).

    A purchase on the calendar day of the last one before `as_of` belongs to that one, and ends no
    wait, as `events` has it.

    Raises:
        ConfigError: If a user is seen until before `as_of`.
    """
    events = events_before(histories, as_of)
    until_U = np.broadcast_to(np.asarray(until, dtype=np.int64), len(histories))
    if (until_U < events.as_of).any():
        raise ConfigError(
            f"Waits were asked until {until_U.min()}, which is before the moment they begin, "
            f"{events.as_of.max()}. Give a later end."
        )
    owners_N, times_N = histories.owners, histories.times
    bought_U = events.counts > 0
    last_day_U = np.where(bought_U, events.last() // DAY, -1)
    counts_N = (
        (times_N >= events.as_of[owners_N])
        & (times_N < until_U[owners_N])
        & (times_N // DAY != last_day_U[owners_N])
    )
    next_U = np.array(until_U)
    np.minimum.at(next_U, owners_N[counts_N], times_N[counts_N])
    days_U = np.where(bought_U, (next_U - events.as_of) / DAY, np.nan)
    observed_U = np.zeros(len(histories), dtype=bool)
    observed_U[owners_N[counts_N]] = True
    return Waits(days=days_U, observed=observed_U & bought_U)
