"""The laws of world:market once more, in plain Python, one user at a time."""

import math
from statistics import NormalDist

from nextbuy.data.worlds.market_parameters import START_US, MarketParameters

DAY_US = 24 * 60 * 60 * 1_000_000


def season(day):
    waves = [(1 + math.cos(2 * math.pi * (day / 365.25 - s / 4))) ** 2 for s in range(4)]
    return [wave / sum(waves) for wave in waves]


def repeat_shares(laws: MarketParameters, history, day):
    """{item: P(item | it is bought again)} of a history [(day, item), ...]."""
    weights = {}
    for then, item in history[-32:]:
        off = (math.log(day - then) - laws.log_cadence[item]) / 0.12
        weights[item] = weights.get(item, 0) + math.exp(-(off**2) / 2) + 0.003
    total = sum(weights.values())
    return {item: weight / total for item, weight in weights.items()}


def item_probability(laws, z, history, day, item):
    platform = laws.platform_of[item]
    shares = season(day)
    seasonal = sum(shares[s] * laws.seasons[z, s, platform] for s in range(4))
    q = laws.popularity[item]
    if not history:
        return seasonal * q
    a, b, c = laws.mixture[:, z]
    last_platform = laws.platform_of[history[-1][1]]
    again = repeat_shares(laws, history, day).get(item, 0)
    return a * again + (b * laws.habits[z, last_platform, platform] + c * seasonal) * q


def gap_law(laws, z):
    return NormalDist(laws.gap_mean[z], laws.gap_spread[z])


def posterior(laws, history):
    """P(segment | history) by multiplying up, rescaled at each purchase."""
    belief = [float(share) for share in laws.prior]
    for n, (day, item) in enumerate(history):
        before = history[:n]
        for z in range(len(belief)):
            belief[z] *= item_probability(laws, z, before, day, item)
            if before:
                belief[z] *= gap_law(laws, z).pdf(math.log(day - before[-1][0]))
        belief = [share / sum(belief) for share in belief]
    return belief


def next_item(laws, history, days_and_weights, items):
    """P(item) of some items, given (weight, day) pairs for each segment that sum to 1."""
    return [
        sum(
            weight * item_probability(laws, z, history, day, item)
            for z, pairs in enumerate(days_and_weights)
            for weight, day in pairs
        )
        for item in items
    ]


def possible_days(laws, history, low, high, steps):
    """(weight, day) pairs for each segment: when the next purchase in [low, high) may be.

    The middle rule over ln(gap), weighted by the belief in the segment.
    """
    last = history[-1][0]
    pairs = []
    bottom = math.log(max(low - last, 1e-3))
    for z, share in enumerate(posterior(laws, history)):
        law = gap_law(laws, z)
        top = min(math.log(high - last), law.mean + 6 * law.stdev)
        width = (top - bottom) / steps
        middles = [bottom + (i + 0.5) * width for i in range(steps)] if width > 0 else []
        pairs.append([(share * law.pdf(x) * width, last + math.exp(x)) for x in middles])
    total = sum(weight for some in pairs for weight, _ in some)
    return [[(weight / total, day) for weight, day in some] for some in pairs]


def history_of(histories, user):
    rows = slice(histories.offsets[user], histories.offsets[user + 1])
    days = [(int(t) - START_US) / DAY_US for t in histories.times[rows]]
    return list(zip(days, histories.items[rows].tolist(), strict=True))
