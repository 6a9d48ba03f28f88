"""Users, the model, and health."""

import pytest

from nextbuy.errors import StoreError, StoreUnavailableError
from nextbuy.service.api.model_routes import Readiness
from tests.service.api.conftest import service_with


def store(service, user, *items):
    rows = [{"user_id": user, "item_id": item} for item in items]
    assert service.post("/v1/purchases", {"purchases": rows}).status_code == 200


def test_the_newest_purchases_of_a_user_are_told_oldest_first(service):
    store(service, "ann", "tea", "rice", "salt")
    told = service.call("GET", "/v1/users/ann?limit=2").json()
    assert told["user_id"] == "ann"
    assert [(row["sequence"], row["item_id"]) for row in told["purchases"]] == [
        (2, "rice"), (3, "salt"),
    ]  # fmt: skip
    assert told["purchases"][0]["timestamp"] == "2026-03-01T00:00:00Z"


def test_S20_a_long_history_is_told_a_page_at_a_time(service):
    """A place instead of an offset: it cannot overflow, and what comes meanwhile moves nothing."""
    store(service, "ann", *(f"item {n}" for n in range(5)))
    first = service.call("GET", "/v1/users/ann?limit=2").json()
    store(service, "ann", "later")
    pages = [first]
    while (older := pages[-1]["older"]) is not None:
        pages.append(service.call("GET", f"/v1/users/ann?limit=2&before={older}").json())
    items = [row["item_id"] for page in reversed(pages) for row in page["purchases"]]
    assert items == [f"item {n}" for n in range(5)]
    assert (first["total"], pages[-1]["total"], first["version"]) == (5, 6, "000001")
    beyond = service.call("GET", f"/v1/users/ann?before=0.0.{10**9 - 1}")
    assert (beyond.status_code, beyond.json()["purchases"]) == (200, [])


@pytest.mark.parametrize("query", [
    "before=0", "before=-1", "before=0.1.-1", "before=0.1.1.1", f"before=0.{10**30}.0",
    f"before=0.0.{10**30}", "before=2.1.1", "before=", "before=0.1.%D9%A1", "before=0.1e3.1",
    "limit=0", "limit=-1", f"limit={10**9}", f"limit={10**30}", "limit=10001", "limit=1.0",
    "offset=1", "limit=%D9%A1",
])  # fmt: skip
def test_S20_places_and_limits_out_of_bounds_are_refused(service, query):
    store(service, "ann", "tea")
    told = service.call("GET", f"/v1/users/ann?{query}")
    assert told.status_code == 422
    assert told.json()["errors"][0]["field"].startswith("query")


@pytest.mark.parametrize(
    ("user", "path"),
    [("a/b", "a%2Fb"), ("é", "%C3%A9"), ("a b?", "a%20b%3F"), ("=1+1", "=1+1"), ("..", "%2E%2E")],
)
def test_any_id_can_be_asked_for(service, user, path):
    store(service, user, "tea")
    told = service.call("GET", f"/v1/users/{path}")
    assert (told.status_code, told.json().get("user_id")) == (200, user)


def test_an_unknown_user_is_404(service):
    assert service.call("GET", "/v1/users/nobody").status_code == 404


def test_a_forgotten_user_is_gone_and_can_come_back(service):
    store(service, "ann", "tea", "rice")
    store(service, "bob", "tea")
    told = service.call("DELETE", "/v1/users/ann")
    assert (told.status_code, told.json()) == (200, {"user_id": "ann", "deleted": 2})
    assert service.call("GET", "/v1/users/ann").status_code == 404
    assert service.call("GET", "/v1/users/bob").status_code == 200
    assert service.call("DELETE", "/v1/users/ann").json()["deleted"] == 0
    store(service, "ann", "salt")
    assert len(service.call("GET", "/v1/users/ann").json()["purchases"]) == 1


def test_forgetting_is_not_acknowledged_while_the_store_is_away(service):
    store(service, "ann", "tea")
    forgotten = []
    service.model.forget = forgotten.append
    service.store.trouble = StoreUnavailableError("busy")
    assert service.call("DELETE", "/v1/users/ann").status_code == 503
    assert forgotten == []
    service.store.trouble = None
    assert service.call("DELETE", "/v1/users/ann").status_code == 200
    assert forgotten == ["ann"]


def test_whoever_watches_drops_a_user_before_the_store_does():
    order = []
    service = service_with(parts={"on_forget": lambda user: order.append(("watch", user))})
    service.store.forget = lambda user: order.append(("store", user)) or 0
    service.call("DELETE", "/v1/users/ann")
    assert order == [("watch", "ann"), ("store", "ann")]


def test_the_model_is_shown_and_swapped(service):
    assert service.call("GET", "/v1/model").json()["version"] == "000001"
    assert service.post("/v1/model", {"name": "latest"}).json() == {"version": "000002"}
    assert service.call("GET", "/v1/model").json()["version"] == "000002"


def test_a_version_that_is_not_there_changes_nothing(service):
    told = service.post("/v1/model", {"name": "000009"})
    assert told.status_code == 409
    assert "There is no version 000009" in told.json()["detail"]
    assert service.call("GET", "/v1/model").json()["version"] == "000001"


@pytest.mark.parametrize("name", ["../000001", "/etc/passwd", "", "a b", "file:x", "x" * 65])
def test_S44_a_version_is_a_name_and_never_a_path(service, name):
    assert service.post("/v1/model", {"name": name}).status_code == 422


def test_S50_without_a_bundle_the_service_lives_but_is_not_ready(service):
    service.model.version = None
    assert service.call("GET", "/health/live").json() == {"status": "alive"}
    told = service.call("GET", "/health/ready")
    assert (told.status_code, told.json()["detail"]) == (503, "No bundle is loaded.")
    assert service.call("GET", "/v1/model").status_code == 503


def test_S50_with_both_it_is_ready(service):
    assert service.call("GET", "/health/ready").json() == {"status": "ready", "version": "000001"}


def test_S27_a_store_that_fails_makes_it_not_ready_and_says_no_details(service):
    service.store.trouble = StoreError("/var/secret is damaged")
    told = service.call("GET", "/health/ready")
    assert told.status_code == 503
    assert "secret" not in told.text
    assert service.call("GET", "/health/live").status_code == 200


def test_anybody_may_ask_for_readiness_but_the_store_is_tried_once_a_second(service):
    tries, now = [], [0.0]
    service.store.check = lambda: tries.append(1)
    readiness = Readiness(service.parts, 1.0, clock=lambda: now[0])
    for moment, total in ((0.0, 1), (0.5, 1), (0.999, 1), (1.0, 2), (1.5, 2)):
        now[0] = moment
        assert readiness.reason() is None
        assert len(tries) == total


def test_a_head_request_is_answered_as_a_get(service):
    assert service.call("HEAD", "/health/live").status_code == 200
    assert service.call("HEAD", "/v1/users/nobody").status_code == 404


def test_another_method_or_path_is_a_problem_too(service):
    told = service.call("PUT", "/v1/users/ann")
    assert (told.status_code, told.headers["allow"]) == (405, "DELETE, GET, HEAD")
    assert told.headers["content-type"] == "application/problem+json"
    told = service.call("GET", "/v2")
    assert (told.status_code, told.json()["status"]) == (404, 404)
