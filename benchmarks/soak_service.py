"""What many requests leave behind in the service: memory, open files, threads.

    python benchmarks/soak_service.py --requests 1000000
    python benchmarks/soak_service.py --requests 100000 --connections 8

A small bundle is trained and served by `nextbuy serve` in a process of its own. Clients on some
connections ask for predictions and histories, send purchases, and make mistakes; purchases carry
one of 1,000 idempotency keys, so that all of the way of a write is gone but nothing is stored that
would rightly take room. Live quality is judged every ten seconds, not every five minutes, so that
what it needs is there early, and of few answers: it holds as many as were kept, up to 50,000.
Resident memory, open files and threads are read 20 times on the way; the slope is that of a line
through all but the first quarter, in which caches fill and pools start. Prints one JSON line;
leaves with 1 if the memory grows by more than 5 MiB per million requests and by more than 8 MiB in
all, if an answer is not what was expected, or if files or threads are left.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from kill_service import HOST, Server

KEYS = 1_000
USERS = 200
LOOKS = 20
SETTINGS = """
page = false
watch_seconds = 10
served_share = 0.001
[limits]
rate = 1e9
burst = 1000000000
"""
MOST_SLOPE = 5.0
MOST_GROWTH = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = run(Path(temporary), arguments.requests, arguments.connections)
    print(json.dumps(found))
    is_flat = found["mib_per_million"] <= MOST_SLOPE or found["growth_mib"] <= MOST_GROWTH
    left = [found[name][-1] - found[name][0] > 2 for name in ("open_files", "threads")]
    sys.exit(not is_flat or any(left) or bool(found["unexpected"]))


def run(folder: Path, requests: int, connections: int) -> dict[str, Any]:
    """Train, serve, ask, count."""
    nextbuy, bundle = [sys.executable, "-m", "nextbuy"], folder / "shop"
    train = ["train", "world:market", "--users", str(USERS)]
    train += ["--models", "popularity,personal-frequency"]
    subprocess.run([*nextbuy, *train, "--out", str(bundle)], check=True, stdout=subprocess.DEVNULL)
    config = folder / "serve.toml"
    config.write_text(SETTINGS)
    serve = ["serve", str(bundle), "--config", str(config), "--log", "error"]
    server = Server([*nextbuy, *serve], folder / "serve.log")
    server.start()
    try:
        server.wait_until_ready()
        return asyncio.run(measure(server, requests, connections))
    finally:
        server.terminate()


async def measure(server: Server, requests: int, connections: int) -> dict[str, Any]:
    process = psutil.Process(server.pid)
    soak = Soak(server.port)
    await soak.ask(10 * USERS, connections)  # until all users are known
    soak.answers.clear()
    soak.unexpected = 0
    began, memory, held = time.monotonic(), [resident(process)], []
    for _ in range(LOOKS):
        await soak.ask(requests // LOOKS, connections)
        memory.append(resident(process))
        held.append((process.num_fds(), process.num_threads()))
    seconds = time.monotonic() - began
    rest, (files, threads) = memory[LOOKS // 4 :], zip(*held[LOOKS // 4 - 1 :], strict=True)
    places = np.arange(len(rest)) * (requests / LOOKS / 1e6)
    return {
        "requests": requests, "connections": connections, "seconds": round(seconds, 1),
        "per_second": round(requests / seconds),
        "answers": {str(status): count for status, count in sorted(soak.answers.items())},
        "unexpected": soak.unexpected,
        "mib": [round(each, 1) for each in memory],
        "growth_mib": round(rest[-1] - rest[0], 2),
        "mib_per_million": round(float(np.polyfit(places, rest, 1)[0]), 2),
        "open_files": files,
        "threads": threads,
        "versions": {name: version(name) for name in ("nextbuy", "fastapi", "uvicorn", "apsw")},
    }  # fmt: skip


class Soak:
    """Asks over connections that stay open."""

    def __init__(self, port: int) -> None:
        self.port, self.number, self.unexpected = port, 0, 0
        self.answers: Counter[int] = Counter()

    async def ask(self, requests: int, connections: int) -> None:
        """So many requests, on so many connections at once."""
        end = self.number + requests
        await asyncio.gather(*(self._ask_until(end) for _ in range(connections)))

    async def _ask_until(self, end: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        while self.number < end:
            self.number += 1
            expected, request = request_of(self.number, self.port)
            writer.write(request)
            status = await status_of(reader)
            self.answers[status] += 1
            self.unexpected += status != expected
        writer.close()
        await writer.wait_closed()


def request_of(number: int, port: int) -> tuple[int, bytes]:
    """A request and the status that it should have."""
    user, headers = f"u{number % USERS}", ""
    expected, method, path, body = 200, "POST", "/v1/predict", ""
    match number % 10:
        case 0 | 1 | 2 | 3:
            body = json.dumps({"users": [user], "k": 10})
        case 4 | 5 | 6:
            path, key = "/v1/purchases", number // 10 % KEYS
            body = json.dumps({"purchase": {"user_id": f"u{key % USERS}", "item_id": "soak",
                                            "timestamp": "2026-01-01T00:00:00Z"}})  # fmt: skip
            headers = f"Idempotency-Key: {key}\r\n"
        case 7:
            method, path = "GET", "/health/ready"
        case 8:
            method, path = "GET", f"/v1/users/{user}?limit=10"
        case _:
            expected, body = 422, '{"users": []}'
    if body:
        headers += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{headers}\r\n"
    return expected, (head + body).encode()


async def status_of(reader: asyncio.StreamReader) -> int:
    """Of the next answer, which is read whole."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next(
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


def resident(process: psutil.Process) -> float:
    """MiB."""
    return float(process.memory_info().rss) / 2**20


if __name__ == "__main__":
    main()
