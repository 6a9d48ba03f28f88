"""What is known of each purchase event, for a network that foretells the next one.

All of it is known at the event, and nothing of what came after. Logarithms are of standard size
over the log on which the model is fitted.

Legend: U users, E events, F features, N purchases.
"""

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextbuy.data.histories import DAY, Float32, Histories
from nextbuy.timing import stored
from nextbuy.timing.events import (
    Events,
    Float64,
    event_of_each_purchase,
    value_of_each_event,
)

NUM_FEATURES: Final = 20
MEAN_GAP: Final = 4
"""The feature that guesses the next gap."""

_SEASON: Final = slice(17, 20)
_YEAR_DAYS: Final = 365.25
_LEAST_SPREAD: Final = 0.1
_LONGEST: Final = 8.0
"""Standard sizes are cut there, so that no odd event is far from what was learnt."""

_SHORTEST_DAYS: Final = 1e-4


class Scale(stored.Stored):
    """Mean and standard deviation of a logarithm."""

    mean: float
    spread: float = Field(gt=0)

    @classmethod
    def of(cls, logs: Float64) -> Self:
        """Of the values that are finite; 0 and 1 if there are none."""
        known = logs[np.isfinite(logs)]
        if not len(known):
            return cls(mean=0.0, spread=1.0)
        return cls(mean=float(known.mean()), spread=max(float(known.std()), _LEAST_SPREAD))

    def standard(self, logs: Float64) -> Float64:
        """Logs in standard size, 0 where they are not finite."""
        standard = (logs - self.mean) / self.spread
        return np.clip(np.where(np.isfinite(logs), standard, 0.0), -_LONGEST, _LONGEST)


class Scales(stored.Stored):
    """Of gaps in days, of purchases in an event, and of money."""

    gap: Scale
    size: Scale
    value: Scale


def scales_of(histories: Histories, events: Events) -> Scales:
    """The scales of a log."""
    return Scales(
        gap=Scale.of(log_days(events.gaps()[0])),
        size=Scale.of(_log_sizes(histories, events)),
        value=Scale.of(_log_values(histories, events)),
    )


def event_features(histories: Histories, events: Events, scales: Scales) -> Float32:
    """Features of each event, [E, F].

    In this order: the gap since the event before, whether there was one, how many there were, the
    time since the first, mean and spread of the gaps so far; purchases and money; the weekday (7);
    hour, as sine and cosine; season, as sine and cosine of the year and sine of its half.
    """
    x_EF = np.zeros((len(events.times), NUM_FEATURES), dtype=np.float32)
    x_EF[:, :6] = _rhythm(events, scales.gap)
    x_EF[:, 6] = scales.size.standard(_log_sizes(histories, events))
    x_EF[:, 7] = scales.value.standard(_log_values(histories, events))
    days_E = events.times // DAY
    x_EF[np.arange(len(days_E)), 8 + (days_E + 3) % 7] = 1.0  # 1970-01-01 was a Thursday
    x_EF[:, 15:17] = _circle(events.times / DAY, 1.0)
    season = [_circle(events.times / DAY, _YEAR_DAYS / part) for part in (1.0, 2.0)]
    x_EF[:, _SEASON] = np.concatenate([season[0], season[1][:, :1]], axis=1)
    return x_EF


def without_season(x_EF: Float32, events: Events) -> Float32:
    """Features without the season, in place, where the log is shorter than a year: then each season
    was seen once at most, and what a network learns of it is the trend."""
    if np.ptp(events.times) < _YEAR_DAYS * DAY:
        x_EF[:, _SEASON] = 0.0
    return x_EF


def log_days(days: Float64) -> Float64:
    """Log of days, which are taken to be a few seconds at least."""
    return np.asarray(np.log(np.maximum(days, _SHORTEST_DAYS)))


def _rhythm(events: Events, gap: Scale) -> Float64:
    """Gap, whether there is one, count, age, and mean and spread of the gaps so far, [E, 6].

    Mean and spread are shrunk towards those of all by one gap more, which is as all are.
    """
    starts_U, owners_E = events.offsets[:-1], events.owners
    place_E = np.arange(len(owners_E)) - starts_U[owners_E]
    y_E = np.zeros(len(owners_E))
    later_E = place_E > 0
    y_E[later_E] = gap.standard(log_days(events.gaps()[0]))
    age_E = (events.times - events.first()[owners_E]) / DAY
    sums_E, squares_E = (_sum_so_far(v, events) for v in (y_E, y_E**2))
    mean_E = sums_E / (place_E + 1)
    spread_E = np.sqrt(np.maximum((squares_E + 1.0) / (place_E + 1) - mean_E**2, 0.0))
    return np.stack(
        [y_E, later_E, np.log1p(place_E) / 2.0, np.log1p(age_E) / 3.0 - 1.0, mean_E, spread_E],
        axis=1,
    )


def _sum_so_far(values_E: Float64, events: Events) -> Float64:
    """Sum of a user's values up to each event, that of the event included."""
    sums = np.concatenate([[0.0], np.cumsum(values_E)])
    return np.asarray(sums[1:] - sums[events.offsets[:-1]][events.owners])


def _log_sizes(histories: Histories, events: Events) -> Float64:
    _, event_N = event_of_each_purchase(histories, events)
    return np.log1p(np.bincount(event_N, minlength=len(events.times)))


def _log_values(histories: Histories, events: Events) -> Float64:
    """`nan` where nothing above 0 is known."""
    if histories.prices is None:
        return np.full(len(events.times), np.nan)
    values_E = value_of_each_event(histories, events)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(values_E > 0, np.log(values_E), np.nan)


def _circle(days_E: Float64, period: float) -> NDArray[np.float64]:
    angles_E = 2.0 * np.pi * (days_E / period % 1.0)
    return np.stack([np.sin(angles_E), np.cos(angles_E)], axis=1)
