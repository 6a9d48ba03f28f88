"""Heads of requests: bounded in size and time, and read in one way only."""

import random
import re
import time

import pytest

from tests.service.guard.shop import SHORT, open_shop

HOST = b"Host: localhost\r\n"


@pytest.fixture(scope="module")
def shop():
    with open_shop() as shop:
        yield shop


def raw(shop, data):
    """All that the server says to these bytes until it closes."""
    with shop.wire() as wire:
        wire.send(data)
        return wire.rest()


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", answer)]


@pytest.mark.parametrize("path", ["/users/a%00b", "/users/%00", "/read?user=a%00", "/read?%00=a"])
def test_S08_nul_in_path_and_query_is_refused(shop, path):
    before = len(shop.app.seen)
    assert shop.ask(f"GET {path}").status == 400
    assert len(shop.app.seen) == before


@pytest.mark.parametrize("line", [b"X: a\x00b", b"X: a\x01", b"X\x00: a", b"X\x7f: a", b": a"])
def test_S08_control_characters_in_headers_are_refused(shop, line):
    answer = raw(shop, b"GET /live HTTP/1.1\r\n" + HOST + line + b"\r\n\r\n")
    assert statuses(answer) == [400]


@pytest.mark.parametrize("path", [b"/users/\x00", b"/users/\xff", b"/users/a b", b"/users/\r"])
def test_S08_raw_bytes_that_no_path_has_are_refused(shop, path):
    assert statuses(raw(shop, b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")) == [400]


@pytest.mark.parametrize("path", ["/users/%ff", "/users/%c0%80", "/users/%ed%a0%80", "/read?u=%ff"])
def test_S08_what_is_not_utf8_is_refused_and_what_is_passes(shop, path):
    assert shop.ask(f"GET {path}").status == 400
    assert shop.ask("GET /users/%C3%A9%EF%BF%BD?name=%C3%A9").status == 200  # é and U+FFFD itself


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /users/" + "a" * (1024 - 7), 200),
        ("GET /users/" + "a" * (1024 - 6), 414),
        ("GET /users/" + "a" * 20_000, 414),
        ("GET /read?" + "q" * 100_000, 414),
        ("GET /read\r\n" + "\r\n".join(["X: 1"] * 49), 200),  # and Host
        ("GET /read\r\n" + "\r\n".join(["X: 1"] * 50), 431),
        ("GET /read\r\n" + "\r\n".join(["X: 1"] * 100_000), 431),
        ("GET /read\r\nX: " + "a" * 8_000, 200),
        ("GET /read\r\nX: " + "a" * 2**13, 431),
        ("GET /read\r\nX: " + "a" * 2**20, 431),
        ("GET /read\r\n" + "a" * 2**20 + ": 1", 431),
    ],
)
def test_S14_heads_are_bounded(shop, head, status):
    if "/users/a" in head:
        assert (len("/users/" + head.removeprefix("GET /users/")) <= 1024) == (status == 200)
    before = len(shop.app.seen)
    reply = shop.ask(head)
    assert reply.status == status
    if status != 200:
        assert len(shop.app.seen) == before
        assert reply.headers["connection"] == "close"
        assert reply.headers["x-content-type-options"] == "nosniff"


def test_S14_trailers_are_bounded_and_never_become_headers(shop):
    head = b"POST /write HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    with shop.wire() as wire:
        wire.send(head + b"Authorization: Bearer x\r\n\r\n")
        assert wire.reply().status == 200
    assert [name for name, _ in shop.app.headers[-1]] == [b"host", b"transfer-encoding"]
    with shop.wire() as wire:
        wire.send(head + b"X: y\r\n" * 100)
        assert wire.reply().status == 431


def test_S15_slow_heads_and_idle_connections_are_closed(shop):
    with shop.wire() as silent, shop.wire() as slow, shop.wire() as idle, shop.wire() as empty:
        slow.send(b"GET /live HTTP/1.1\r\nHost: local")
        idle.get("/live")
        assert idle.reply().status == 200
        began = time.monotonic()
        while time.monotonic() - began < 2 * SHORT.header_seconds:
            try:
                slow.send(b"x")  # a byte now and then buys no time
                empty.send(b"\r\n")  # nor do empty lines between requests
            except ConnectionError:
                break
            time.sleep(0.02)
        for wire in (silent, slow, idle, empty):
            assert wire.rest() == b""
        assert time.monotonic() - began < 2 * SHORT.header_seconds + 1


@pytest.mark.parametrize(("head", "keep_alive"), [(0.2, 9.0), (9.0, 0.2)])
def test_S15_a_late_head_and_an_idle_connection_have_each_their_own_time(head, keep_alive):
    limits = SHORT.model_copy(update={"header_seconds": head, "keep_alive_seconds": keep_alive})
    with open_shop(limits=limits) as shop, shop.wire() as late, shop.wire() as idle:
        idle.get("/live")
        assert idle.reply().status == 200
        assert (late if head < keep_alive else idle).seconds_until_closed() < 3
        other = idle if head < keep_alive else late
        other.get("/live")
        assert other.reply().status == 200


def test_S15_a_busy_connection_is_not_closed(shop):
    with shop.wire() as wire:
        end = time.monotonic() + 2 * SHORT.header_seconds
        while time.monotonic() < end:
            wire.get("/live")
            assert wire.reply().status == 200
            time.sleep(0.05)


def test_S15_a_reader_that_stands_still_is_cut_off(shop):
    with shop.wire(receive_buffer=4096) as wire:
        wire.get("/big")
        began = time.monotonic()
        time.sleep(SHORT.write_seconds * 1.5)
        assert len(wire.rest()) < 16 * 2**20
        assert time.monotonic() - began < 10
    assert shop.ask("GET /live").status == 200


def test_a_reader_that_is_only_slow_gets_everything(shop):
    with shop.wire() as wire:
        wire.get("/big", "Connection: close")
        assert len(wire.rest()) > 16 * 2**20


SMUGGLED = b"GET /admin/x HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 4\r\n\r\n",
        b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        b"Content-Length: +0\r\n\r\n",
        b"Content-Length : 0\r\n\r\n",
        b"Content-Length: 0\n\r\n",
        b"X: a\nContent-Length: 0\r\n\r\n",
        b"X: a\r\n Content-Length: 0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    ],
)
def test_S18_what_two_parsers_might_read_in_two_ways_is_refused(shop, request_):
    before = list(shop.app.seen)
    answer = raw(shop, b"POST /write HTTP/1.1\r\n" + HOST + request_ + SMUGGLED)
    assert statuses(answer) == [400]
    assert answer.count(b"connection: close") == 1
    assert [path for path in shop.app.seen[len(before) :] if path != "/write"] == []


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET http://localhost/live HTTP/1.1", 400),
        (b"GET localhost/live HTTP/1.1", 400),
        (b"CONNECT localhost:80 HTTP/1.1", 400),
        (b"OPTIONS * HTTP/1.1", 400),
        (b"GET /live HTTP/1.2", 400),
        (b"GET /live HTTP/2.0", 505),
        (b"GET /live HTTP/0.9", 505),
        (b"get /live HTTP/1.1", 400),
        (b"PRI * HTTP/2.0", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    ],
)
def test_S18_other_request_lines_are_refused(shop, line, status):
    before = len(shop.app.seen)
    assert statuses(raw(shop, line + b"\r\n" + HOST + b"\r\n")) == [status]
    assert len(shop.app.seen) == before


def test_S18_http_0_9_gets_no_page(shop):
    before = len(shop.app.seen)
    assert b"200" not in raw(shop, b"GET /live\r\n\r\n")
    assert len(shop.app.seen) == before


def test_S18_http_1_0_has_no_chunks_and_ends_with_its_answer(shop):
    head = b"POST /write HTTP/1.0\r\n" + HOST
    chunked = b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert statuses(raw(shop, head + chunked + SMUGGLED)) == [400]
    assert statuses(raw(shop, head + b"Content-Length: 1\r\n\r\na")) == [200]


def test_S18_pipelined_requests_are_answered_in_order(shop):
    paths = [f"/users/{number}" for number in range(10)]
    with shop.wire() as wire:
        wire.send(b"".join(f"GET {p} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for p in paths))
        found = [wire.reply().body for _ in paths]
    assert [f'"{path}"'.encode() in body for path, body in zip(paths, found, strict=True)] == [
        True
    ] * 10


def test_S18_a_broken_request_behind_a_good_one_is_answered_after_it(shop):
    good = b"GET /read HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(raw(shop, good + b"NONSENSE\r\n\r\n" + SMUGGLED)) == [200, 400]
    assert statuses(raw(shop, good + good + b"GET /" + b"a" * 2000)) == [200, 200, 414]


def test_S18_nothing_is_read_after_connection_close(shop):
    before = len(shop.app.seen)
    answer = raw(shop, b"GET /read HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n" + SMUGGLED)
    assert statuses(answer)[0] == 200
    assert shop.app.seen[before:] == ["/read"]


def test_S18_a_flood_of_pipelined_requests_is_bounded(shop):
    before = len(shop.app.seen)
    answer = raw(shop, (b"GET /read HTTP/1.1\r\n" + HOST + b"\r\n") * 1_000)
    assert 16 <= len(shop.app.seen) - before <= 18
    assert statuses(answer) == [200] * (len(shop.app.seen) - before) + [400]


def test_S18_an_upgrade_is_answered_as_http_1_1_and_the_connection_ends(shop):
    head = b"GET /read HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: "
    for name in (b"h2c", b"websocket"):
        before = len(shop.app.seen)
        answer = raw(shop, head + name + b"\r\n\r\n" + SMUGGLED)
        assert statuses(answer) == [200]
        assert shop.app.seen[before:] == ["/read"]


def test_S18_a_body_that_breaks_off_in_nonsense_is_never_answered_twice(shop):
    with shop.wire() as wire:
        wire.send(
            b"POST /bulk HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        )
        while shop.app.seen[-1] != "/bulk":
            time.sleep(0.005)
        wire.send(b"zz\r\n")
        assert statuses(wire.rest()) == [400]


def test_requests_need_exactly_one_host(shop):
    assert statuses(raw(shop, b"GET /live HTTP/1.1\r\n\r\n")) == [400]
    assert statuses(raw(shop, b"GET /live HTTP/1.1\r\n" + HOST + HOST + b"\r\n")) == [400]


@pytest.mark.parametrize("path", ["/live", "/read", "/nothing", "/boom", "/slow"])
def test_every_answer_has_the_headers_for_browsers_and_an_id_of_its_own(shop, path):
    first = shop.ask(f"GET {path}")
    second = shop.ask(f"GET {path}\r\nX-Request-Id: mine")
    assert second.headers["x-request-id"] not in ("mine", first.headers["x-request-id"])
    assert "default-src 'none'" in first.headers["content-security-policy"]
    assert "unsafe-inline" not in first.headers["content-security-policy"]
    assert first.headers["x-content-type-options"] == "nosniff"
    assert first.headers["referrer-policy"] == "no-referrer"
    assert first.headers["cross-origin-resource-policy"] == "same-origin"
    assert first.headers["cross-origin-opener-policy"] == "same-origin"
    assert first.headers["cache-control"] == "no-store"
    assert "server" not in first.headers


def test_head_is_answered_like_get_without_a_body(shop):
    with shop.wire() as wire:
        wire.send(b"HEAD /read HTTP/1.1\r\n" + HOST + b"\r\nHEAD /none HTTP/1.1\r\n" + HOST)
        wire.send(b"Connection: close\r\n\r\n")
        answer = wire.rest()
    assert statuses(answer) == [200, 404]
    assert b"{" not in answer


PATIENT = SHORT.model_copy(update={"handler_seconds": 60.0})


@pytest.fixture(scope="module")
def patient_shop():
    """A stalled machine must not turn an answer into a 503."""
    with open_shop(limits=PATIENT) as shop:
        yield shop


def test_S18_requests_with_random_faults_never_fail_the_server(patient_shop):
    """Bytes of good requests are changed, dropped and doubled at random; each may be refused."""
    shop = patient_shop
    rng = random.Random(7)
    good = [
        b"GET /users/a?b=c HTTP/1.1\r\nHost: localhost\r\nX-Y: z\r\nConnection: close\r\n\r\n",
        b"POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde" + SMUGGLED,
        b"POST /bulk HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n" + SMUGGLED,
    ]
    wires = []
    for number in range(240):
        data = bytearray(good[number % 3])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 8)]
                case 2:
                    data[at:at] = data[at : at + rng.randint(1, 8)]
                case _:
                    data[at:at] = rng.choice([b"\r\n", b"\n", b"\0", b" ", b"\xff", b":", b"\r"])
        wires.append(shop.wire())
        wires[-1].send(bytes(data))
    found = set()
    for wire in wires:
        with wire:
            found.update(statuses(wire.rest()))
    assert found <= {200, 400, 404, 405, 408, 413, 414, 415, 417, 421, 431, 505}
    assert {200, 400, 421} <= found
    assert shop.ask("GET /read").status == 200
