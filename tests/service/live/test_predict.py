"""What a shop sees of the live model: answers that follow its purchases."""

import asyncio
from datetime import timedelta

import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.service.live.bundles import LiveBundles
from nextbuy.service.live.protocol import Question
from nextbuy.service.purchases import LivePurchase
from tests.service.live.memory_store import MemoryStore
from tests.shop import EPOCH, ITEMS, shop_log

COUNTING = ("popularity", "personal-frequency")
NOW = int((EPOCH + timedelta(days=100)).timestamp() * 1e6)


def bought(user: str, item: str, days: float, **more: object) -> LivePurchase:
    moment = int((EPOCH + timedelta(days=days)).timestamp() * 1e6)
    return LivePurchase(user_id=user, item_id=item, timestamp=moment, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    Predictor.fit(shop_log(), config=PredictorConfig(models=COUNTING)).save(folder)
    return folder


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def live(folder, store):
    model = LiveBundles.open(folder, store, clock=lambda: NOW)
    yield model
    model.close()


def ask(live, *questions):
    return asyncio.run(live.predict(questions))


def test_a_user_of_the_log_is_answered_as_by_the_predictor(folder, live):
    (answer,) = ask(live, Question(user_id="u3", k=4))
    found = Predictor.load(folder).predict(["u3"], k=4)
    assert [offer.item_id for offer in answer.offers] == found["item_id"].to_list()
    assert [offer.probability for offer in answer.offers] == found["probability"].to_list()
    assert answer.version == "000001"
    assert not answer.fallback


def test_the_next_answer_knows_what_was_bought(live, store):
    (before,) = ask(live, Question(user_id="new"))
    live.bought(store.add(*(bought("new", "0042", 95 + n) for n in range(9))))
    (after,) = ask(live, Question(user_id="new"))
    assert before.fallback
    assert before.after_sequence == 0
    assert not after.fallback
    assert after.after_sequence == 9
    assert after.offers[0].item_id == "0042" != before.offers[0].item_id


def test_a_raw_history_is_answered_like_the_same_history_of_a_user(live, store):
    rows = tuple(bought("new", item, 80 + n) for n, item in enumerate(["tea", "tea", "milk"]))
    live.bought(store.add(*rows))
    by_id, raw = ask(live, Question(user_id="new"), Question(history=rows))
    assert by_id.offers == raw.offers
    assert raw.user_id is None


def test_S19_unknown_users_and_items_are_answered_and_told(live):
    rows = (bought("x", "nothing of the kind", 99.0), bought("x", "never seen", 99.5))
    nobody, strange = ask(live, Question(user_id="nobody"), Question(user_id="x", history=rows))
    assert nobody.fallback
    assert strange.fallback
    assert nobody.offers
    assert strange.ignored_items == ("nothing of the kind", "never seen")
    assert {offer.item_id for offer in nobody.offers} == set(ITEMS)
