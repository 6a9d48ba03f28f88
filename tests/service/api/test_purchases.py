"""`POST /v1/purchases`: stored before it is answered, once a key."""

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
