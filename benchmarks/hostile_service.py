"""What a healthy client notices while others attack the service, and what they leave behind.

    python benchmarks/hostile_service.py --url http://127.0.0.1:8000 --pid PID \
        --healthy /health/live --target /v1/purchases

A healthy client asks 50 times a second over one connection, from a process of its own, before and
during each attack:

    slow heads    200 connections that send a byte of a header every 200 ms, each at its own time
                  unless they are told to go in step
    slow bodies   200 connections that do so with a body
    idle          2,000 connections that say nothing; told apart from the time in which they come
    S01 .. S04    100 hostile bodies each, 4 at a time, and again 100, of which the growth is told:
                  too large (announced, chunked, false length), a million chunks of one byte,
                  compressed, and JSON that is nested 100,000 deep or has 100,000 keys

Prints one JSON object: p50 and p99 of the healthy client, its failures, what the attackers were
answered, growth of resident memory per 100 hostile requests, open files and threads before and
after. Refuses addresses other than loopback. Ends within `--seconds`, with status 1 if attacks were
left out.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import resource
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psutil

from nextbuy.service.guard.hosts import is_loopback

RATE = 50
SLOW = 200
PAUSE = 0.2  # seconds between two bytes of a slow client
IDLE = 2_000
BODIES = 100
AT_ONCE = 4


@dataclass(frozen=True)
class Place:
    """Where the service is, and how to ask it."""

    host: str
    port: int
    healthy: str
    target: str
    key: str | None
    body: str | None
    in_step: bool

    def head(self, method: str, path: str, *lines: str) -> bytes:
        key = [f"Authorization: Bearer {self.key}"] if self.key else []
        fields = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", *key, *lines]
        return ("\r\n".join(fields) + "\r\n").encode()

    def healthy_request(self) -> bytes:
        if self.body is None:
            return self.head("GET", self.healthy) + b"\r\n"
        data = self.body.encode()
        lines = ("Content-Type: application/json", f"Content-Length: {len(data)}")
        return self.head("POST", self.healthy, *lines) + b"\r\n" + data

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True, help="such as http://127.0.0.1:8000")
    parser.add_argument("--pid", type=int, required=True, help="of the service")
    parser.add_argument("--healthy", default="/health/live", help="path of the healthy client")
    parser.add_argument("--body", help="JSON that it sends; without it asks by GET")
    parser.add_argument("--target", default="/v1/purchases", help="path that takes a POST of JSON")
    parser.add_argument("--key", help="for both")
    parser.add_argument("--in-step", action="store_true", help="slow clients send all at once")
    parser.add_argument("--seconds", type=float, default=180.0, help="end by then")
    arguments = parser.parse_args()
    url = urlsplit(arguments.url)
    if not url.hostname or not is_loopback(url.hostname):
        sys.exit(f"{arguments.url} is not on this machine; nothing was attacked.")
    place = Place(
        url.hostname, url.port or 80, arguments.healthy, arguments.target, arguments.key,
        arguments.body, arguments.in_step,
    )  # fmt: skip
    raise_limit_of_files(IDLE + 500)
    found: dict[str, Any] = {}
    try:
        asyncio.run(
            asyncio.wait_for(measure(place, arguments.pid, found), timeout=arguments.seconds)
        )
    except TimeoutError:
        found["ended_early_after_seconds"] = arguments.seconds
    print(json.dumps(found))
    sys.exit(1 if "ended_early_after_seconds" in found else 0)


def raise_limit_of_files(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed <= hard or hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


@dataclass
class Answers:
    """What attackers were told: statuses, or `closed`."""

    of: Counter[str] = field(default_factory=Counter)


async def measure(place: Place, pid: int, found: dict[str, Any]) -> None:
    """Fills `found` step by step, so that what was measured is told even if time runs out."""
    process = psutil.Process(pid)
    before = (process.num_fds(), process.num_threads())
    with healthy_client(place) as latencies_between:
        began = time.monotonic()
        await asyncio.sleep(4)
        calm = told(latencies_between(began, time.monotonic()))
        found["before"] = calm
        for name, attack in ATTACKS.items():
            began, answers = time.monotonic(), Answers()
            facts = await attack(place, process, answers)
            ended, since = time.monotonic(), facts.pop("since", began)
            facts |= told(latencies_between(since, ended))
            facts["p99_over_before"] = round(facts["p99_ms"] / calm["p99_ms"], 2)
            if since > began:
                facts["while_they_came"] = told(latencies_between(began, since))
            found[name] = {"seconds": round(ended - began, 1), **facts}
            found[name]["answers"] = dict(answers.of)
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
        began = time.monotonic()
        await asyncio.sleep(3)
        found["after"] = told(latencies_between(began, time.monotonic()))
    await asyncio.sleep(1)
    found["open_files"] = [before[0], process.num_fds()]
    found["threads"] = [before[1], process.num_threads()]


# The healthy client


@contextlib.contextmanager
def healthy_client(
    place: Place,
) -> Iterator[Callable[[float, float], list[tuple[float, float, bool]]]]:
    """Gives a function that tells the requests that began between two moments."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    stop = context.Event()
    process = context.Process(target=ask_for_ever, args=(place, sending, stop), daemon=True)
    process.start()
    receiving.poll(30)
    samples: list[tuple[float, float, bool]] = []

    def between(first: float, last: float) -> list[tuple[float, float, bool]]:
        while receiving.poll(0):
            samples.append(receiving.recv())
        return [sample for sample in samples if first <= sample[0] <= last]

    try:
        yield between
    finally:
        stop.set()
        process.join(10)


def ask_for_ever(place: Place, sending: Any, stop: Any) -> None:
    """Ask at an even rate; sends when each request began, its seconds, and whether it was fine."""
    request, connection = place.healthy_request(), None
    due = time.monotonic()
    while not stop.is_set():
        due = max(due + 1 / RATE, time.monotonic() - 1)
        time.sleep(max(0.0, due - time.monotonic()))
        began = time.monotonic()
        try:
            if connection is None:
                connection = socket.create_connection((place.host, place.port), timeout=10)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request)
            is_fine = read_answer(connection)
        except OSError:
            is_fine = False
        if not is_fine and connection is not None:
            connection.close()
            connection = None
        sending.send((began, time.monotonic() - began, is_fine))


def read_answer(connection: socket.socket) -> bool:
    """Read one answer that has a length; whether its status is 2xx."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return False
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    lengths = [line.split(b":")[1] for line in lines if line.startswith(b"content-length:")]
    left = int(lengths[0]) - len(body) if lengths else 0
    while left > 0:
        part = connection.recv(65536)
        if not part:
            return False
        left -= len(part)
    return head.split(b" ", 2)[1].startswith(b"2")


def told(samples: list[tuple[float, float, bool]]) -> dict[str, Any]:
    seconds = [sample[1] for sample in samples] or [float("nan")]
    cuts = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
    return {
        "requests": len(samples),
        "failed": sum(not sample[2] for sample in samples),
        "p50_ms": round(statistics.median(seconds) * 1e3, 2),
        "p99_ms": round(cuts[98] * 1e3, 2),
    }


# Attacks


async def slow_heads(place: Place, _: psutil.Process, answers: Answers) -> dict[str, Any]:
    return await trickle(place, place.head("GET", place.healthy, "X: "), answers)


async def slow_bodies(place: Place, _: psutil.Process, answers: Answers) -> dict[str, Any]:
    lines = ("Content-Type: application/json", "Content-Length: 100000")
    return await trickle(place, place.head("POST", place.target, *lines) + b"\r\n", answers)


async def trickle(place: Place, head: bytes, answers: Answers, most: float = 40) -> dict[str, Any]:
    """Many clients that send a byte now and then; how long the last of them was borne with."""
    firsts = [0.0 if place.in_step else PAUSE * n / SLOW for n in range(SLOW)]
    lives = await asyncio.gather(
        *(one_trickle(place, head, answers, most, first) for first in firsts)
    )
    return {"connections": SLOW, "longest_seconds": round(max(lives), 1)}


async def one_trickle(
    place: Place, head: bytes, answers: Answers, most: float, first: float
) -> float:
    await asyncio.sleep(first)
    began = time.monotonic()
    try:
        reader, writer = await place.connect()
        writer.write(head.removesuffix(b"\r\n") if b"X: " in head else head)
        answer = asyncio.ensure_future(reader.read(65536))
        while not answer.done() and time.monotonic() - began < most:
            writer.write(b"a")
            await asyncio.wait([answer], timeout=PAUSE)
        answers.of[status_of(answer.result()) if answer.done() else "still open"] += 1
        answer.cancel()
        writer.transport.abort()
    except OSError:
        answers.of["closed"] += 1
    return time.monotonic() - began


async def idle(place: Place, process: psutil.Process, answers: Answers) -> dict[str, Any]:
    before, writers = process.memory_info().rss, []
    for _ in range(IDLE):
        try:
            writers.append((await place.connect())[1])
        except OSError:
            answers.of["refused"] += 1
    since = time.monotonic()
    await asyncio.sleep(5)
    grown = process.memory_info().rss - before
    for writer in writers:
        writer.transport.abort()
    return {
        "connections": len(writers), "grown_mib": round(grown / 2**20, 2), "since": since,
    }  # fmt: skip


def hostile(kind: Callable[[Place, int], tuple[bytes, bytes]]) -> Callable[..., Awaitable[Any]]:
    """An attack that sends 200 bodies of a kind."""

    async def attack(place: Place, process: psutil.Process, answers: Answers) -> dict[str, Any]:
        sizes = [process.memory_info().rss]
        for _ in range(2):
            room = asyncio.Semaphore(AT_ONCE)

            async def one(number: int, room: asyncio.Semaphore = room) -> None:
                async with room:
                    answers.of[await send(place, *kind(place, number))] += 1

            await asyncio.gather(*(one(number) for number in range(BODIES)))
            await asyncio.sleep(1)
            sizes.append(process.memory_info().rss)
        return {
            "grown_mib_first_100": round((sizes[1] - sizes[0]) / 2**20, 2),
            "grown_mib_next_100": round((sizes[2] - sizes[1]) / 2**20, 2),
        }

    return attack


async def send(place: Place, head: bytes, body: bytes) -> str:
    """Send a request as far as the service lets us; what it says."""
    try:
        reader, writer = await place.connect()
    except OSError:
        return "refused"
    answer = asyncio.ensure_future(reader.read(65536))
    try:
        writer.write(head + b"\r\n")
        for at in range(0, len(body), 65536):
            writer.write(body[at : at + 65536])
            await writer.drain()
            if answer.done():
                break
        return status_of(await asyncio.wait_for(answer, 40))
    except TimeoutError:
        return "no answer"
    except OSError:
        return status_of(answer.result()) if answer.done() and not answer.exception() else "closed"
    finally:
        answer.cancel()
        writer.transport.abort()


def status_of(answer: bytes) -> str:
    return answer.split(b" ", 2)[1].decode("latin-1") if answer.count(b" ") > 1 else "closed"


JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
LARGE = b"a" * 2**22
CHUNKS = b"1\r\na\r\n" * 10**6 + b"0\r\n\r\n"
DEEP = b"[" * 100_000 + b"]" * 100_000
KEYS = json.dumps({f"k{number}": 0 for number in range(80_000)}).encode()


def too_large(place: Place, number: int) -> tuple[bytes, bytes]:
    if number % 3 == 0:
        return place.head("POST", place.target, JSON, "Content-Length: 200000000"), LARGE
    if number % 3 == 1:
        body = b"%x\r\n" % len(LARGE) + LARGE + b"\r\n0\r\n\r\n"
        return place.head("POST", place.target, JSON, CHUNKED), body
    return place.head("POST", place.target, JSON, "Content-Length: 1"), LARGE


def tiny_chunks(place: Place, _: int) -> tuple[bytes, bytes]:
    return place.head("POST", place.target, JSON, CHUNKED), CHUNKS


def compressed(place: Place, number: int) -> tuple[bytes, bytes]:
    encoding = ("gzip", "br", "zstd")[number % 3]
    lines = (JSON, f"Content-Encoding: {encoding}", "Content-Length: 100000")
    return place.head("POST", place.target, *lines), b"\x1f\x8b" + b"\0" * 99_998


def deep_json(place: Place, number: int) -> tuple[bytes, bytes]:
    body = KEYS if number % 2 else DEEP
    return place.head("POST", place.target, JSON, f"Content-Length: {len(body)}"), body


ATTACKS: dict[str, Callable[[Place, psutil.Process, Answers], Awaitable[dict[str, Any]]]] = {
    "S15 slow heads": slow_heads,
    "S15 slow bodies": slow_bodies,
    "S16 idle": idle,
    "S01 too large": hostile(too_large),
    "S02 tiny chunks": hostile(tiny_chunks),
    "S03 compressed": hostile(compressed),
    "S04 deep JSON": hostile(deep_json),
}


if __name__ == "__main__":
    main()
