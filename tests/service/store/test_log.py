"""A bundle learns from a store, and says how far it has read."""

import json

import polars as pl
import pytest

from nextbuy.data.sources import load_source
from nextbuy.errors import EmptyDataError, StoreError
from nextbuy.predictor import Predictor
from nextbuy.service.store.log import read_store
from nextbuy.service.store.sqlite import SqliteStore
from tests.cli.conftest import run  # noqa: F401  (a fixture)
from tests.service.store.sending import bought, sent
from tests.shop import shop_log


@pytest.fixture
def path(tmp_path):
    """A store with the purchases of the shop, as a service would have it."""
    path = tmp_path / "live.db"
    store = SqliteStore(path)
    rows = shop_log().with_columns(pl.col("timestamp").dt.timestamp("us")).iter_rows()
    store.write(
        [
            sent(f"k{n}", bought(user, item, time, price=price))
            for n, (user, item, time, price) in enumerate(rows)
        ]
    )
    store.close()
    return path


def test_the_log_of_a_store_is_what_was_sent(path, monkeypatch):
    monkeypatch.setattr("nextbuy.service.store.log._PAGE", 100)
    log = read_store(str(path))
    assert log.frame.equals(shop_log().select("user_id", "item_id", "timestamp", "price"))
    assert log.name == f"store:{path}"
    assert log.facts["store_sequence"] == shop_log().height


def test_columns_are_there_when_one_purchase_has_them(tmp_path):
    store = SqliteStore(tmp_path / "live.db")
    more = {"timestamp": 10**15, "platform": "Zepto", "basket_id": "b1"}
    store.write([sent("k1", bought("ann", **more), bought("bob", timestamp=10**15))])
    log = read_store(str(tmp_path / "live.db"))
    assert log.frame.columns == ["user_id", "item_id", "timestamp", "platform", "basket_id"]
    assert log.frame["platform"].to_list() == ["Zepto", None]
    assert load_source(log).purchases.basket_kind == "column"
    store.close()


def test_forgotten_users_are_not_in_the_log_but_the_sequence_is_that_of_the_store(path):
    store = SqliteStore(path)
    last = store.last_sequence()
    assert store.forget("u59") > 0
    log = read_store(str(path))
    assert "u59" not in log.frame["user_id"]
    assert log.frame.height < last
    assert log.facts == {"store_sequence": last, "store_identity": store.identity()}
    store.close()


def test_what_is_bought_during_the_reading_is_for_the_next_time(path, monkeypatch):
    monkeypatch.setattr("nextbuy.service.store.log._PAGE", 200)
    store = SqliteStore(path)
    last = store.last_sequence()

    class Buying:
        """Buys whenever it is told of progress."""

        def start(self, name, total, done=0):
            assert total == last

        def advance(self, units, facts):
            store.write([sent(f"late{store.last_sequence()}", bought("late"))])

        def finish(self):
            pass

    log = read_store(str(path), Buying())
    assert log.frame.height == log.facts["store_sequence"] == last
    assert store.last_sequence() > last
    store.close()


def test_an_empty_store_and_none_are_said(tmp_path):
    SqliteStore(tmp_path / "live.db").close()
    with pytest.raises(EmptyDataError, match=r"live\.db has no purchases yet"):
        read_store(str(tmp_path / "live.db"))
    with pytest.raises(StoreError, match="is not there"):
        read_store(str(tmp_path / "other.db"))
    assert not (tmp_path / "other.db").exists()


def test_train_learns_from_a_store_while_a_service_runs(path, tmp_path, run):  # noqa: F811
    store = SqliteStore(path)
    models = ("--models", "popularity,personal-frequency", "--json")
    code, out, _ = run("train", f"store:{path}", "--out", tmp_path / "a", *models)
    assert code == 0
    assert json.loads(out)["rows"]["kept"] == shop_log().height
    predictor = Predictor.load(tmp_path / "a")
    assert predictor.facts["source"] == f"store:{path}"
    assert predictor.facts["store_sequence"] == store.last_sequence()
    assert predictor.facts["store_identity"] == store.identity()
    store.close()
