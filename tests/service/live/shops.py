"""Small shops and their bundles, and purchases that come later."""

from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import polars as pl

from nextbuy import Predictor, PredictorConfig
from nextbuy.data.options import ReadOptions
from nextbuy.predictor.timing_fit import MEMBERS
from nextbuy.service.purchases import LivePurchase
from tests.shop import EPOCH, shop_log

COUNTING = ("popularity", "personal-frequency")
TINY = {"lstm-rnn": {"embedding_size": 4, "lstm_size": 8, "rnn_size": 8}}
PLATFORMS = {"tea": "web", "milk": "web", "bread": "app", "rice": "app", "soap": "web"}
KINDS = {"tea": "drink", "milk": "drink", "soap": "care"}
LATE = "late"
DAY = 86_400_000_000
FIRST = int(EPOCH.timestamp() * 1e6)
NOW = FIRST + 100 * DAY


def moment(days: float) -> int:
    """UTC microseconds, so many days after the shop opened."""
    return FIRST + round(days * DAY)


def bought(user: str, item: str, days: float, **more: object) -> LivePurchase:
    told = {"platform": PLATFORMS.get(item), "category": KINDS.get(item)} | more
    return LivePurchase(user_id=user, item_id=item, timestamp=moment(days), **told)


def full_log(num_users: int = 60) -> pl.DataFrame:
    """The small shop with platforms and categories, whole days, and an item that is sold first in
    the last days, so that the catalog of a temporal split lacks it."""
    log = shop_log(num_users).with_columns(pl.col("timestamp").dt.truncate("1d"))
    late = pl.DataFrame(
        [(f"u{n}", LATE, EPOCH + timedelta(days=88), 2.0) for n in range(0, num_users, 3)],
        schema=log.schema, orient="row",
    )  # fmt: skip
    return pl.concat([log, late]).with_columns(
        platform=pl.col("item_id").replace_strict(PLATFORMS, default=None),
        category=pl.col("item_id").replace_strict(KINDS, default=None),
    )


def save(folder: Path, log: pl.DataFrame, read: ReadOptions | None = None, **config: object):
    """Train and save, with one timing model, which takes a second instead of five."""
    with patch.dict(MEMBERS, {"bg-nbd": MEMBERS["bg-nbd"]}, clear=True):
        predictor = Predictor.fit(
            log,
            config=PredictorConfig(**{"models": COUNTING, "refit": False} | config),
            options=read,
        )
    predictor.save(folder)
    return predictor


def frame_of(purchases: list[LivePurchase]) -> pl.DataFrame:
    """Live purchases as rows of a log."""
    columns = ("user_id", "item_id", "timestamp", "platform", "category", "price", "basket_id")
    types = dict.fromkeys(columns, pl.String) | {"timestamp": pl.Int64, "price": pl.Float64}
    rows = [tuple(getattr(p, name) for name in columns) for p in purchases]
    table = pl.DataFrame(rows, schema=types, orient="row")
    return table.with_columns(pl.from_epoch("timestamp", "us").dt.replace_time_zone("UTC"))
