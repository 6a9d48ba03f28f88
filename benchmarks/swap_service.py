"""Bundles that are swapped while the service is asked, half of them broken.

    python benchmarks/swap_service.py --swaps 20

Two versions of a small bundle, which answer differently, lie in one folder beside damaged copies of
them. Eight clients ask for predictions while every other swap is told to take a broken one. Each
answer has to be, whole, that of the version that it names, and no request may fail. Prints one JSON
line; leaves with 1 if anything is wrong.
"""

import argparse
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from kill_service import HOST, Server

CLIENTS = 8
AS_OF = "2025-01-01T00:00:00Z"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swaps", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = run(Path(temporary), arguments.swaps)
    print(json.dumps(found))
    wrong = found["failed"] + found["mixed"] + found["unexpected_swaps"]
    sys.exit(wrong > 0 or min(found["answers_by_version"].values()) == 0)


def run(folder: Path, swaps: int) -> dict[str, Any]:
    """Train two, damage two, serve, ask, swap."""
    shop = folder / "shop"
    nextbuy = [sys.executable, "-m", "nextbuy"]
    for models in ("popularity,recency-popularity", "popularity,personal-frequency"):
        subprocess.run(
            [*nextbuy, "train", "world:market", "--users", "200", "--models", models, "--out",
             str(shop)], check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    for number in ("000001", "000002"):
        broken = shop / "versions" / f"9{number[1:]}"
        shutil.copytree(shop / "versions" / number, broken)
        file = max(broken.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    server = Server([*nextbuy, "serve", str(shop)], folder / "serve.log")
    server.start()
    server.wait_until_ready()
    try:
        right = {name: expected(server, name) for name in ("000001", "000002")}
        clients = [Client(server.port, right) for _ in range(CLIENTS)]
        for client in clients:
            client.thread.start()
        unexpected = 0
        for swap in range(swaps):
            name = ("000001", "900002", "000002", "900001")[swap % 4]
            status, _ = ask(connect(server.port), "POST", "/v1/model", {"name": name})
            unexpected += (status == 200) != name.startswith("0")
            time.sleep(0.1)
        for client in clients:
            client.stop.set()
        for client in clients:
            client.thread.join()
    finally:
        server.terminate()
    return {
        "swaps": swaps,
        "answers": sum(client.answers for client in clients),
        "failed": sum(client.failed for client in clients),
        "mixed": sum(client.mixed for client in clients),
        "unexpected_swaps": unexpected,
        "answers_by_version": {
            name: sum(client.by_version.get(name, 0) for client in clients) for name in right
        },
    }


def expected(server: Server, name: str) -> Any:
    """What a version answers, asked alone."""
    status, _ = ask(connect(server.port), "POST", "/v1/model", {"name": name})
    if status != 200:
        raise SystemExit(f"version {name} was refused with {status}")
    status, body = ask(connect(server.port), "POST", "/v1/predict", question())
    if status != 200:
        raise SystemExit(f"version {name} answered {status}: {body}")
    return body


def question() -> dict[str, Any]:
    return {"users": [f"u{number}" for number in range(20)], "k": 10, "as_of": AS_OF}


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(HOST, port, timeout=30)


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any
) -> tuple[int, Any]:
    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")


class Client:
    """Asks the same question again and again."""

    def __init__(self, port: int, right: dict[str, Any]) -> None:
        self.answers = self.failed = self.mixed = 0
        self.by_version: dict[str, int] = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._ask)
        self._port, self._right = port, right

    def _ask(self) -> None:
        connection = connect(self._port)
        while not self.stop.is_set():
            status, body = ask(connection, "POST", "/v1/predict", question())
            if status != 200:
                self.failed += 1
                continue
            self.answers += 1
            versions = {answer["version"] for answer in body["answers"]}
            for version in versions:
                self.by_version[version] = self.by_version.get(version, 0) + 1
            self.mixed += len(versions) != 1 or body != self._right[min(versions)]


if __name__ == "__main__":
    main()
