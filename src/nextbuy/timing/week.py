"""The hours of the week at which people buy, and time that runs as fast as they do.

A shop that is closed at night and on Saturdays sells nothing then, whoever is due. With r(t) the
rate of purchases in the hour of the week of t, over its mean, an outlook in even time becomes one
in the shop's time by

    P(no purchase within s) = S(integral of r from now to now + s),

and the density at s is that of S times r(now + s). A week is as long in both.

Legend: U users, H horizons, E events.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from nextbuy.data.histories import DAY, Int64
from nextbuy.timing import stored
from nextbuy.timing.events import Events, Float64
from nextbuy.timing.protocol import Outlook, horizons

_HOURS: Final = 168
_SHRUNK: Final = 10.0
"""An hour's rate is shrunk by so many purchases towards that of its day and of its hour of any day,
and those as much towards evenness."""

_MONDAY: Final = 4
"""1970-01-01 was a Thursday: the first Monday was the fifth."""


class Week(stored.Stored):
    """Rates of the hours of a week, Monday 00:00 UTC first; their mean is 1."""

    rates: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=_HOURS, max_length=_HOURS)
    ]

    @classmethod
    def of(cls, events: Events) -> Self | None:
        """The rates of a log; None if those of every other week do not foretell the hours of the
        weeks between them better than evenness does."""
        is_odd_E = (events.times // (7 * DAY)) % 2 == 1
        of_even = np.log(cls._counted(events.times[~is_odd_E]).rates)
        odd_hours = _hour_of_week(events.times[is_odd_E]).astype(np.int64)
        if not len(odd_hours) or of_even[odd_hours].mean() <= 0:
            return None
        return cls._counted(events.times)

    @classmethod
    def _counted(cls, times_E: Int64) -> Self:
        """Where only days are known, all hours of a day are alike."""
        hours_E = _hour_of_week(times_E).astype(np.int64)
        counts = np.bincount(hours_E, minlength=_HOURS).reshape(7, 24).astype(np.float64)
        if not (times_E % DAY).any():
            counts = np.repeat(counts.sum(axis=1, keepdims=True) / 24.0, 24, axis=1)
        total = counts.sum()
        by_day, by_hour = (_shares(counts.sum(axis=axis)) for axis in (1, 0))
        expected = np.outer(by_day, by_hour)
        rates = (counts + _SHRUNK * _HOURS * expected) / (total + _SHRUNK * _HOURS) * _HOURS
        return cls(rates=tuple((rates / rates.mean()).ravel().tolist()))

    def even_days(self, now_U: Int64, days: Float64) -> Float64:
        """Integral of the rate from now on, [U, H]; infinite as the days are."""
        start_U1 = _hour_of_week(now_U)[:, None]
        with np.errstate(invalid="ignore"):
            passed = self._passed(start_U1 + 24.0 * days) - self._passed(start_U1)
        return np.where(np.isfinite(days), np.maximum(passed, 0.0), days)

    def days(self, now_U: Int64, even_days: Float64) -> Float64:
        """The days whose `even_days` these are, [U, H]."""
        start_U1 = _hour_of_week(now_U)[:, None]
        reached = even_days + self._passed(start_U1)
        with np.errstate(invalid="ignore"):
            weeks = np.floor(reached / 7.0)
            hours = np.interp(reached - 7.0 * weeks, self._at_hours(), np.arange(_HOURS + 1.0))
            found = 7.0 * weeks + (hours - start_U1) / 24.0
        return np.where(np.isfinite(even_days), np.maximum(found, 0.0), even_days)

    def log_rates(self, now_U: Int64, days: Float64) -> Float64:
        """Log of the rate in so many days from now, [U, H]; 0 at infinity."""
        hours = _hour_of_week(now_U)[:, None] + 24.0 * days
        place = np.where(np.isfinite(hours), hours, 0.0) % _HOURS
        logs = np.log(self.rates)[np.minimum(place.astype(np.int64), _HOURS - 1)]
        return np.where(np.isfinite(hours), logs, 0.0)

    def _passed(self, hours: Float64) -> Float64:
        """Integral of the rate from the start of the week, in days."""
        weeks = np.floor(hours / _HOURS)
        rest = np.interp(hours - _HOURS * weeks, np.arange(_HOURS + 1.0), self._at_hours())
        return np.asarray(7.0 * weeks + rest)

    def _at_hours(self) -> Float64:
        passed = np.concatenate([[0.0], np.cumsum(self.rates)])
        return np.asarray(passed / passed[-1] * 7.0)


class WeeklyOutlook(Outlook):
    """An outlook in even time, told in the shop's.

    Attributes:
        even: The outlook in even time.
    """

    def __init__(self, even: Outlook, week: Week, now_U: Int64) -> None:
        self.even = even
        self._week, self._now = week, now_U

    def __len__(self) -> int:
        return len(self.even)

    def take(self, users: NDArray[np.integer]) -> "WeeklyOutlook":
        """See `Outlook.take`."""
        return WeeklyOutlook(self.even.take(users), self._week, self._now[users])

    def log_survival(self, days: Float64) -> Float64:
        """See `Outlook.log_survival`."""
        return self.even.log_survival(self._week.even_days(self._now, days))

    def log_density(self, days: Float64) -> Float64:
        """See `Outlook.log_density`."""
        even = self.even.log_density(self._week.even_days(self._now, days))
        return even + self._week.log_rates(self._now, days)

    def expected_purchases(self, days: ArrayLike) -> Float64:
        """See `Outlook.expected_purchases`."""
        return self.even.expected_purchases(self._week.even_days(self._now, horizons(days)))

    def p_active(self) -> Float64:
        """See `Outlook.p_active`."""
        return self.even.p_active()

    def days_to_next(self, probabilities: Sequence[float] = (0.1, 0.5, 0.9)) -> Float64:
        """See `Outlook.days_to_next`."""
        return self._week.days(self._now, self.even.days_to_next(probabilities))


def _hour_of_week(times: Int64) -> Float64:
    """Hours since Monday 00:00 UTC, in [0, 168)."""
    return np.asarray(((times - _MONDAY * DAY) % (7 * DAY)) / (DAY / 24.0))


def _shares(counts: Float64) -> Float64:
    """Shrunk towards evenness, sum 1."""
    return np.asarray((counts + _SHRUNK) / (counts.sum() + _SHRUNK * len(counts)))
