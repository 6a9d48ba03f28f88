"""The page on a real live model: what it reads is what the model tells."""

import pytest

from nextbuy.data.catalog import Catalog
from nextbuy.service.live.bundles import LiveBundles
from tests.service.live.memory_store import MemoryStore
from tests.service.live.shops import NOW, bought, full_log, save
from tests.service.page.client import Client
from tests.service.page.doubles import app_of, parts_of
from tests.service.page.test_pages import words_of


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    save(folder, full_log())
    store = MemoryStore()
    live = LiveBundles.open(folder, store, clock=lambda: NOW)
    live.bought(store.add(bought("u1", "tea", 95, price=2.0), bought("new", "milk", 97)))
    catalog = Catalog.load(folder / "versions" / "000001" / "catalog.parquet")
    yield Client(app_of(parts_of(live, catalog=catalog, now=lambda: NOW)))
    live.close()


def page_of(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, response.text
    return words_of(response.text)


def test_the_card_has_all_its_parts(client):
    text = page_of(client, "/page/model")
    for part in ("of first offers were in the next basket", "version 000001", "customers 60",
                 "What it leans on", "how often this customer bought it personal-frequency",
                 "On average", "should hold 80 % of the returns", "Split: temporal",
                 "from purchases of 1 Jan 2025"):  # fmt: skip
        assert part in text


def test_live_purchases_are_seen_at_once(client):
    text = page_of(client, "/page/user?id=u1")
    assert "1 since the model was made" in text
    assert "one in ten is back by then" in text
    assert "expected spend within 90 days" in text
    text = page_of(client, "/page/user?id=new")
    assert "1 purchase, on 8 Apr 2025" in text
    assert "1 since the model was made" in text


def test_made_up_histories_are_answered(client):
    text = page_of(client, "/page/try?item=tea&days=9&item=tea&days=3&item=nothing&days=1")
    assert "count for nothing here: nothing" in text
    assert "bought 2x" in text
    assert "last 3 days ago" in text
