"""The OpenAPI document is complete and true: tables over all routes."""

import jsonschema
import pytest

from nextbuy.errors import ConfigError
from nextbuy.service.application import rules_of
from tests.service.api.conftest import service_with

SERVICE = service_with()
DOCUMENT = SERVICE.call("GET", "/openapi.json").json()
OPERATIONS = [
    (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
NAMES = [operation["operationId"] for _, _, operation in OPERATIONS]


def test_S35_every_route_has_a_rule():
    rules = {
        (rule.method.lower(), rule.path.replace(":path", "")) for rule in rules_of(SERVICE.app)
    }
    assert rules == {(method, path) for method, path, _ in OPERATIONS}


def test_S35_a_route_without_a_rule_stops_the_start():
    app = service_with().app
    app.add_api_route("/open", lambda: None)
    with pytest.raises(ConfigError, match="/open has no rule"):
        rules_of(app)


def test_S35_who_may_call_what():
    table = {f"{rule.method} {rule.path}": rule.scope for rule in rules_of(SERVICE.app)}
    assert table == {
        "POST /v1/purchases": "write",
        "POST /v1/purchases/bulk": "write",
        "POST /v1/predict": "read",
        "POST /v1/forecast": "read",
        "POST /v1/audience": "read",
        "GET /v1/jobs/{job_id}": "read",
        "GET /v1/jobs/{job_id}/result": "read",
        "DELETE /v1/jobs/{job_id}": "read",
        "GET /v1/users/{user_id:path}": "read",
        "DELETE /v1/users/{user_id:path}": "admin",
        "GET /v1/model": "read",
        "POST /v1/model": "admin",
        "GET /health/live": "public",
        "GET /health/ready": "public",
        "GET /openapi.json": "public",
        "GET /metrics": "read",
    }


def test_operation_ids_are_unique():
    assert len(set(NAMES)) == len(NAMES) == 16


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)
def test_an_operation_says_all(method, path, operation):
    assert operation["summary"]
    responses = operation["responses"]
    assert {"400", "404", "405", "413", "415", "422", "431", "500", "503"} <= set(responses)
    assert [status for status in responses if status.startswith("2")]
    for status, response in responses.items():
        assert response["description"]
        kinds = set(response["content"])
        if not status.startswith("2"):
            assert kinds == {"application/problem+json"}
    needs_key = not (path.startswith("/health") or path == "/openapi.json")
    assert operation["security"] == ([{"key": []}] if needs_key else [])
    assert ("401" in responses) == ("429" in responses) == needs_key
    assert ("requestBody" in operation) == (method == "post")


def resolved(schema):
    return {**schema, "components": DOCUMENT["components"]}


def schema_of_answer(name, told):
    (operation,) = [one for _, _, one in OPERATIONS if one["operationId"] == name]
    kind = told.headers["content-type"]
    return resolved(operation["responses"][str(told.status_code)]["content"][kind]["schema"])


CALLS = [
    ("store_purchases", "POST", "/v1/purchases", {"purchase": {"user_id": "a", "item_id": "b"}}),
    ("store_purchases", "POST", "/v1/purchases", {"purchase": {"user_id": 5}}),
    ("predict", "POST", "/v1/predict", {"users": ["a", "b"], "explain": True}),
    ("predict", "POST", "/v1/predict", {"users": []}),
    ("forecast", "POST", "/v1/forecast", {"users": ["a"]}),
    ("begin_audience", "POST", "/v1/audience", {"item": "tea", "within_days": 3}),
    ("get_job", "GET", "/v1/jobs/x", None),
    ("get_user", "GET", "/v1/users/a", None),
    ("get_user", "GET", "/v1/users/nobody", None),
    ("forget_user", "DELETE", "/v1/users/a", None),
    ("get_model", "GET", "/v1/model", None),
    ("swap_model", "POST", "/v1/model", {"name": "latest"}),
    ("swap_model", "POST", "/v1/model", {"name": "nothing"}),
    ("get_live", "GET", "/health/live", None),
    ("get_ready", "GET", "/health/ready", None),
    ("get_openapi", "GET", "/openapi.json", None),
]


@pytest.fixture(scope="module")
def shared():
    return service_with()


@pytest.mark.parametrize(("name", "method", "path", "body"), CALLS)
def test_answers_are_as_described(shared, name, method, path, body):
    shared.post("/v1/purchases", {"purchase": {"user_id": "a", "item_id": "tea"}})
    told = shared.call(method, path, json=body)
    jsonschema.validate(told.json(), schema_of_answer(name, told))


def test_limits_are_those_of_the_service():
    document = service_with(k=7, users=3, id_bytes=9).call("GET", "/openapi.json").json()
    fields = document["components"]["schemas"]["PredictBody"]["properties"]
    assert fields["k"]["maximum"] == 7
    assert fields["users"]["maxItems"] == 3
    assert fields["users"]["items"]["maxLength"] == 9
    assert "x-limit" not in str(document)


DATED = {"item_id": "x", "timestamp": "2026-01-01T00:00:00Z"}
UNDATED = {"item_id": "x", "timestamp": None}
BODIES = [
    ({"users": ["a"]}, True),
    ({"users": ["a"], "k": 1_000}, True),
    ({"users": ["a"], "k": 1_001}, False),
    ({"users": ["a"], "k": 0}, False),
    ({"users": None}, False),
    ({"users": ["a"], "histories": [{"purchases": []}]}, False),
    ({}, False),
    ({"users": ["a\nb"]}, False),
    ({"users": [""]}, False),
    ({"users": ["a"], "rules": {"boost_items": {"tea": 2}}}, True),
    ({"users": ["a"], "rules": {"boost_items": {"tea": 0}}}, False),
    ({"users": ["a"], "rules": {"boost_items": {"\n": 1}}}, False),
    ({"users": ["a"], "rules": {"allow": None, "exclude": []}}, True),
    ({"users": ["a"], "colour": 1}, False),
    ({"histories": [{"purchases": [{"item_id": "x", "quantity": 0}]}]}, False),
    ({"histories": [{"purchases": [DATED, DATED]}]}, True),
    ({"histories": [{"purchases": [UNDATED, {"item_id": "x"}]}]}, True),
    ({"histories": [{"purchases": [DATED, UNDATED]}]}, False),
]


@pytest.mark.parametrize(("body", "is_good"), BODIES)
def test_the_schema_of_a_body_refuses_what_the_service_refuses(shared, body, is_good):
    schema = resolved({"$ref": "#/components/schemas/PredictBody"})
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(body) == is_good
    assert (shared.post("/v1/predict", body).status_code == 200) == is_good
