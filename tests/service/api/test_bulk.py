"""`POST /v1/purchases/bulk`: lines = stored + rejected, and a retry stores nothing twice."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy.errors import StoreUnavailableError
from nextbuy.service.api.bulk_routes import BATCH_LINES
from tests.service.api.conftest import service_with

GOOD = b'{"user_id": "ann", "item_id": "tea"}'


def line(user="ann", **more):
    return json.dumps({"user_id": user, "item_id": "tea", **more}).encode()


def upload(service, raw, key=None, kind="application/x-ndjson"):
    headers = {"content-type": kind} | ({"Idempotency-Key": key} if key else {})
    return service.call("POST", "/v1/purchases/bulk", content=raw, headers=headers)


def in_pieces(raw, size):
    async def pieces():
        for start in range(0, len(raw), size):
            yield raw[start : start + size]

    return pieces()


def test_good_lines_are_stored_and_bad_ones_named(service):
    raw = b"\n".join(
        [GOOD, b"", b"nonsense", line(price="2"), line("bob"), b'{"user_id": "x"}', b"  ", b"[]"]
    )
    told = upload(service, raw)
    assert told.status_code == 200, told.text
    found = told.json()
    assert (found["lines"], found["stored"], found["rejected"]) == (6, 2, 4)
    assert [error["line"] for error in found["errors"]] == [3, 4, 6, 8]
    assert found["errors"][0]["reason"].startswith("The line is no JSON")
    assert found["errors"][1]["reason"] == "price: Input should be a valid number."
    assert found["errors"][2]["reason"] == "item_id: Field required."
    assert (found["first_sequence"], found["repeated"]) == (1, 0)
    assert [row.purchase.user_id for row in service.store.rows] == ["ann", "bob"]


lines = st.lists(
    st.sampled_from([GOOD, line("bob", price=1.5), b"", b" ", b"{", line(item="x"), b"x" * 50]),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(lines, st.integers(1, 40), st.booleans())
def test_however_it_is_cut_every_line_is_stored_or_rejected(texts, size, ends):
    service = service_with(line_bytes=60)
    raw = b"\n".join(texts) + (b"\n" if ends else b"")
    found = upload(service, in_pieces(raw, size)).json()
    rows = [text for text in texts if text.strip()]
    good = [text for text in rows if text in (GOOD, line("bob", price=1.5))]
    assert (found["lines"], found["stored"]) == (len(rows), len(good))
    assert found["lines"] == found["stored"] + found["rejected"]
    assert len(service.store.rows) == len(good)


def test_only_the_first_100_errors_are_listed(service):
    found = upload(service, b"x\n" * 250 + GOOD).json()
    assert (found["lines"], found["rejected"], found["stored"]) == (251, 250, 1)
    assert [error["line"] for error in found["errors"]] == list(range(1, 101))


def test_a_line_above_the_limit_is_rejected_and_the_next_one_is_read(service_of):
    service = service_of(line_bytes=len(GOOD))
    too_long = GOOD.replace(b"ann", b"anna")
    found = upload(service, b"\n".join([GOOD, too_long, b"y" * 10_000, GOOD])).json()
    assert (found["stored"], [error["line"] for error in found["errors"]]) == (2, [2, 3])
    assert found["errors"][0]["reason"] == f"a line has at most {len(GOOD)} bytes"


def test_S22_a_retry_under_the_same_key_stores_nothing_twice(service):
    raw = b"\n".join(line(f"u{number}") for number in range(2 * BATCH_LINES + 5))
    first = upload(service, raw, "load-1").json()
    again = upload(service, in_pieces(raw, 777), "load-1").json()
    count = 2 * BATCH_LINES + 5
    assert (first["stored"], first["repeated"]) == (count, 0)
    assert (again["stored"], again["repeated"], again["first_sequence"]) == (count, count, 1)
    assert len(service.store.rows) == count


def test_S22_a_retry_after_it_broke_off_stores_the_rest(service):
    raw = b"\n".join(line(f"u{number}") for number in range(3 * BATCH_LINES))
    write, calls = service.store.write, []

    def second_fails(submissions):
        calls.append(1)
        if len(calls) == 2:
            raise StoreUnavailableError("full", 1.0)
        return write(submissions)

    service.store.write = second_fails
    told = upload(service, raw, "load-1")
    assert (told.status_code, told.headers["retry-after"]) == (503, "1")
    assert f"{BATCH_LINES} purchases of the lines so far are stored" in told.json()["detail"]
    again = upload(service, raw, "load-1").json()
    assert (again["stored"], again["repeated"]) == (3 * BATCH_LINES, BATCH_LINES)
    users = [row.purchase.user_id for row in service.store.rows]
    assert users == [f"u{number}" for number in range(3 * BATCH_LINES)]


def test_S22_another_upload_under_the_same_key_is_a_conflict(service):
    upload(service, GOOD, "load-1")
    assert upload(service, line("bob"), "load-1").status_code == 409
    assert len(service.store.rows) == 1


def test_S01_an_upload_above_the_limit_is_refused(service_of):
    service = service_of(bulk_bytes=len(GOOD) + 1)
    assert upload(service, GOOD + b"\n").status_code == 200
    assert upload(service, GOOD + b"\n\n").status_code == 413


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
def test_S13_other_content_types_are_refused(service, kind):
    assert upload(service, GOOD, kind=kind).status_code == 415


def test_S31_a_line_too_far_ahead_is_rejected(service_of):
    service = service_of(future_seconds=60.0)
    found = upload(service, line(timestamp="2026-03-01T00:02:00Z")).json()
    assert found["errors"] == [{"line": 1, "reason": "it lies too far ahead of our clock"}]


def test_an_empty_upload_stores_nothing(service):
    assert upload(service, b"\n \n").json()["lines"] == 0
    assert service.store.keys == {}
