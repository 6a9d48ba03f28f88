"""The short way of reading a question against the strict one."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nextbuy.service.api import strict_json
from nextbuy.service.api.bodies import PredictBody
from nextbuy.service.api.predict_routes import questions_of
from nextbuy.service.api.usual_bodies import usual_questions
from nextbuy.service.config import Limits
from tests.service.doubles import NOW

LIMITS = Limits(history=4, users=3, k=50, id_bytes=32)


def strictly(raw):
    """What the strict way makes of a body; raises what it refuses it with."""
    value = strict_json.parse(raw, most_depth=LIMITS.json_depth, most_keys=LIMITS.json_keys)
    return questions_of(PredictBody.model_validate(value, context=LIMITS), NOW)


def body_of(*purchases, **more):
    return json.dumps({"histories": [{"purchases": purchases}], **more}).encode()


TEA = {"item_id": "tea", "timestamp": "2026-02-03T10:00:00Z"}
RICE = {"item_id": "rice", "timestamp": "2026-02-01T10:00:00.5+02:00"}


@pytest.mark.parametrize(
    "raw",
    [
        body_of(TEA, TEA | {"timestamp": "2026-02-01T23:59:59.123456+05:30"}),
        body_of({"item_id": "tea"}, {"item_id": "rice", "platform": "Shop 1", "category": None}),
        body_of(TEA | {"basket_id": "b1"}, k=7, explain=True),
        body_of(
            TEA | {"timestamp": "9999-12-31T23:59:59Z"}, TEA | {"timestamp": "0001-01-01T00:00:00Z"}
        ),
        json.dumps(
            {"histories": [{"user_id": "ann", "purchases": []}, {"purchases": [TEA]}]}, indent=1
        ).encode(),
        b'{"histories":[{"purchases":[{"item_id":"caf\xc3\xa9"}]}]}',
    ],
)
def test_usual_bodies_are_read_as_by_the_strict_way(raw):
    found = usual_questions(raw, LIMITS, NOW)
    assert found is not None
    assert found == strictly(raw)


texts = st.sampled_from(["tea", "rice", "é", " ", "", "x" * 8, "x" * 9, "x" * 33, "\u200b", "\x7f"])
odd = st.sampled_from([None, 0, 1, 1.5, True, [], {}, "tea", 2**63, 2**64])
moments = st.sampled_from(
    [
        "2026-02-01T10:00:00Z", "2026-02-01T09:00:00.25-01:00", "2026-02-30T10:00:00Z",
        "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z",
        "20260201T100000.00Z", "2026-W05-1T10:00:00Z", "2026-02-01 10:00:00Z", "2026-02-01",
        "2026-02-01T24:00:00Z", "2026-02-01T10:00:60Z", "2026-02-01T10:00:00", "0001-01-01T00:00Z",
    ]
)  # fmt: skip
purchases = st.fixed_dictionaries(
    {"item_id": texts | odd},
    optional={
        "timestamp": moments | odd, "platform": texts | odd, "category": texts | odd,
        "basket_id": texts | odd, "price": odd, "item": odd,
    },
)  # fmt: skip
plain = st.fixed_dictionaries({"item_id": texts, "timestamp": moments})
histories = st.fixed_dictionaries(
    {"purchases": st.lists(plain, max_size=5) | st.lists(purchases | odd, max_size=5) | odd},
    optional={"user_id": texts | odd, "more": odd},
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "histories": st.lists(histories | odd, max_size=4) | odd, "users": st.lists(texts) | odd,
        "k": st.sampled_from([1, 50, 51, 0]) | odd, "explain": st.booleans() | odd, "as_of": odd,
        "rules": odd,
    },
)  # fmt: skip


@settings(deadline=None, max_examples=500)
@given(bodies | odd)
@example({"histories": [{"purchases": [TEA, RICE]}]})
def test_what_the_short_way_takes_means_the_same_to_the_strict_one(body):
    raw = json.dumps(body, ensure_ascii=False).encode()
    found = usual_questions(raw, LIMITS, NOW)
    if found is not None:
        assert found == strictly(raw)


@settings(deadline=None, max_examples=300)
@given(
    st.integers(0, 400), st.sampled_from([b'"', b":", b",", b"{", b"}", b" ", b"0", b"\\", b"\xff"])
)
def test_a_byte_that_is_put_anywhere_changes_both_ways_alike(place, byte):
    raw = body_of(TEA, TEA | {"platform": "k"}, k=5)
    broken = raw[: place % len(raw)] + byte + raw[place % len(raw) :]
    found = usual_questions(broken, LIMITS, NOW)
    if found is not None:
        assert found == strictly(broken)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"histories":[{"purchases":[{"item_id":"tea","item_id":"tea"}]}]}',
        b'{"histories":[{"purchases":[{"item_id" :"a","item_id":"b","platform":":"}]}]}',
        b'{"k":5,"k":5,"histories":[{"purchases":[{"item_id":"tea"}]}]}',
        b'{"histories":[{"purchases":[{"item_id":"t\\u0065a"}]}]}',
        b'\xef\xbb\xbf{"histories":[{"purchases":[{"item_id":"tea"}]}]}',
        b'{"histories":[{"purchases":[{"item_id":"tea"}]}]}}',
        b'{"histories":[{"purchases":[{"item_id":"tea"}]}],"k":NaN}',
        b"",
        b'{"histories":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"histories":[{"purchases":[{"item_id":' + b"[" * 300 + b"]" * 300 + b"}]}]}",
        b'{"histories":[{"purchases":[]}],"k":' + b"[" * 300 + b"]" * 300 + b"}",
        b"[" * 5000,
        body_of(TEA, {"item_id": "rice"}),
        body_of(TEA | {"timestamp": None}, TEA),
        body_of(TEA | {"timestamp": "0000-01-01T00:00:00Z"}),
        body_of(TEA | {"timestamp": "2026-02-29T00:00:00Z"}),
        body_of(*[TEA] * 5),
        body_of(TEA, as_of="2026-02-01T10:00:00Z"),
    ],
)
def test_what_is_unusual_or_wrong_is_left_to_the_strict_way(raw):
    assert usual_questions(raw, LIMITS, NOW) is None


def test_a_shop_that_allows_little_depth_is_asked_the_strict_way():
    assert usual_questions(body_of(TEA), LIMITS.model_copy(update={"json_depth": 4}), NOW) is None


def test_both_ways_answer_alike_and_refuse_too_many_offers(service):
    asked = {"histories": [{"user_id": "ann", "purchases": [{"item_id": "tea"}] * 2}], "k": 2}
    told = service.post("/v1/predict", asked)
    strict = service.post("/v1/predict", asked | {"rules": {}})
    assert told.status_code == strict.status_code == 200
    assert told.json() == strict.json()
    many = {"histories": [{"purchases": []}] * 101, "k": 1_000}
    assert service.post("/v1/predict", many).status_code == 422
