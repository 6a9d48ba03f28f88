"""`POST /v1/predict` and `/v1/forecast`."""

import math

import pytest

from nextbuy.errors import ConfigError, OverloadedError
from nextbuy.service.live.protocol import Answer, Offer
from tests.service.api.conftest import service_with
from tests.service.doubles import NOW


def offers(answer):
    return [(offer["item_id"], offer["probability"]) for offer in answer["offers"]]


def ask(service, **body):
    told = service.post("/v1/predict", body)
    assert told.status_code == 200, told.text
    return told.json()["answers"]


def test_answers_come_in_the_order_of_the_questions(service):
    service.post("/v1/purchases", {"purchase": {"user_id": "bob", "item_id": "tea"}})
    answers = ask(service, users=["ann", "bob", "ann"], k=2)
    assert [answer["user_id"] for answer in answers] == ["ann", "bob", "ann"]
    assert offers(answers[0]) == offers(answers[2]) == [("rice", 1 / 3), ("tea", 1 / 3)]
    assert offers(answers[1]) == [("tea", 2 / 4), ("rice", 1 / 4)]
    assert {answer["version"] for answer in answers} == {"000001"}
    assert {answer["after_sequence"] for answer in answers} == {1}


def test_S19_an_unknown_user_is_answered_as_a_fallback(service):
    (answer,) = ask(service, users=["nobody"])
    assert (answer["fallback"], answer["ignored_items"]) == (True, [])
    assert len(answer["offers"]) == 3


def test_S19_unknown_items_of_a_history_are_listed(service):
    bought = [{"item_id": item} for item in ("tea", "moon", "tea", "mars", "moon")]
    (answer,) = ask(service, histories=[{"purchases": bought}])
    assert answer["ignored_items"] == ["moon", "mars"]
    assert (answer["user_id"], answer["fallback"]) == (None, False)
    assert offers(answer)[0] == ("tea", 3 / 5)


@pytest.mark.parametrize("k", [0, -1, 1_001, 10**9, 2**63])
def test_S20_k_out_of_bounds_is_refused(service, k):
    told = service.post("/v1/predict", {"users": ["ann"], "k": k})
    assert (told.status_code, told.json()["errors"][0]["field"]) == (422, "body.k")


def test_S20_k_beyond_the_catalog_gives_the_catalog(service):
    assert len(ask(service, users=["ann"], k=1_000)[0]["offers"]) == 3


def test_S21_when_everything_is_excluded_the_list_is_empty_with_a_reason(service):
    (answer,) = ask(service, users=["ann"], rules={"exclude": ["rice", "tea", "salt"]})
    assert answer["offers"] == []
    assert answer["reason_empty"]


def test_rules_as_of_and_explain_reach_the_model(service):
    asked = []
    predict = service.model.predict

    async def noted(questions):
        asked.extend(questions)
        return await predict(questions)

    service.model.predict = noted
    rules = {"allow": ["tea"], "boost_items": {"tea": 2}, "per_category": 1}
    ask(service, users=["ann"], k=7, rules=rules, as_of="2026-03-01T00:00:00Z", explain=True)
    (question,) = asked
    assert (question.k, question.as_of, question.explain) == (7, NOW, True)
    assert question.rules.allow == ("tea",)
    assert question.rules.boost_items == {"tea": 2.0}
    assert question.rules.per_category == 1


def test_a_history_is_brought_into_the_order_of_time(service):
    asked = []

    async def noted(questions):
        asked.extend(questions)
        return []

    service.model.predict = noted
    dated = [
        {"item_id": "tea", "timestamp": "2026-03-01T00:00:00Z"},
        {"item_id": "rice", "timestamp": "2026-02-01T00:00:00Z"},
    ]
    plain = [{"item_id": "tea"}, {"item_id": "rice"}]
    histories = [{"purchases": dated}, {"user_id": "ann", "purchases": plain}, {"purchases": []}]
    ask(service, histories=histories)
    assert [one.item_id for one in asked[0].history] == ["rice", "tea"]
    assert [(one.item_id, one.timestamp) for one in asked[1].history] == [
        ("tea", NOW - 2), ("rice", NOW - 1),
    ]  # fmt: skip
    assert asked[2].history == ()
    mixed = {"histories": [{"purchases": [dated[0], plain[0]]}]}
    assert service.post("/v1/predict", mixed).status_code == 422


def test_answers_for_users_are_told_to_whoever_watches_and_made_up_ones_are_not():
    told = []
    service = service_with(parts={"on_answered": told.extend})
    ask(service, users=["ann", "bob"])
    ask(service, histories=[{"user_id": "cat", "purchases": []}])
    assert [answer.user_id for answer in told] == ["ann", "bob"]
    assert service.parts.metrics.counts().predicted == 3


def test_rules_that_contradict_themselves_are_refused(service):
    rules = {"lowest_price": 3, "highest_price": 2}
    told = service.post("/v1/predict", {"users": ["ann"], "rules": rules})
    assert told.status_code == 422
    assert "no price is at least 3.0 and at most 2.0" in told.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [(OverloadedError("full", 1.2), 503, "2"), (ConfigError("this log has no dates"), 422, None)],
)
def test_S47_errors_of_the_model_have_one_status_each(service, error, status, retry):
    async def fail(_):
        raise error

    service.model.predict = fail
    told = service.post("/v1/predict", {"users": ["ann"]})
    assert (told.status_code, told.headers.get("retry-after")) == (status, retry)
    assert told.json()["detail"] == str(error)


def test_S50_without_a_bundle_questions_are_told_503(service):
    service.model.version = None
    assert service.post("/v1/predict", {"users": ["ann"]}).status_code == 503
    assert service.post("/v1/audience", {"item": "tea", "within_days": 7}).status_code == 503


def test_a_probability_that_is_not_finite_is_our_fault_and_never_null(service):
    offer = Offer(item_id="tea", platform=None, category=None, probability=math.nan, reason=None)

    async def broken(_):
        return [
            Answer(
                user_id="ann", offers=(offer,), version="1", fallback=False, ignored_items=(),
                reason_empty=None, after_sequence=0,
            )
        ]  # fmt: skip

    service.model.predict = broken
    told = service.post("/v1/predict", {"users": ["ann"]})
    assert told.status_code == 500
    assert told.headers["content-type"] == "application/problem+json"


def test_an_unforeseen_error_is_500_without_details(service):
    async def broken(_):
        raise RuntimeError("the password is hunter2")

    service.model.predict = broken
    told = service.post("/v1/predict", {"users": ["ann"]})
    assert told.status_code == 500
    assert "hunter2" not in told.text


def test_a_forecast_has_a_row_a_user_and_null_for_what_is_not_known(service):
    told = service.post("/v1/forecast", {"users": ["ann", "bob"], "horizon_days": 30})
    assert told.json() == {
        "version": "000001",
        "rows": [
            {"user_id": "ann", "p_buy_30d": 0.5, "days_to_next_p50": None},
            {"user_id": "bob", "p_buy_30d": 0.5, "days_to_next_p50": None},
        ],
    }
