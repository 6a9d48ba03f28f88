"""Too many at once: who is served, who is told to come again, and that nothing is left behind."""

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import psutil
import pytest

from nextbuy.errors import ConfigError
from nextbuy.service.config import Limits
from nextbuy.service.guard.keys import KeyRing, add_key
from nextbuy.service.guard.rates import Rates
from nextbuy.service.guard.serving import _within_descriptors, listen
from tests.service.guard.shop import SHORT, Wire, open_shop, wait_until


@pytest.fixture(scope="module")
def shop():
    with open_shop() as shop:
        yield shop


def test_S16_idle_connections_do_not_keep_others_waiting(shop):
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(shop.wire())
        began = time.monotonic()
        assert shop.ask("GET /read").status == 200
        assert time.monotonic() - began < 1


def test_S16_connections_above_the_cap_are_told_so_and_room_is_given_again():
    limits = SHORT.model_copy(update={"connections": 10, "header_seconds": 5.0})
    with open_shop(limits=limits) as shop, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(shop.wire()) for _ in range(10)]
        wires[0].get("/read")
        assert wires[0].reply().status == 200
        for _ in range(3):
            with shop.wire() as late:
                began = time.monotonic()
                late.get("/read")
                reply = late.reply()
                assert (reply.status, reply.headers["retry-after"]) == (503, "1")
                assert time.monotonic() - began < 2
        wires[1].get("/read")
        assert wires[1].reply().status == 200
        wires[2].socket.close()
        wait_until(lambda: is_served(shop))


def is_served(shop):
    try:
        return shop.ask("GET /read").status == 200
    except (EOFError, ConnectionError):
        return False


def test_S16_no_more_connections_than_the_system_lets_us_open(monkeypatch, caplog):
    """A process that may open 400 files keeps 256 of them for other things."""
    said = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 400))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: said.append(pair))
    limits = _within_descriptors(Limits(connections=4_096))
    assert limits.connections == 400 - 256
    assert said == [(400, 400)]
    assert "at most 144 connections, not 4096" in caplog.text
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 10**6))
    assert _within_descriptors(Limits(connections=4_096)).connections == 4_096
    assert said[-1] == (4_096 + 256, 10**6)


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_S17_work_for_a_client_that_vanished_is_cancelled(leave):
    limits = SHORT.model_copy(update={"concurrency": 1})
    with open_shop(limits=limits) as shop:
        with shop.wire() as wire:
            wire.get("/wait")
            wait_until(lambda: "/wait" in shop.app.seen)
            if leave == "reset":
                at_once = struct.pack("ii", 1, 0)
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        wait_until(lambda: shop.app.cancelled == 1)
        assert shop.ask("GET /read").status == 200  # the only slot is free again
        assert shop.app.finished == 0


def test_S17_half_a_body_is_never_seen_by_the_application(shop):
    before = len(shop.app.seen)
    with shop.wire() as wire:
        wire.send(b"POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        wait_until(lambda: shop.guard.buffered.left < SHORT.buffered_bytes)
    wait_until(lambda: shop.guard.buffered.left == SHORT.buffered_bytes)
    assert len(shop.app.seen) == before


def test_S17_a_client_that_leaves_the_queue_leaves_no_gap():
    limits = SHORT.model_copy(update={"concurrency": 1, "queue": 2})
    with open_shop(limits=limits) as shop, shop.wire() as first:
        first.get("/wait")
        wait_until(lambda: "/wait" in shop.app.seen)
        with shop.wire() as second:
            second.get("/wait")
            wait_until(lambda: shop.guard.slots.waiting == 1)
        wait_until(lambda: shop.guard.slots.waiting == 0)
        shop.app.let_go_on()
        assert first.reply().status == 200
        assert shop.ask("GET /read").status == 200


def test_S17_clients_that_hang_up_do_not_fill_the_machine_with_threads():
    limits = SHORT.model_copy(update={"concurrency": 3, "queue": 3, "handler_seconds": 5.0})
    with open_shop(limits=limits) as shop:
        for number in range(30):
            with shop.wire() as wire:
                wire.get("/thread")
                wait_until(lambda n=number: shop.app.in_threads == min(n + 1, 3))
        assert shop.app.in_threads == 3
        shop.app.release.set()
        wait_until(lambda: shop.app.in_threads == 0)
        assert shop.ask("GET /read").status == 200


def test_a_thread_that_goes_on_keeps_its_slot_but_its_client_is_answered():
    limits = SHORT.model_copy(update={"concurrency": 1, "queue": 0})
    with open_shop(limits=limits) as shop:
        began = time.monotonic()
        assert shop.ask("GET /thread").status == 503
        assert time.monotonic() - began < 2
        assert shop.app.in_threads == 1
        assert shop.ask("GET /read").status == 503
        shop.app.release.set()
        wait_until(lambda: is_served(shop))
        assert shop.app.in_threads == 0


def test_S47_what_does_not_fit_the_queue_is_told_to_come_again_at_once():
    limits = SHORT.model_copy(update={"concurrency": 2, "queue": 3})
    with open_shop(limits=limits) as shop, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(shop.wire()) for _ in range(5)]
        for number, wire in enumerate(wires, start=1):
            wire.get("/wait")
            wait_until(lambda n=number: len(shop.app.seen) + shop.guard.slots.waiting == n)
        began = time.monotonic()
        refused = [shop.ask("GET /wait") for _ in range(5)]
        assert time.monotonic() - began < 1
        assert {(one.status, one.headers["retry-after"]) for one in refused} == {(503, "1")}
        assert shop.ask("GET /live").status == 200  # whether the process lives is always told
        shop.app.let_go_on()
        assert [wire.reply().status for wire in wires] == [200] * 5
        assert shop.ask("GET /read").status == 200


def test_S47_waiting_counts_as_time_to_answer():
    limits = SHORT.model_copy(update={"concurrency": 1})
    with open_shop(limits=limits) as shop, shop.wire() as first:
        first.get("/wait")
        wait_until(lambda: "/wait" in shop.app.seen)
        began = time.monotonic()
        assert shop.ask("GET /read").status == 503
        assert 0.25 < time.monotonic() - began < 2
        shop.app.let_go_on()
        assert first.reply().status == 200


def test_S47_a_key_that_asks_too_often_gets_429_and_others_do_not(tmp_path):
    path = tmp_path / "keys.json"
    eager, calm = (add_key(path, name, ["read"]) for name in ("eager", "calm"))
    limits = SHORT.model_copy(update={"rate": 0.01, "burst": 3})
    with open_shop(limits=limits, keys=path) as shop:
        head = f"GET /read\r\nAuthorization: Bearer {eager}"
        replies = [shop.ask(head) for _ in range(5)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
        assert 90 <= int(replies[-1].headers["retry-after"]) <= 100  # one token in 100 seconds
        assert shop.ask(f"GET /read\r\nAuthorization: Bearer {calm}").status == 200
        assert shop.ask("GET /read").status == 401
        assert shop.ask("GET /live").status == 200


def test_rates_are_a_bucket_that_fills_up_to_its_burst():
    now = 100.0
    rates = Rates(2.0, 2, clock=lambda: now)
    assert [rates.wait("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    now = 100.25
    assert rates.wait("a") == 0.25
    now = 100.5
    assert rates.wait("a") == 0.0
    now = 1_000.0
    assert [rates.wait("a") for _ in range(3)] == [0.0, 0.0, 0.5]


def test_S31_setting_the_clock_changes_no_rate(monkeypatch):
    rates = Rates(0.001, 1)
    assert rates.wait("a") == 0.0
    for jump in (3_600, -3_600, 10**9):
        monkeypatch.setattr(time, "time", lambda jump=jump: 1.8e9 + jump)
        monkeypatch.setattr(time, "time_ns", lambda jump=jump: (1_800_000_000 + jump) * 10**9)
        assert 990 < rates.wait("a") <= 1_000


def test_the_deadline_of_a_handler_is_503_and_a_broken_off_answer_is_cut(shop):
    cancelled = shop.app.cancelled
    reply = shop.ask("GET /slow")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    wait_until(lambda: shop.app.cancelled == cancelled + 1)
    with shop.wire() as wire:
        wire.get("/half")
        answer = wire.rest()
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"4\r\nhalf\r\n")  # no end


def test_S49_a_port_that_is_taken_is_said_so(shop):
    with pytest.raises(ConfigError, match=f"Port {shop.port} .* taken"):
        listen("127.0.0.1", shop.port, KeyRing(None))


@pytest.mark.parametrize("signals", [1, 2])
def test_S48_a_signal_under_load_loses_no_answer_and_ends_in_time(signals):
    command = [sys.executable, "-m", "tests.service.guard.run_shop"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(port)) for _ in range(20)]
            idle = stack.enter_context(Wire(port))
            for wire in wires:
                wire.get("/pause")
            wait_until(lambda: in_flight(port) == 20)
            began = time.monotonic()
            for _ in range(signals):
                process.send_signal(signal.SIGTERM)
            assert [wire.reply().status for wire in wires] == [200] * 20
            assert idle.rest() == b""
            process.wait(10)
            assert time.monotonic() - began < 10
        assert process.returncode == -signal.SIGTERM
        assert process.stdout.read() == "stopped\n"
    with pytest.raises(ConnectionRefusedError):
        Wire(port)


def test_S48_what_does_not_end_in_time_is_told_so_and_cut():
    with contextlib.ExitStack() as stack:
        with open_shop(stop_seconds=0.3) as shop:
            wires = [stack.enter_context(shop.wire()) for _ in range(3)]
            for wire in wires:
                wire.get("/wait")
            wait_until(lambda: len(shop.app.seen) == 3)
            began = time.monotonic()
        assert time.monotonic() - began < 3
        for wire in wires:
            reply = wire.reply()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert wire.rest() == b""
        assert shop.app.cancelled == 3


def in_flight(port):
    with Wire(port) as wire:
        wire.get("/live")
        return json.loads(wire.reply().body)["in_flight"]


def test_S51_thousands_of_requests_leave_nothing_behind(shop):
    process = psutil.Process(os.getpid())

    def some(count):
        for _ in range(count):
            with shop.wire() as wire:
                wire.send(b"GET /read HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)
                assert [wire.reply().status for _ in range(10)] == [200] * 10
                wire.send(b"POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\na")
                assert wire.reply().status == 200
            shop.app.seen.clear()
            shop.app.headers.clear()

    some(50)
    wait_until(lambda: not shop.guard.slots.waiting)
    before = process.num_fds(), threading.active_count(), process.memory_info().rss
    some(300)
    wait_until(lambda: process.num_fds() <= before[0])
    assert threading.active_count() == before[1]
    assert process.memory_info().rss - before[2] < 2 * 2**20
    assert shop.guard.buffered.left == SHORT.buffered_bytes
