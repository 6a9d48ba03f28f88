"""Metrics and logs: what they tell, and what they never do."""

import io
import json
import logging
import re
import secrets

import pytest

from nextbuy.errors import StoreUnavailableError
from nextbuy.service.guard.keys import add_key
from nextbuy.service.guard.logs import JsonLines, RequestLog
from nextbuy.service.guard.metrics import Metrics
from nextbuy.service.guard.rates import Slots
from tests.service.guard.shop import WITHHELD, open_shop, wait_until


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return path, add_key(path, "till", ["read"])


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def shop(key_file, metrics):
    observers = [metrics, RequestLog()]
    with open_shop(keys=key_file[0], observers=observers, refused=metrics.refused) as shop:
        yield shop


@pytest.fixture
def lines():
    """What is logged, as it would be written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


def numbers(metrics):
    text, kind = metrics.exposition()
    assert kind.startswith("text/plain")
    found = {}
    for line in text.decode().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


def requests(lines):
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [line for line in found if line["logger"] == "nextbuy.service.requests"]


def test_requests_are_counted_by_route_method_and_status(shop, metrics, key_file):
    bearer = f"Authorization: Bearer {key_file[1]}"
    for path in ("/users/a", "/users/b", "/users/c%2Fd"):
        shop.ask(f"GET {path}\r\n{bearer}")
    shop.ask("GET /read")
    shop.ask("GET /none")
    shop.ask(f"GET /boom\r\n{bearer}")
    wait_until(lambda: numbers(metrics)["nextbuy_requests_in_flight"] == 0)
    found = numbers(metrics)

    def count(route, status):
        name = f'nextbuy_requests_total{{method="GET",route="{route}",status="{status}"}}'
        return found[name]

    assert count("/users/{user_id}", 200) == 2
    assert count("none", 404) == 2  # one is /users/c/d, which no route is
    assert count("/read", 401) == 1
    assert count("/boom", 500) == 1
    seconds = 'nextbuy_request_seconds_count{method="GET",route="/users/{user_id}"}'
    assert found[seconds] == 2


def test_a_client_that_left_is_counted_apart(shop, metrics, key_file):
    with shop.wire() as wire:
        wire.get("/wait", f"Authorization: Bearer {key_file[1]}")
        wait_until(lambda: numbers(metrics)["nextbuy_requests_in_flight"] == 1)
    name = 'nextbuy_requests_total{method="GET",route="/wait",status="499"}'
    wait_until(lambda: numbers(metrics).get(name) == 1)
    assert numbers(metrics)["nextbuy_requests_in_flight"] == 0


def test_what_never_became_a_request_is_counted_too(shop, metrics):
    for head in ("GET /live\r\nbroken", "GET /live\r\nbroken", "GET /" + "a" * 2_000):
        shop.ask(head)
    found = numbers(metrics)
    assert found['nextbuy_refused_total{status="400"}'] == 2
    assert found['nextbuy_refused_total{status="414"}'] == 1


def test_the_service_tells_its_own_numbers(metrics):
    metrics.watch(Slots(1, 1))
    metrics.stored(3)
    metrics.predicted(2)
    metrics.store_failed("unavailable")
    metrics.model_is("000001")
    metrics.model_is("000002")
    found = numbers(metrics)
    assert found["nextbuy_requests_queued"] == 0
    assert found["nextbuy_purchases_stored_total"] == 3
    assert found["nextbuy_predictions_total"] == 2
    assert found['nextbuy_store_errors_total{kind="unavailable"}'] == 1
    versions = [name for name in found if name.startswith("nextbuy_model_info")]
    assert versions == ['nextbuy_model_info{version="000002"}']


def test_S46_no_client_can_make_series(shop, metrics, key_file):
    bearer = f"Authorization: Bearer {key_file[1]}"

    def ask_all(tag):
        for number in range(20):
            name = f"{tag}{number}"
            for head in (
                f"GET /users/{name}\r\n{bearer}",
                f"GET /{name}",
                f"GET /read?{name}={name}",
                f"GET /live\r\nX-Request-Id: {name}\r\nUser-Agent: {name}",
                "PROPFIND /live",
                f"POST /admin/{name}\r\n{bearer}",
            ):
                shop.ask(head)

    ask_all("a")
    wait_until(lambda: numbers(metrics)["nextbuy_requests_in_flight"] == 0)
    before = set(numbers(metrics))
    ask_all("b")
    wait_until(lambda: numbers(metrics)["nextbuy_requests_in_flight"] == 0)
    assert set(numbers(metrics)) == before
    assert len(before) < 150


def test_a_request_is_one_line(shop, lines, key_file):
    reply = shop.ask(f"GET /users/a\r\nAuthorization: Bearer {key_file[1]}")
    wait_until(lambda: requests(lines))
    (line,) = requests(lines)
    assert line.pop("ms") >= 0
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "nextbuy.service.requests",
        "message": "request",
        "request_id": reply.headers["x-request-id"],
        "method": "GET",
        "route": "/users/{user_id}",
        "status": 200,
        "key": "till",
    }


def test_S36_no_secret_reaches_logs_metrics_or_answers(shop, lines, metrics, key_file):
    key = key_file[1]
    secret = secrets.token_hex(16)
    heads = [
        f"GET /boom\r\nAuthorization: Bearer {key}",
        f"GET /read?key={secret}",
        f"GET /users/{secret}\r\nAuthorization: Bearer {key}",
        f"GET /{secret}",
        f"GET /read\r\nAuthorization: Bearer nb_{secret}",
        f"GET /read\r\nAuthorization: Basic {secret}",
        f"GET /read\r\nCookie: session={secret}",
        f"GET /live\r\n{secret}: {secret}",
        f"POST /write\r\nAuthorization: Bearer {key}\r\nContent-Length: 32",
        f"GET /{secret}\x01",
        f"{secret.upper()} /live",
        f"GET /live\r\nBroken {secret}",
    ]
    answers = [shop.ask(head, secret.encode()) for head in heads]
    answers += [shop.ask("GET /" + secret * 200), shop.ask(f"GET /live\r\nX: {secret * 400}")]
    assert {answer.status for answer in answers} >= {200, 400, 401, 403, 404, 414, 431, 500}
    wait_until(lambda: numbers(metrics)["nextbuy_requests_in_flight"] == 0)
    told = lines.getvalue() + metrics.exposition()[0].decode()
    assert "ValueError at" in told and "shop.py" in told  # where it failed is known
    told += "".join(f"{a.headers}{a.body!r}" for a in answers if a.status != 200)
    for word in (key, key[3:], secret, WITHHELD):
        assert word.lower() not in told.lower()


def test_S42_nothing_that_is_logged_can_start_a_line_or_colour_it(shop, lines):
    shop.ask("GET /users/%0A%7B%22forged%22%3A1%7D%1B%5B31m")
    logging.getLogger("nextbuy").warning("a\nb\r\x1b[31m\x7f\x9b\u2028%s", "\n{}")
    wait_until(lambda: requests(lines))
    written = lines.getvalue()
    assert not re.search(r"[^\x20-\x7e\n]", written)
    for line in written.splitlines():
        assert "forged" not in json.loads(line)
    (warning,) = [one for one in map(json.loads, written.splitlines()) if one["level"] == "warning"]
    assert warning["message"] == "a\nb\r\x1b[31m\x7f\x9b\u2028\n{}"


def test_S36_an_error_is_told_by_type_and_place_but_for_our_own_messages(lines):
    for error in (ValueError("secret"), StoreUnavailableError("the disk is full")):
        try:
            raise error
        except Exception:
            logging.getLogger("nextbuy").exception("it failed")
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert re.fullmatch(r"ValueError at test_watch\.py:\d+ test_S36\w+", first["error"])
    assert second["error"].startswith("StoreUnavailableError: the disk is full at test_watch.py:")
