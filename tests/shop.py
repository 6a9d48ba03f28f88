"""A small shop with habits, as a frame: enough for every model to learn something in a second."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

ITEMS = ("tea", "milk", "bread", "rice", "soap", "0042")
EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


def shop_log(num_users: int = 60, seed: int = 1) -> pl.DataFrame:
    """Each user has two favourites among six items and buys one of them most of the time."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        favourites = rng.choice(ITEMS, 2, replace=False)
        day = rng.uniform(0, 5)
        while day < 90:
            item = rng.choice(favourites if rng.random() < 0.85 else ITEMS)
            rows.append((f"u{user}", str(item), EPOCH + timedelta(days=day), 1.5))
            day += rng.gamma(3.0, 2.0)
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "price"], orient="row")
