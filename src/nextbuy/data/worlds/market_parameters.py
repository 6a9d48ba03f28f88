"""The laws of `world:market`: every number that purchases are drawn from.

Legend: K segments of users, P platforms, I items, 4 seasons.

A user belongs to a hidden segment z, drawn from `prior`. The first purchase is uniform in the
first `ARRIVAL_DAYS`; each next one comes after a gap whose logarithm, in days, is normal with mean
`gap_mean`[z] and standard deviation `gap_spread`[z], until the span ends. What is bought at time t,
after a purchase on platform l, is item i of platform p(i) with probability

    a_z R(i | history, t) + (b_z T_z[l, p(i)] + c_z sum_s h_s(t) S_zs[p(i)]) q(i)

and for the first purchase with sum_s h_s(t) S_zs[p(i)] q(i). Here q is the popularity of the item
inside its platform, (a, b, c) = `mixture`[z], T = `habits`, S = `seasons`. R buys again: each of
the last `MEMORY` purchases proposes its item with a weight that peaks when its category's cadence
has passed,

    exp(-(ln(age / cadence) / KERNEL_WIDTH)^2 / 2) + KERNEL_FLOOR,

divided by the sum of the weights. The seasons h_s(t) = (1 + cos(2 pi (t / year - s / 4)))^2 / 6
are smooth, at least 0, and sum to 1.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextbuy import columns
from nextbuy.data.worlds.platforms import load_platforms
from nextbuy.errors import ConfigError
from nextbuy.seeding import generator

Float64 = NDArray[np.float64]
Index = NDArray[np.int64]

START: Final = datetime(2023, 1, 1, tzinfo=UTC)
START_US: Final = int(START.timestamp()) * 1_000_000
DAY_US: Final = 86_400_000_000
SPAN_DAYS: Final = 730.0
ARRIVAL_DAYS: Final = 500.0
MEMORY: Final = 32
NUM_SEASONS: Final = 4
YEAR_DAYS: Final = 365.25
KERNEL_WIDTH: Final = 0.12
KERNEL_FLOOR: Final = 0.003

_TRAITS: Final = {
    "membership": (4, 30.0, 250.0),
    "marketplace": (150, 45.0, 900.0),
    "food delivery": (60, 7.0, 350.0),
    "restaurant": (40, 14.0, 450.0),
    "fashion": (100, 60.0, 1_500.0),
    "streaming": (4, 30.0, 250.0),
    "travel": (40, 10.0, 2_000.0),
    "entertainment": (25, 21.0, 500.0),
    "electronics": (80, 120.0, 8_000.0),
    "grocery": (120, 7.0, 400.0),
    "outdoor": (60, 90.0, 2_500.0),
    "pharmacy": (80, 30.0, 500.0),
    "sportswear": (80, 75.0, 3_000.0),
    "accessories": (60, 75.0, 1_800.0),
    "beauty": (90, 35.0, 700.0),
    "home": (70, 90.0, 1_500.0),
    "footwear": (60, 75.0, 3_500.0),
}
"""Of a category: items on each platform, days between repeats, median price in rupees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketConfig:
    """How many users buy, and of how many hidden kinds they are."""

    num_users: int = 20_000
    num_segments: int = 6

    def __post_init__(self) -> None:
        if self.num_users < 1 or self.num_segments < 1:
            raise ConfigError(
                f"A market needs at least 1 user and 1 segment, asked for were "
                f"{self.num_users} users and {self.num_segments} segments."
            )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MarketParameters:
    """Everything that the formulas at the top of this module name.

    Attributes:
        items: Columns `item_id`, `platform`, `category`; row i is the world's item i, items of a
            platform lie together.
        platform_of: Platform of each item, length I.
        popularity: q, length I; sums to 1 inside each platform.
        log_cadence: ln of the days between repeats, length I.
        price: Of each item, length I.
        prior: Share of each segment, length K.
        gap_mean: Mean of ln(gap in days), length K.
        gap_spread: Standard deviation of ln(gap in days), length K.
        mixture: Rows a, b, c, shape [3, K]; columns sum to 1.
        habits: T, shape [K, P, P]; last platform to next.
        seasons: S, shape [K, 4, P].
    """

    items: pl.DataFrame
    platform_of: Index
    popularity: Float64
    log_cadence: Float64
    price: Float64
    prior: Float64
    gap_mean: Float64
    gap_spread: Float64
    mixture: Float64
    habits: Float64
    seasons: Float64


def draw_parameters(config: MarketConfig, seed: int) -> MarketParameters:
    """The laws of the market `seed`; they do not depend on the number of users."""
    rng = generator(seed, "world:market", "parameters")
    platforms = load_platforms()
    num_segments, num_platforms = config.num_segments, platforms.height
    sizes = np.array([_TRAITS[category][0] for category in platforms[columns.CATEGORY]])
    platform_of = np.repeat(np.arange(num_platforms), sizes)
    rank = np.concatenate([np.arange(1, size + 1) for size in sizes])
    zipf = rank**-1.4
    sold = platforms[platform_of]
    items = sold.select(
        (pl.col(columns.PLATFORM) + " " + pl.Series(rank).cast(pl.String)).alias(columns.ITEM),
        columns.PLATFORM,
        columns.CATEGORY,
    )
    traits = np.array([_TRAITS[category] for category in items[columns.CATEGORY]])
    return MarketParameters(
        items=items,
        platform_of=platform_of,
        popularity=zipf / np.bincount(platform_of, weights=zipf)[platform_of],
        log_cadence=np.log(traits[:, 1]),
        price=np.round(traits[:, 2] * rng.lognormal(0.0, 0.5, size=len(items)), 2),
        prior=rng.dirichlet(np.full(num_segments, 8.0)),
        gap_mean=np.log(rng.permutation(np.geomspace(3.0, 14.0, num_segments))),
        gap_spread=rng.uniform(0.4, 0.9, num_segments),
        mixture=rng.dirichlet([75.0, 33.0, 12.0], num_segments).T,
        habits=rng.dirichlet(np.full(num_platforms, 0.03), (num_segments, num_platforms)),
        seasons=_draw_seasons(num_segments, num_platforms, rng),
    )


def _draw_seasons(num_segments: int, num_platforms: int, rng: np.random.Generator) -> Float64:
    """Each segment likes some platforms; each season lifts some of them. All stay possible."""
    liked = rng.dirichlet(np.full(num_platforms, 0.5), num_segments)
    lift = rng.lognormal(0.0, 1.0, (num_segments, NUM_SEASONS, num_platforms))
    seasons = liked[:, None, :] * lift
    seasons /= seasons.sum(axis=-1, keepdims=True)
    mixed: Float64 = 0.95 * seasons + 0.05 / num_platforms
    return mixed


def season_shares(days: Float64) -> Float64:
    """h_s at moments in days since `START`, one more axis of length 4 at the end."""
    phase = 2 * np.pi * (days[..., None] / YEAR_DAYS - np.arange(NUM_SEASONS) / NUM_SEASONS)
    shares: Float64 = (1 + np.cos(phase)) ** 2 / 6
    return shares


def repeat_weights(ages: Float64, log_cadence: Float64) -> Float64:
    """How strongly a purchase of some age in days (above 0) proposes its item again."""
    log_ratio = (np.log(ages) - log_cadence) / KERNEL_WIDTH
    return np.exp(-0.5 * log_ratio**2) + KERNEL_FLOOR
