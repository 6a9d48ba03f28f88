"""A challenger learns from what the bundle knew and what the store got, each purchase once."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.data.encoding import encode
from nextbuy.data.histories import DAY
from nextbuy.data.reading import read_purchases
from nextbuy.data.recoding import in_catalog
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.opening import open_store
from nextbuy.service.store.protocol import Submission
from nextbuy.service.watching.whole_log import whole_log

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
END = int((FIRST + timedelta(days=60)).timestamp()) * 10**6


def log(**more):
    """Ten users who buy two things every five days, for sixty days."""
    rows = [
        (f"u{user}", item, FIRST + timedelta(days=day + user / 24), platform, kind, 2.0)
        for user in range(10) for day in range(0, 60, 5)
        for item, platform, kind in (("tea", "app", "drinks"), ("soap", "web", "home"))
    ]  # fmt: skip
    names = ["user_id", "item_id", "timestamp", "platform", "category", "price"]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(**more)


@pytest.fixture(scope="module")
def bundles():
    """Of each kind, in which only the most basic things are fitted."""
    config = PredictorConfig(models=("popularity",), time_limit=20)
    basket = pl.format("{}-{}", "user_id", pl.col("timestamp").dt.date())
    return {
        "timestamp": Predictor.fit(log(), config=config),
        "column": Predictor.fit(log(basket_id=basket), config=config),
        "category": Predictor.fit(log(), config=config.model_copy(update={"level": "category"})),
    }


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "live.db"))
    yield store
    store.close()


def send(store, *purchases):
    submission = Submission(
        key=str(store.last_sequence()), digest=b"1", purchases=purchases, received=END
    )
    assert not store.write([submission])[0].is_repeat


def live(user, item, day, **more):
    return LivePurchase(user_id=user, item_id=item, timestamp=END + round(day * DAY), **more)


def histories_of(found, bundle):
    purchases = read_purchases(found.frame, found.options)
    assert purchases.rejects.is_empty()
    return encode(purchases, level=bundle.config.level)


@pytest.mark.parametrize("kind", ["timestamp", "column", "category"])
def test_an_empty_store_gives_the_bundles_own_log(bundles, store, kind):
    bundle = bundles[kind]
    found = whole_log(bundle, store)
    again = histories_of(found, bundle)
    same = in_catalog(again.histories, again.catalog, bundle.catalog)
    for name in ("items", "times", "baskets", "offsets", "prices"):
        assert (getattr(same, name) == getattr(bundle.histories, name)).all(), name
    assert same.user_ids.to_list() == bundle.histories.user_ids.to_list()
    assert (found.store_sequence, found.num_live) == (0, 0)


def test_live_purchases_follow_and_a_told_basket_is_one(bundles, store):
    send(store, live("u1", "tea", 1, platform="app", basket_id="b"),
         live("u1", "novelty", 1.5, platform="app", category="drinks", basket_id="b"))  # fmt: skip
    send(store, live("new", "soap", 2, platform="web", price=3.0, quantity=2.0))
    found = whole_log(bundles["timestamp"], store)
    again = histories_of(found, bundles["timestamp"])
    assert (found.num_stored, found.num_live, found.store_sequence) == (240, 3, 3)
    mine = again.histories.of_users(["u1", "new"])
    names = [row["item_id"] for row in again.catalog.ids(mine.items).to_dicts()]
    assert sorted(names[24:26]) == ["novelty", "tea"]
    assert mine.baskets[:26].tolist() == [n // 2 for n in range(26)]
    assert names[26:] == ["soap"]
    assert mine.prices[26] == 3.0


def test_what_bundle_and_store_both_have_counts_once(bundles, store):
    row = log().filter(user_id="u3")[-1].to_dicts()[0]
    moment = round(row["timestamp"].timestamp() * 10**6 - END) / DAY
    send(store, live("u3", row["item_id"], moment, platform=row["platform"]))
    send(store, live("u3", row["item_id"], moment + 1, platform=row["platform"]))
    found = whole_log(bundles["timestamp"], store)
    assert (found.num_stored, found.num_live) == (239, 2)


def test_who_was_forgotten_is_not_learnt_from_again(bundles, store):
    send(store, live("u2", "tea", 1, platform="app"))
    store.forget("u2")
    assert "u2" not in whole_log(bundles["timestamp"], store).frame["user_id"].to_list()
    send(store, live("u2", "tea", 3, platform="app"))  # comes back, as somebody new
    found = whole_log(bundles["timestamp"], store).frame.filter(user_id="u2")
    assert found.height == 1
