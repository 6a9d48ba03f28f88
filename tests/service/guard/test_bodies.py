"""Bodies: measured before they are held, dropped when they are late."""

import json
import threading
import time

import psutil
import pytest

from tests.service.guard.shop import SHORT, open_shop, wait_until


@pytest.fixture(scope="module")
def shop():
    with open_shop() as shop:
        yield shop


def chunked(parts):
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def seen(reply):
    assert reply.status == 200
    return json.loads(reply.body)["bytes"]


@pytest.mark.parametrize(("path", "limit"), [("/write", 2**16), ("/bulk", 2**18)])
def test_S01_a_body_at_the_limit_passes_and_one_byte_more_does_not(shop, path, limit):
    body = b"a" * limit
    assert seen(shop.ask(f"POST {path}\r\nContent-Length: {limit}", body)) == limit
    assert seen(shop.ask(f"POST {path}\r\nTransfer-Encoding: chunked", chunked([body]))) == limit
    before = len(shop.app.seen) if path == "/write" else None
    more = body + b"a"
    assert shop.ask(f"POST {path}\r\nContent-Length: {limit + 1}", more).status == 413
    assert shop.ask(f"POST {path}\r\nTransfer-Encoding: chunked", chunked([more])).status == 413
    assert before is None or len(shop.app.seen) == before  # the application was not asked


def test_S01_a_large_length_is_refused_before_a_byte_of_the_body_is_sent(shop):
    with shop.wire() as wire:
        wire.send(b"POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000000\r\n\r\n")
        reply = wire.reply()
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert reply.headers["content-type"] == "application/problem+json"


def test_S01_a_client_that_waits_to_be_asked_for_its_body_is_told_at_once(shop):
    head = "POST /write\r\nExpect: 100-continue\r\nContent-Length: "
    assert shop.ask(head + "200000000").status == 413
    with shop.wire() as wire:
        wire.send(
            b"POST /write HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Length: 3\r\n\r\n"
        )
        assert wire.reply().status == 100
        wire.send(b"abc")
        assert seen(wire.reply()) == 3


def test_S01_a_false_length_harms_only_its_own_connection(shop):
    with shop.wire() as wire:  # more than it says: the rest is no request
        wire.send(b"POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabcdefgh")
        assert seen(wire.reply()) == 3
        assert wire.reply().status == 400
        assert wire.rest() == b""
    for length in ("-1", "0x10", "1e3", "99999999999999999999999", "3, 3", ""):
        assert shop.ask(f"POST /write\r\nContent-Length: {length}", b"abc").status in (400, 413)
    assert shop.ask("GET /live").status == 200


@pytest.mark.parametrize("path", ["/write", "/bulk"])
def test_S15_a_body_that_never_comes_gets_408_and_the_connection_ends(shop, path):
    with shop.wire() as wire:
        wire.send(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc".encode()
        )
        began = time.monotonic()
        assert wire.reply().status == 408
        assert SHORT.body_seconds * 0.9 < time.monotonic() - began < SHORT.body_seconds + 2
        wire.socket.shutdown(1)
        assert wire.rest() == b""


def test_S15_a_body_that_trickles_gets_408_however_often_a_byte_comes(shop):
    with shop.wire() as wire:
        wire.send(b"POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n")
        stop = threading.Event()

        def trickle():
            while not stop.wait(0.02):
                try:
                    wire.send(b"a")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert wire.reply().status == 408
        finally:
            stop.set()
            thread.join()


def test_S02_very_many_tiny_chunks_are_cut_off(shop):
    with shop.wire() as wire:
        wire.send(b"POST /bulk HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(50):
            wire.send(b"1\r\na\r\n" * 2_000)
        assert wire.reply().status == 413
        assert wire.rest() == b""
    parts = [b"a" * 32] * 2_000  # small chunks are fine
    assert seen(shop.ask("POST /write\r\nTransfer-Encoding: chunked", chunked(parts))) == 64_000
    parts = [b"a"] * 1_000  # a thousand of one byte as well
    assert seen(shop.ask("POST /write\r\nTransfer-Encoding: chunked", chunked(parts))) == 1_000


def test_S02_the_answer_to_tiny_chunks_is_413(shop):
    body = b"1\r\na\r\n" * 1_100
    assert shop.ask("POST /write\r\nTransfer-Encoding: chunked", body).status == 413


def test_S02_endless_chunk_extensions_are_cut_off(shop):
    with shop.wire() as wire:
        wire.send(b"POST /bulk HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        for _ in range(20):
            wire.send(b"x" * 2**16)
        assert wire.reply().status == 413
        assert wire.rest() == b""


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "GZIP", "identity, gzip"])
def test_S03_compressed_bodies_are_refused_unread(shop, encoding):
    before = len(shop.app.seen)
    for path in ("/write", "/bulk"):
        head = f"POST {path}\r\nContent-Encoding: {encoding}\r\nContent-Length: 4"
        assert shop.ask(head, b"\x1f\x8b\x08\x00").status == 415
    assert len(shop.app.seen) == before
    assert seen(shop.ask("POST /write\r\nContent-Encoding: identity\r\nContent-Length: 1", b"a"))


def test_bodies_of_many_clients_share_a_bound():
    limits = SHORT.model_copy(update={"buffered_bytes": 100_000, "body_seconds": 5.0})
    with open_shop(limits=limits) as shop, shop.wire() as first, shop.wire() as second:
        head = b"POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60001\r\n\r\n"
        first.send(head + b"a" * 60_000)
        wait_until(lambda: shop.guard.buffered.left < 100_000 - 59_999)
        second.send(head + b"a" * 60_000)
        reply = second.reply()
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        first.send(b"a")
        assert seen(first.reply()) == 60_001
        wait_until(lambda: shop.guard.buffered.left == 100_000)


def test_a_get_with_a_body_keeps_the_connection_in_step(shop):
    with shop.wire() as wire:
        wire.send(b"GET /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        assert seen(wire.reply()) == 3
        wire.get("/live")
        assert wire.reply().status == 200


def test_S01_S02_S03_hostile_bodies_leave_no_memory_behind(shop):
    process = psutil.Process()
    large, tiny = b"a" * 2**18, b"1\r\na\r\n" * 1_100

    def attack(count):
        for _ in range(count):
            assert shop.ask("POST /write\r\nContent-Length: 200000000", large).status == 413
            head = "POST /write\r\nTransfer-Encoding: chunked"
            assert shop.ask(head, chunked([large])).status == 413
            assert shop.ask(head, tiny).status == 413
            head = "POST /write\r\nContent-Encoding: gzip\r\nContent-Length: 9"
            assert shop.ask(head, b"\x1f\x8b\x08abcdef").status == 415

    attack(25)
    before = process.memory_info().rss
    attack(25)
    assert process.memory_info().rss - before < 2**20
    wait_until(lambda: shop.guard.buffered.left == SHORT.buffered_bytes)
