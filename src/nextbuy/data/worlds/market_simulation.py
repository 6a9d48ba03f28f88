"""Draws purchases from the laws of `world:market`, all users of a block at once.

Legend: B users, M = MEMORY remembered purchases. Times are days since START.
"""

from dataclasses import dataclass

import numpy as np

from nextbuy.data.worlds.market_parameters import (
    ARRIVAL_DAYS,
    MEMORY,
    SPAN_DAYS,
    Float64,
    Index,
    MarketParameters,
    repeat_weights,
    season_shares,
)


@dataclass(slots=True, eq=False, kw_only=True)
class Users:
    """Where each user of a block stands; `draw_next` reads it, `remember` moves it on.

    Attributes:
        segments: Length B.
        days: Times of the remembered purchases, a ring, shape [B, M].
        items: Their items, shape [B, M].
        counts: Purchases so far, length B; the last one is at ring position (count - 1) mod M.
    """

    segments: Index
    days: Float64
    items: Index
    counts: Index

    @classmethod
    def new(cls, segments: Index) -> "Users":
        """Users who have not bought yet."""
        size = (len(segments), MEMORY)
        return cls(
            segments=segments,
            days=np.zeros(size),
            items=np.zeros(size, dtype=np.int64),
            counts=np.zeros(len(segments), dtype=np.int64),
        )

    def take(self, rows: Index) -> "Users":
        """Some of the users."""
        return Users(
            segments=self.segments[rows],
            days=self.days[rows],
            items=self.items[rows],
            counts=self.counts[rows],
        )

    def remember(self, days: Float64, items: Index) -> None:
        """Everybody has bought once more."""
        row, slot = np.arange(len(items)), self.counts % MEMORY
        self.days[row, slot] = days
        self.items[row, slot] = items
        self.counts += 1


def simulate(
    parameters: MarketParameters, num_users: int, rng: np.random.Generator
) -> tuple[Index, Float64, Index, Index]:
    """All purchases of new users, sorted by user and time.

    Returns:
        User (0, 1, ...), time in days and item of each purchase; and the segment of each user.
    """
    segments = rng.choice(len(parameters.prior), size=num_users, p=parameters.prior)
    users, who = Users.new(segments), np.arange(num_users)
    rows: list[tuple[Index, Float64, Index]] = []
    while len(who):
        days = next_days(parameters, users, rng)
        inside = np.flatnonzero(days < SPAN_DAYS)
        if len(inside) < len(who):
            users, who, days = users.take(inside), who[inside], days[inside]
        items = next_items(parameters, users, days, rng)
        users.remember(days, items)
        rows.append((who, days, items))
    owners, days, items = (np.concatenate(part) for part in zip(*rows, strict=True))
    order = np.argsort(owners, kind="stable")
    return owners[order], days[order], items[order], segments


def next_days(parameters: MarketParameters, users: Users, rng: np.random.Generator) -> Float64:
    """When each user buys next, perhaps after the end of the span."""
    row = np.arange(len(users.counts))
    last = users.days[row, (users.counts - 1) % MEMORY]
    normal = rng.standard_normal(len(row))
    gap = np.exp(
        parameters.gap_mean[users.segments] + parameters.gap_spread[users.segments] * normal
    )
    first = rng.uniform(0.0, ARRIVAL_DAYS, len(row))
    return np.where(users.counts == 0, first, last + gap)


def next_items(
    parameters: MarketParameters, users: Users, days: Float64, rng: np.random.Generator
) -> Index:
    """What each user buys at the given time, length B."""
    row = np.arange(len(days))
    a, b, _ = parameters.mixture[:, users.segments]
    part = rng.random(len(days))
    is_first = users.counts == 0
    again = np.flatnonzero((part < a) & ~is_first)
    habit = np.flatnonzero((part >= a) & (part < a + b) & ~is_first)
    platforms = _seasonal_platforms(parameters, users.segments, days, rng)
    last = users.items[row, (users.counts - 1) % MEMORY]
    last_platform = parameters.platform_of[last[habit]]
    habits = parameters.habits[users.segments[habit], last_platform]
    platforms[habit] = _draw_columns(habits, rng)
    items = _popular_items(parameters, platforms, rng)
    items[again] = _repeated_items(parameters, users.take(again), days[again], rng)
    return items


def _seasonal_platforms(
    parameters: MarketParameters, segments: Index, days: Float64, rng: np.random.Generator
) -> Index:
    season = _draw_columns(season_shares(days), rng)
    return _draw_columns(parameters.seasons[segments, season], rng)


def _popular_items(
    parameters: MarketParameters, platforms: Index, rng: np.random.Generator
) -> Index:
    """An item of each platform by its popularity: one search in all platforms laid end to end."""
    ends = np.cumsum(parameters.popularity)
    first = np.searchsorted(parameters.platform_of, np.arange(parameters.habits.shape[-1] + 1))
    total = np.concatenate([[0.0], ends])[first]
    wanted = total[platforms] + rng.random(len(platforms)) * np.diff(total)[platforms]
    found = np.searchsorted(ends, wanted, side="right")
    return np.clip(found, first[platforms], first[platforms + 1] - 1)


def _repeated_items(
    parameters: MarketParameters, users: Users, days: Float64, rng: np.random.Generator
) -> Index:
    used = np.arange(MEMORY) < users.counts[:, None]
    ages = np.where(used, days[:, None] - users.days, 1.0)
    weights = np.where(used, repeat_weights(ages, parameters.log_cadence[users.items]), 0.0)
    return users.items[np.arange(len(days)), _draw_columns(weights, rng)]


def _draw_columns(weights: Float64, rng: np.random.Generator) -> Index:
    """One column of each row, with probability proportional to its weight."""
    sums = np.cumsum(weights, axis=1)
    wanted = rng.random(len(weights)) * sums[:, -1]
    return np.asarray((sums[:, :-1] <= wanted[:, None]).sum(axis=1))
