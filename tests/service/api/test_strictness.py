"""What a body may hold, seen from outside; nothing of it is stored if one part is wrong."""

import orjson
import pytest

from tests.service.doubles import NOW

GOOD = '{"purchase": {"user_id": "ann", "item_id": "tea", "price": 2.5}}'


def refused(service, raw, status=422, **headers):
    """The problem object, once the refusal is checked."""
    told = service.send(raw if isinstance(raw, bytes) else raw.encode(), **headers)
    assert told.status_code == status, told.text
    assert told.headers["content-type"] == "application/problem+json"
    problem = told.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert service.store.rows == []
    return problem


def fields(problem):
    return [error["field"] for error in problem["errors"]]


def with_value(field, value):
    return f'{{"purchases": [{{"user_id": "ann", "item_id": "tea", "{field}": {value}}}]}}'


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", '"nan"', '"1.5"'])
def test_S05_a_price_that_is_no_number_is_refused_with_the_field(service, number):
    assert fields(refused(service, with_value("price", number))) == ["body.purchases.0.price"]


@pytest.mark.parametrize("number", [str(2**63), "1" + "0" * 30, "9" * 5_000])
def test_S06_large_whole_numbers_are_refused_with_the_field(service, number):
    assert fields(refused(service, with_value("price", number))) == ["body.purchases.0.price"]


@pytest.mark.parametrize("number", ["1e16", "-1e300", "0", "-1"])
def test_a_quantity_is_above_zero_and_in_bounds(service, number):
    assert fields(refused(service, with_value("quantity", number))) == ["body.purchases.0.quantity"]


def test_S07_a_lone_surrogate_is_refused(service):
    refused(service, '{"purchase": {"user_id": "\\ud800", "item_id": "tea"}}')


@pytest.mark.parametrize("name", ["\\u0000", "a\\u0000b", "a\\nb", "\\u001b[31m", "\\u0085", ""])
def test_S08_control_characters_and_empty_ids_are_refused(service, name):
    raw = f'{{"purchase": {{"user_id": "{name}", "item_id": "tea"}}}}'
    assert fields(refused(service, raw)) == ["body.purchase.user_id"]


def test_S09_other_encodings_are_refused(service):
    refused(service, GOOD.encode("utf-16"), 400)
    refused(service, b"\xef\xbb\xbf" + GOOD.encode(), 400)
    refused(service, GOOD, 415, content_type="application/json; charset=utf-16")
    refused(service, GOOD.replace("ann", "\xe9").encode("latin-1"), 400)
    told = service.send(GOOD.encode(), content_type='application/json; charset="UTF-8"')
    assert told.status_code == 200


def test_S10_a_key_that_is_there_twice_is_refused(service):
    raw = '{"purchase": {"user_id": "ann", "user_id": "bob", "item_id": "tea"}}'
    assert "user_id is there twice" in refused(service, raw)["detail"]


def test_S11_unknown_fields_are_refused(service):
    assert fields(refused(service, with_value("colour", '"red"'))) == ["body.purchases.0.colour"]
    assert service.post("/v1/predict", {"users": ["ann"], "size": 3}).status_code == 422


def test_S11_unknown_query_parameters_are_refused(service):
    told = service.call("GET", "/v1/model?verbose=1")
    assert (told.status_code, fields(told.json())) == (422, ["query.verbose"])


@pytest.mark.parametrize("k", ["true", '"5"', "1.0", "null", "[1]", "5.5"])
def test_S12_only_a_whole_number_is_one(service, k):
    told = service.send(f'{{"users": ["ann"], "k": {k}}}'.encode(), "/v1/predict")
    assert (told.status_code, fields(told.json())) == (422, ["body.k"])


def test_S12_only_true_and_false_are_true_or_false(service):
    told = service.send(b'{"users": ["ann"], "explain": 1}', "/v1/predict")
    assert (told.status_code, fields(told.json())) == (422, ["body.explain"])


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
def test_S13_other_content_types_are_refused(service, kind):
    refused(service, GOOD, 415, content_type=kind)


def test_S13_a_body_that_is_empty_or_no_object_is_refused(service):
    refused(service, "")
    for raw in ("null", "[]", '"purchase"', "1", "{}"):
        refused(service, raw)


def test_S03_a_compressed_body_is_refused(service):
    refused(service, GOOD, 415, content_encoding="gzip")


def test_S01_a_body_above_the_limit_is_refused(service_of):
    service = service_of(body_bytes=len(GOOD))
    assert service.send(GOOD.encode()).status_code == 200
    assert service.send(GOOD.encode() + b" ").status_code == 413


def test_exactly_one_of_two_is_asked_for(service):
    both = '{"purchase": {"user_id": "a", "item_id": "b"}, "purchases": []}'
    refused(service, both)
    refused(service, '{"purchase": null}')
    refused(service, '{"purchases": []}')


def test_ids_are_up_to_256_bytes_of_utf_8(service):
    good = '{"purchase": {"user_id": "%s", "item_id": "tea"}}'
    assert fields(refused(service, good % ("é" * 129))) == ["body.purchase.user_id"]
    refused(service, good % ("x" * 257))
    assert service.send((good % ("é" * 128)).encode()).status_code == 200


def test_each_limit_holds_at_the_limit_and_not_one_above(service_of):
    service = service_of(purchases=2, users=2, k=3, history=2, id_bytes=4, json_depth=5, offers=4)
    one = {"user_id": "ann", "item_id": "tea"}
    item = {"item_id": "tea"}

    def status(path, body):
        return service.post(path, body).status_code

    assert status("/v1/purchases", {"purchases": [one] * 2}) == 200
    assert status("/v1/purchases", {"purchases": [one] * 3}) == 422
    assert status("/v1/purchases", {"purchase": one | {"user_id": "anna"}}) == 200
    assert status("/v1/purchases", {"purchase": one | {"user_id": "annas"}}) == 422
    assert status("/v1/predict", {"users": ["a", "b"], "k": 2}) == 200
    assert status("/v1/predict", {"users": ["a", "b", "c"], "k": 1}) == 422
    assert status("/v1/predict", {"users": ["a"], "k": 3}) == 200
    assert status("/v1/predict", {"users": ["a"], "k": 4}) == 422
    assert status("/v1/predict", {"users": ["a", "b"], "k": 3}) == 422
    assert status("/v1/predict", {"histories": [{"purchases": [item] * 2}], "k": 1}) == 200
    assert status("/v1/predict", {"histories": [{"purchases": [item] * 3}], "k": 1}) == 422
    assert status("/v1/predict", {"users": ["a"], "k": 1, "rules": {"allow": [[[[1]]]]}}) == 400
    assert service.call("GET", "/v1/users/annas").status_code == 422
    assert service.call("GET", "/v1/users/ann?limit=2").status_code == 200
    assert service.call("GET", "/v1/users/ann?limit=3").status_code == 422


def test_S31_a_purchase_too_far_ahead_of_our_clock_is_refused(service_of):
    service = service_of(future_seconds=60.0)
    at_the_limit, beyond = '"2026-03-01T00:01:00Z"', '"2026-03-01T00:01:00.000001Z"'
    assert fields(refused(service, with_value("timestamp", beyond))) == [
        "body.purchases.0.timestamp"
    ]
    assert service.send(with_value("timestamp", at_the_limit).encode()).status_code == 200
    assert service.store.rows[0].purchase.timestamp == NOW + 60_000_000


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2026-03-01T00:00:00Z", NOW),
        ("2026-03-01t01:30:00.25+01:30", NOW + 250_000),
        ("2026-02-28T18:59:59.9999999-05:00", NOW - 1),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),  # a leap second: 2017-01-01
        ("1969-12-31T23:59:59.000001Z", -999_999),
    ],
)
def test_a_moment_is_read_to_the_microsecond_in_its_zone(service, text, micros):
    assert service.send(with_value("timestamp", f'"{text}"').encode()).status_code == 200
    assert service.store.rows[0].purchase.timestamp == micros


@pytest.mark.parametrize(
    "text",
    [
        '"2026-03-01"', '"2026-03-01T00:00:00"', '"2026-02-30T00:00:00Z"', "1772323200", '""',
        '"2026-03-01T24:00:00Z"', '"2026-03-01 00:00:00Z"', '"2026-03-01T00:00:00+24:00"',
        '"٢٠٢٦-03-01T00:00:00Z"', '"0000-01-01T00:00:00Z"',
    ],
)  # fmt: skip
def test_a_moment_without_a_zone_or_out_of_range_is_refused(service, text):
    assert fields(refused(service, with_value("timestamp", text))) == ["body.purchases.0.timestamp"]


@pytest.mark.parametrize("path", ["/v1/users/%00", "/v1/users/a%0Ab", "/v1/users/%ff%fe"])
def test_S08_bad_text_in_a_path_is_refused(service, path):
    assert service.call("GET", path).status_code in (404, 422)


@pytest.mark.parametrize(
    "query", ["limit=%ff", "limit=1&limit=2", "limit=1_0", "limit=+1", "%00=1"]
)
def test_S08_bad_text_in_a_query_is_refused(service, query):
    assert service.call("GET", f"/v1/users/ann?{query}").status_code == 422


def test_a_refusal_repeats_no_value_of_the_client(service):
    secret = "hunter2"  # noqa: S105  no secret, but what must not come back
    for raw in (
        f'{{"purchase": {{"user_id": "{secret}", "item_id": 5, "timestamp": "{secret}"}}}}',
        f'{{"purchase": "{secret}"}}',
        f'{{"purchase": {{"user_id": "{secret}\\u0000", "item_id": "x"}}}}',
    ):
        assert secret not in service.send(raw.encode()).text


def test_at_most_20_errors_are_listed(service):
    purchase = {"user_id": "a", "item_id": "b"} | {f"x{number}": 1 for number in range(50)}
    problem = service.post("/v1/purchases", {"purchases": [purchase]}).json()
    assert len(problem["errors"]) == 20
    assert "49 more" in problem["detail"]


def test_S04_what_is_wrong_is_looked_for_up_to_the_first_bad_element_of_a_list(service):
    """Two things are wrong in each of a thousand elements; only those of one are made a list of."""
    purchase, good = {"user_id": 1, "item_id": 2}, {"user_id": "a", "item_id": "b"}
    for path, body, place in (
        ("/v1/purchases", {"purchases": [good, *[purchase] * 999]}, "purchases.1.user_id"),
        ("/v1/predict", {"users": ["a", *[""] * 999]}, "users.1"),
        (
            "/v1/predict",
            {"histories": [{"purchases": [{"item": 1}] * 999}] * 9},
            "histories.0.purchases.0.item_id",
        ),
        ("/v1/audience", {"item": "a", "within_days": 1, "exclude": [0] * 999}, "exclude.0"),
    ):
        problem = service.post(path, body).json()
        assert problem["errors"][0]["field"] == f"body.{place}"
        assert len(problem["errors"]) <= 2


def test_S04_an_object_has_as_many_keys_as_the_limit_says(service_of):
    service = service_of(json_keys=40)

    def asked(num, name="boost_items"):
        rules = {name: {f"i{number}": 2.0 for number in range(num)}}
        return service.post("/v1/predict", {"users": ["a"], "rules": rules})

    for name in ("boost_items", "boost_categories"):
        assert asked(40, name).status_code == 200
        assert asked(41, name).status_code == 400
    line = {"user_id": "a", "item_id": "b"} | {f"x{number}": 1 for number in range(39)}
    told = service.send(
        orjson.dumps(line), "/v1/purchases/bulk", content_type="application/x-ndjson"
    ).json()
    assert told["errors"] == [{"line": 1, "reason": "The line has an object of more than 40 keys."}]
    schemas = service.call("GET", "/openapi.json").json()["components"]["schemas"]
    assert schemas["RulesBody"]["properties"]["boost_items"]["maxProperties"] == 40
