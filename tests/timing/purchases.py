"""Small logs of purchases on given days, for the tests of timing models."""

from datetime import UTC, datetime

import numpy as np

from nextbuy.data.histories import Histories
from nextbuy.timing.repeat_purchases import RepeatPurchases

DAY = 86_400_000_000
START = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


def moment(day):
    return START + round(day * DAY)


def bought_on(*days_of_users):
    """Histories of users who bought on these days (fractions are hours) since 2024-01-01."""
    return Histories.from_lists(
        [[1] * len(days) for days in days_of_users],
        times=[[moment(day) for day in days] for days in days_of_users],
    )


def counts_of(rows, weights=None):
    """Counts of (x, t_x, T)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    w = np.ones(len(table)) if weights is None else np.array(weights, dtype=np.float64)
    return RepeatPurchases(repeats=table[:, 0], last=table[:, 1], age=table[:, 2], weights=w)


def simulated_counts(rng, num_users, rate_of, dropout_of, age):
    """x, t_x, T of users with own rates; `dropout_of(rng, num_users)` gives a function of (user,
    number of the purchase) that says whether the user drops out after it (0 is the first)."""
    rates, drops = rate_of(rng, num_users), dropout_of(rng, num_users)
    rows = []
    for user in range(num_users):
        x, last, now = 0, 0.0, 0.0
        while not drops(user, x):
            now += rng.exponential(1 / rates[user])
            if now > age:
                break
            x, last = x + 1, now
        rows.append((x, last, age))
    return counts_of(rows)
