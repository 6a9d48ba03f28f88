"""When and who, with what was bought since; the history and the card of a bundle."""

import json

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nextbuy import Predictor
from nextbuy.data.encoding import encode
from nextbuy.data.options import ReadOptions
from nextbuy.data.sources import load_source
from nextbuy.errors import ConfigError
from nextbuy.predictor.audience import AudienceRequest
from nextbuy.service.live.bundles import LiveBundles
from nextbuy.service.live.paging import Place
from nextbuy.timing.forecaster import ForecastOptions
from tests.service.live.memory_store import MemoryStore
from tests.service.live.shops import DAY, LATE, NOW, bought, frame_of, full_log, moment, save

AS_OF = moment(100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    save(folder, full_log())
    return folder


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def live(folder, store):
    model = LiveBundles.open(folder, store, clock=lambda: NOW)
    yield model
    model.close()


LIVE = [
    bought("u1", "tea", 95, price=2.0),
    bought("u1", "tea", 95, price=4.0),
    bought("u1", "unheard of", 99, price=9.0),
    bought("new", "milk", 40),
    bought("new", LATE, 97),
    bought("u0", "soap", 60.5),
]


def whole_log():
    return pl.concat([full_log(), frame_of(LIVE)], how="diagonal")


def test_a_forecast_knows_what_was_bought_since_and_what_the_catalog_lacks(folder, live, store):
    live.bought(store.add(*LIVE))
    users = ["u1", "new", "u0", "u2", "nobody"]
    found, version = live.forecast(users, horizon_days=30)
    options = ReadOptions(baskets="timestamp")
    everything = encode(load_source(whole_log(), options=options).purchases).histories
    forecaster = Predictor.load(folder).forecaster
    expected = forecaster.table(everything.of_users(users), NOW, ForecastOptions(horizon_days=30))
    assert version == "000001"
    assert_frame_equal(found, expected, rel_tol=1e-6)
    assert found["p_buy_7d"].is_null().to_list() == [False] * 4 + [True]


def test_a_forecast_without_purchases_since_is_that_of_the_predictor(folder, live):
    users = ["u3", "u6", "u9"]
    found, _ = live.forecast(users, as_of=AS_OF)
    assert_frame_equal(found, Predictor.load(folder).forecast(users, as_of=AS_OF))


def test_an_audience_is_that_of_a_bundle_with_all_purchases(folder, live, store):
    live.bought(store.add(*LIVE))
    request = AudienceRequest(item="tea", within_days=14)
    found, version = live.audience(request, as_of=AS_OF)
    predictor = Predictor.load(folder)
    options = ReadOptions(baskets="timestamp")
    histories, _ = predictor.encode_histories(whole_log(), options)
    everything = encode(load_source(whole_log(), options=options).purchases).histories
    predictor.histories = histories
    predictor.forecaster.whole = lambda _: everything
    expected = predictor.audience(as_of=AS_OF, item="tea", within_days=14)
    assert version == "000001"
    assert "new" in set(found["user_id"])
    by_user = ["user_id", "probability", "expected_purchases", "expected_value"]
    assert_frame_equal(
        found.select(by_user).sort("user_id"), expected.select(by_user).sort("user_id"),
        rel_tol=1e-5,
    )  # fmt: skip


def test_an_audience_tells_its_progress_and_ends_when_told(live):
    request = AudienceRequest(item="tea", within_days=14)
    shares = []
    live.audience(request, progress=shares.append)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)

    def stop(share):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        live.audience(request, progress=stop)


def test_the_forgotten_are_in_no_audience_and_have_no_forecast(live, store):
    live.bought(store.add(bought("u1", "tea", 95)))
    request = AudienceRequest(item="tea", within_days=14)
    assert "u1" in set(live.audience(request)[0]["user_id"])
    store.forget("u1")
    live.forget("u1")
    assert "u1" not in set(live.audience(request)[0]["user_id"])
    assert live.forecast(["u1"])[0]["p_buy_7d"].is_null().all()


def test_a_forecast_needs_dates(tmp_path, store):
    log = full_log().sort("timestamp").select("user_id", "item_id")
    save(tmp_path, log, ReadOptions(time="order"))
    live = LiveBundles.open(tmp_path, store, clock=lambda: NOW)
    with pytest.raises(ConfigError, match="cannot forecast"):
        live.forecast(["u1"])
    with pytest.raises(ConfigError, match="cannot name audiences"):
        live.audience(AudienceRequest(item="tea", within_days=14))


def test_a_history_has_the_newest_of_both_parts_oldest_first(live, store):
    log = full_log().filter(pl.col("user_id") == "u1").sort("timestamp")
    live.bought(store.add(bought("u1", "unheard of", 99), bought("u1", "tea", 2.5)))
    found = live.history("u1", 10_000).purchases
    assert len(found) == log.height + 2
    times = [each.purchase.timestamp for each in found]
    assert times == sorted(times)
    assert {each.sequence for each in found} == {0, 1, 2}
    assert found[-1].purchase.item_id == "unheard of"
    stored = [each.purchase for each in found if each.sequence == 0]
    assert sorted(p.item_id for p in stored) == sorted(log["item_id"])
    assert {(p.item_id, p.platform, p.category) for p in stored} <= {
        ("tea", "web", "drink"), ("milk", "web", "drink"), ("bread", "app", None),
        ("rice", "app", None), ("soap", "web", "care"), ("0042", None, None),
    }  # fmt: skip
    assert live.history("u1", 1).purchases == found[-1:]
    assert live.history("nobody", 5).total == 0


def test_the_pages_of_a_history_are_the_history_whatever_is_told_between_them(live, store):
    """Three of one moment in a page of two; later ones and one of long ago come meanwhile."""
    basket = [bought("u1", f"item {n}", 99) for n in range(3)]
    live.bought(store.add(bought("u1", "before", 98), *basket, bought("u1", "after", 99.5)))
    whole = live.history("u1", 10_000)
    pages, place = [live.history("u1", 2)], 0
    while (older := pages[-1].older) is not None:
        if place == 1:
            live.bought(store.add(bought("u1", "newest", 99.9), bought("u1", "oldest", -500)))
        pages.append(live.history("u1", 2, Place.of(str(older))))
        place += 1
    found = [each for page in reversed(pages) for each in page.purchases]
    assert found[0].purchase.item_id == "oldest"
    assert found[1:] == whole.purchases
    assert {len(page.purchases) for page in pages[:-1]} == {2}
    assert (pages[0].total, pages[-1].total) == (whole.total, whole.total + 2)


def test_pages_of_a_bundle_without_dates_have_live_purchases_last(tmp_path, store):
    log = full_log().sort("timestamp").select("user_id", "item_id")
    save(tmp_path, log, ReadOptions(time="order"))
    live = LiveBundles.open(tmp_path, store, clock=lambda: NOW)
    live.bought(store.add(bought("u1", "tea", -20_080), bought("u1", "soap", -20_090)))
    pages = [live.history("u1", 1)]
    while (older := pages[-1].older) is not None:
        pages.append(live.history("u1", 1, older))
    found = [page.purchases[0] for page in reversed(pages)]
    assert found == live.history("u1", 10_000).purchases
    assert [each.purchase.item_id for each in found[-2:]] == ["soap", "tea"]
    assert len(found) == log.filter(pl.col("user_id") == "u1").height + 2


def test_S50_without_a_bundle_the_store_tells_what_a_user_bought(tmp_path, store):
    live = LiveBundles.open(tmp_path, store, clock=lambda: NOW)
    store.add(bought("u1", "soap", 95), bought("u2", "tea", 95), bought("u1", "tea", 90))
    page = live.history("u1", 10)
    assert [each.purchase.item_id for each in page.purchases] == ["tea", "soap"]
    assert (page.total, page.older, page.version) == (2, None, None)


def test_purchases_that_the_bundle_was_trained_on_are_not_counted_again(folder, store):
    live = LiveBundles(folder, store, clock=lambda: NOW)
    store.add(bought("u1", "tea", 95), bought("u1", "milk", 96))
    live.swap("latest")
    loaded = live._current.loaded
    before = live.history("u1", 10_000).total
    loaded.store_sequence = 1  # as if it had been trained from this store
    assert live.history("u1", 10_000).total == before - 1
    assert len(live._current.users.of(["u1"])[0][0].rows) == before - 1
    request = AudienceRequest(item="milk", within_days=14)
    assert live.audience(request)[0].height


def test_the_card_tells_what_answers_and_how_good_it_is(live):
    card = live.facts()
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert card["version"] == "000001"
    assert card["level"] == "item"
    known = full_log().filter(pl.col("item_id") != LATE)
    once_a_basket = known.unique(["user_id", "item_id", "timestamp"]).height
    assert card["sizes"] == {"items": 6, "users": 60, "purchases": once_a_basket}
    names = [row["model"] for row in card["models"]]
    assert names == ["popularity", "personal-frequency", "blend"]
    assert card["model"] == "blend"
    assert "personal-frequency" in card["blend"]
    assert all(np.isfinite(row["test"]["loss"]) for row in card["models"])
    assert card["protocol"]["split"] == "temporal"
    assert card["calibration"]
    assert card["store_sequence"] == 0
    assert card["created"]
    assert NOW - moment(0) == DAY * 100
