"""`POST /v1/purchases`: stored before it is answered, once a key."""

import asyncio
from concurrent.futures import Future

import pytest

from nextbuy.errors import StoreError, StoreUnavailableError
from nextbuy.service.store.protocol import Receipt, Submission
from tests.service.doubles import NOW


def test_a_purchase_is_stored_and_the_next_answer_changes(service):
    before = service.post("/v1/predict", {"users": ["ann"], "k": 1}).json()
    assert before["answers"][0]["offers"][0]["item_id"] == "rice"
    told = service.post("/v1/purchases", {"purchase": {"user_id": "ann", "item_id": "salt"}})
    assert told.status_code == 200, told.text
    assert told.json() == {"stored": 1, "first_sequence": 1, "repeated": False}
    after = service.post("/v1/predict", {"users": ["ann"], "k": 1}).json()
    assert after["answers"][0]["offers"][0]["item_id"] == "salt"
    assert after["answers"][0]["offers"][0]["probability"] == 2 / 4
    assert service.store.rows[0].purchase.timestamp == NOW


ONE = {"purchase": {"user_id": "ann", "item_id": "salt", "price": 2}}


def post(service, body, key=None):
    return service.post("/v1/purchases", body, headers={"Idempotency-Key": key} if key else {})


def test_several_purchases_are_numbered_in_order(service):
    rows = [{"user_id": "ann", "item_id": item} for item in ("tea", "rice", "salt")]
    post(service, ONE)
    assert post(service, {"purchases": rows}).json() == {
        "stored": 3, "first_sequence": 2, "repeated": False,
    }  # fmt: skip
    assert [row.purchase.item_id for row in service.store.rows] == ["salt", "tea", "rice", "salt"]


def test_all_of_a_purchase_is_kept(service):
    told = {
        "user_id": "0012", "item_id": "tea", "timestamp": "2026-02-28T23:00:00Z",
        "platform": "web", "category": "drinks", "price": -1.5, "quantity": 0.5, "basket_id": "b1",
    }  # fmt: skip
    post(service, {"purchase": told})
    shown = service.call("GET", "/v1/users/0012").json()["purchases"]
    del told["user_id"]
    assert shown == [{"sequence": 1, **told}]


def test_S22_the_same_key_and_body_is_stored_once(service):
    told = [post(service, ONE, "order-1").json() for _ in range(3)]
    assert [one["repeated"] for one in told] == [False, True, True]
    assert {one["first_sequence"] for one in told} == {1}
    assert len(service.store.rows) == 1


def test_S22_the_same_key_sent_100_times_at_once_is_stored_once(service):
    async def ask(client):
        sent = [
            client.post("/v1/purchases", json=ONE, headers={"Idempotency-Key": "k"})
            for _ in range(100)
        ]
        return await asyncio.gather(*sent)

    told = service.together(ask)
    assert {one.status_code for one in told} == {200}
    assert sum(not one.json()["repeated"] for one in told) == 1
    assert len(service.store.rows) == 1


def test_S22_the_same_body_laid_out_otherwise_is_the_same(service):
    post(service, ONE, "order-1")
    raw = b'{ "purchase": {"price": 2.0, "item_id": "s\\u0061lt", "user_id": "ann"} }'
    assert service.send(raw, Idempotency_Key="order-1").json()["repeated"] is True


@pytest.mark.parametrize(
    "other",
    [
        {"purchase": {"user_id": "ann", "item_id": "salt", "price": 3}},
        {"purchase": {"user_id": "ann", "item_id": "salt"}},
        {"purchases": [ONE["purchase"]] * 2},
    ],
)
def test_S22_the_same_key_with_another_body_is_a_conflict(service, other):
    post(service, ONE, "order-1")
    told = post(service, other, "order-1")
    assert told.status_code == 409
    assert told.headers["content-type"] == "application/problem+json"
    assert len(service.store.rows) == 1


def test_without_a_key_equal_purchases_are_two(service):
    post(service, ONE)
    assert post(service, ONE).json()["repeated"] is False
    assert len(service.store.rows) == 2


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 129, "a\tb"])
def test_a_key_is_up_to_128_visible_characters(service, key):
    told = service.post("/v1/purchases", ONE, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert told.status_code == 422
    assert told.json()["errors"][0]["field"] == "header.Idempotency-Key"
    assert post(service, ONE, "~" * 128).status_code == 200


def test_S26_a_store_that_is_away_is_told_with_when_to_come_back(service):
    service.store.trouble = StoreUnavailableError("disk full at /var/secret", 2.5)
    told = post(service, ONE)
    assert (told.status_code, told.headers["retry-after"]) == (503, "3")
    assert "secret" not in told.text
    service.store.trouble = None
    assert post(service, ONE).status_code == 200


def test_S27_a_store_that_cannot_be_used_takes_nothing_and_reads_go_on(service):
    service.store.trouble = StoreError("read-only")
    told = post(service, ONE)
    assert told.status_code == 503
    assert "retry-after" not in told.headers
    assert service.post("/v1/predict", {"users": ["ann"]}).status_code == 200


def test_nothing_is_acknowledged_before_it_is_stored(service):
    committer = service.parts.committer
    held: list[Submission] = []
    promised: Future[Receipt] = Future()

    def submit(submission):
        held.append(submission)
        return promised

    committer.submit = submit

    async def ask(client):
        answer = asyncio.ensure_future(client.post("/v1/purchases", json=ONE))
        while not held:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not answer.done()
        promised.set_result(Receipt(first_sequence=7, count=1, is_repeat=False))
        return await answer

    assert service.together(ask).json()["first_sequence"] == 7
