"""What the parts do together: the real store, model, guard and page behind HTTP."""

import asyncio
import gc
import json
import threading
import tracemalloc
from contextlib import closing

import pytest

from nextbuy.data.histories import DAY
from nextbuy.errors import StoreUnavailableError
from nextbuy.service.observing import Observing
from nextbuy.service.store.opening import open_store
from nextbuy.service.store.protocol import ServedOffer
from nextbuy.service.store.sqlite import SqliteStore
from tests.service.assembled import using
from tests.service.doubles import NOW
from tests.service.watching.memory_store import MemoryStore


def served_users(folder):
    with closing(open_store(str(folder / "purchases.sqlite"))) as store:
        return [offer.user_id for offer in store.served(0)]


def test_the_waiting_answers_of_a_forgotten_user_are_never_written(shop_folder):
    """Answers wait up to a second; the user is forgotten before, and the rest written at the
    end."""

    async def ask(client):
        told = await client.post("/v1/predict", json={"users": ["u1", "u2", "u3"]})
        assert told.status_code == 200
        assert (await client.delete("/v1/users/u2")).status_code == 200

    using(ask, shop_folder, served_share=1.0, page=False)
    assert sorted(served_users(shop_folder)) == ["u1", "u3"]


def test_the_log_says_that_it_stops_and_that_it_has_stopped(tmp_path, caplog):
    caplog.set_level("INFO", "nextbuy.service.application")

    async def ask(client):
        body = {"purchase": {"user_id": "ann", "item_id": "tea"}}
        assert (await client.post("/v1/purchases", json=body)).status_code == 200
        assert caplog.messages == []

    using(ask, tmp_path)
    assert caplog.messages == ["stopping: what was accepted is stored first", "stopped"]


def test_bodies_that_were_refused_do_not_wait_for_the_collector(tmp_path):
    body = json.dumps({f"k{n}": 0 for n in range(80_000)}).encode()
    headers = {"Content-Type": "application/json"}

    async def ask(client):
        sizes = []
        for _ in range(2):
            for _ in range(10):
                refused = await client.post("/v1/purchases", content=body, headers=headers)
                assert refused.status_code == 400
            sizes.append(tracemalloc.get_traced_memory()[0])
        return sizes[1] - sizes[0]

    gc.disable()
    tracemalloc.start()
    try:
        assert using(ask, tmp_path) < 4 * len(body)  # ten would wait
    finally:
        tracemalloc.stop()
        gc.enable()


def test_answers_that_are_too_old_to_be_judged_are_deleted(shop_folder, monkeypatch):
    pruned, prune = threading.Event(), SqliteStore.prune_served

    def pruning(store, before):
        count = prune(store, before)
        pruned.set()
        return count

    monkeypatch.setattr(SqliteStore, "prune_served", pruning)
    with closing(open_store(str(shop_folder / "purchases.sqlite"))) as store:
        store.write_served([old_answer(days) for days in (91, 90.5, 89, 1)])

    async def ask(client):
        assert await asyncio.to_thread(pruned.wait, 10)

    using(ask, shop_folder, clock=lambda: NOW, page=False, watch_seconds=1_000)
    assert served_users(shop_folder) == ["days 89", "days 1"]


def old_answer(days):
    return ServedOffer(
        served=NOW - round(days * DAY), version="000001", user_id=f"days {days}",
        items=(("tea", None),), probabilities=(0.5,), after_sequence=0,
    )  # fmt: skip


@pytest.mark.parametrize("is_away", [False, True])
def test_a_store_that_cannot_delete_keeps_old_answers_until_it_can(is_away, caplog):
    asked = threading.Event()

    class Store(MemoryStore):
        def prune_served(self, before):
            asked.set()
            if is_away:
                raise StoreUnavailableError("away")
            return super().prune_served(before)

    class NoBundle:
        loaded = None

    store = Store()
    store.offers = [old_answer(91), old_answer(1)]
    observing = Observing(store, NoBundle(), lambda: NOW, share=0.0, seconds=1_000, days=90)
    assert asked.wait(10)
    observing.close()
    assert len(store.offers) == (2 if is_away else 1)
    assert ("Old answers stay in the store for now: away" in caplog.text) == is_away


def test_S36_no_answer_names_a_folder_of_the_machine(shop_folder, tmp_path):
    """With and without a bundle; who may swap models is told of files inside the folder alone."""
    empty = tmp_path / "empty"
    empty.mkdir()
    asked = (
        ("POST", "/v1/predict", {"users": ["u1"]}),
        ("POST", "/v1/forecast", {"users": ["u1"]}),
        ("POST", "/v1/audience", {"item": "tea", "within_days": 3}),
        ("GET", "/v1/users/u1", None),
        ("GET", "/v1/model", None),
        ("GET", "/health/ready", None),
        ("POST", "/v1/model", {"name": "000009"}),
    )

    async def ask(client):
        return [await client.request(method, path, json=body) for method, path, body in asked]

    told = [*using(ask, empty), *using(ask, shop_folder)]
    assert {answer.status_code for answer in told} == {200, 202, 404, 409, 503}
    assert [answer.text for answer in told if str(tmp_path) in answer.text] == []
