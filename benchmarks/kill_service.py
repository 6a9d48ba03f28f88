"""Is anything lost that was acknowledged? Writers, and a server that is killed under them.

    python benchmarks/kill_service.py --kills 100
    python benchmarks/kill_service.py --kills 20 --postgres
    python benchmarks/kill_service.py --kills 3 --postgres --outage 30

Eight writers send purchases one by one, each with an idempotency key of its own, to `nextbuy serve`
with a small bundle; after 50 to 1,500 ms the server gets SIGKILL and is started again. A writer
that got no answer sends the same purchase again, as a client would. With `--postgres` the service
lives and PostgreSQL, from Debian's package in a temporary folder, is what is killed and started;
with `--outage` it stays away so many seconds, in which a reader asks for predictions of a user who
is known already: how many were answered, and how long writers waited to be refused, is told. In the
end the store is read: lost purchases were acknowledged and are not there, duplicated ones are
there twice, phantoms were never sent. Prints one JSON line; leaves with 1 if anything is wrong.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

WRITERS = 8
HOST = "127.0.0.1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", action="store_true", help="kill PostgreSQL instead")
    parser.add_argument(
        "--outage", type=float, default=0.0, help="seconds that PostgreSQL stays away each time"
    )
    arguments = parser.parse_args()
    if arguments.outage and not arguments.postgres:
        parser.error("--outage is of PostgreSQL: give --postgres, too.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = run(folder, arguments.kills, arguments.seed, arguments.postgres, arguments.outage)
    print(json.dumps(found))
    sys.exit(found["lost"] + found["duplicated"] + found["phantom"] > 0 or not found["integrity"])


def run(folder: Path, kills: int, seed: int, with_postgres: bool, outage: float) -> dict[str, Any]:
    """Train, serve, kill, count."""
    nextbuy = [sys.executable, "-m", "nextbuy"]
    bundle = folder / "shop"
    train = ["train", "world:market", "--users", "200", "--preset", "fast", "--out", str(bundle)]
    subprocess.run([*nextbuy, *train], check=True, stdout=subprocess.DEVNULL)
    postgres = Postgres(folder) if with_postgres else None
    url = f"sqlite:///{folder / 'live.sqlite'}" if postgres is None else postgres.url
    server = Server([*nextbuy, "serve", str(bundle), "--store", url], folder / "serve.log")
    if postgres is not None:
        postgres.start()
    killed = server if postgres is None else postgres
    draw = random.Random(seed)
    server.start()
    server.wait_until_ready()
    writers = [Writer(number, server.port) for number in range(WRITERS)]
    for writer in writers:
        writer.thread.start()
    ready_seconds, reader = [], Reader(server.port)
    reader.ask()
    for _ in range(kills):
        time.sleep(draw.uniform(0.05, 1.5))
        killed.kill()
        end = time.monotonic() + outage
        while time.monotonic() < end:
            reader.ask()
            time.sleep(0.05)
        begun = time.monotonic()
        killed.start()
        server.wait_until_ready()
        ready_seconds.append(time.monotonic() - begun)
    for writer in writers:
        writer.stop.set()
    for writer in writers:
        writer.thread.join()
    server.terminate()
    stored = read_store(url)
    if postgres is not None:
        postgres.kill()
    return {
        "kills": kills, "of": "service" if postgres is None else "postgresql", "seed": seed,
        "writers": WRITERS,
        **counted(writers, stored),
        "integrity": integrity(folder / "live.sqlite") if postgres is None else True,
        **(told_of_outage(outage, reader, writers) if outage else {}),
        "ready_seconds_median": round(statistics.median(ready_seconds), 2),
        "ready_seconds_worst": round(max(ready_seconds), 2),
        "versions": {name: version(name) for name in ("nextbuy", "fastapi", "uvicorn", "apsw")},
    }  # fmt: skip


def counted(writers: list["Writer"], stored: Counter[str]) -> dict[str, int]:
    """What was acknowledged beside what is there."""
    sent = {item for writer in writers for item in writer.sent}
    acknowledged = {item for writer in writers for item in writer.acknowledged}
    return {
        "sent": len(sent),
        "acknowledged": len(acknowledged),
        "retries": sum(writer.retries for writer in writers),
        "stored": sum(stored.values()),
        "lost": len(acknowledged - stored.keys()),
        "duplicated": sum(times - 1 for times in stored.values()),
        "phantom": len(stored.keys() - sent),
    }


def told_of_outage(outage: float, reader: "Reader", writers: list["Writer"]) -> dict[str, Any]:
    """What was answered and what refused while PostgreSQL was away."""
    refused = sorted(1e3 * seconds for writer in writers for seconds in writer.refused)
    return {
        "outage_seconds": outage,
        "predictions": dict(reader.statuses),
        "refusals": len(refused),
        "refused_ms_p50": round(refused[len(refused) // 2], 1),
        "refused_ms_p99": round(refused[len(refused) * 99 // 100], 1),
        "refused_ms_worst": round(refused[-1], 1),
    }


def read_store(url: str) -> Counter[str]:
    """How often each item is stored."""
    from nextbuy.service.store.opening import open_store

    store, items, last = open_store(url), Counter[str](), 0
    try:
        while part := store.after(last, 10_000):
            items.update(one.purchase.item_id for one in part)
            last = part[-1].sequence
    finally:
        store.close()
    return items


def integrity(path: Path) -> bool:
    """SQLite's own check of the whole file."""
    import apsw

    found = apsw.Connection(str(path)).execute("PRAGMA integrity_check").fetchall()
    return found == [("ok",)]


@dataclass
class Writer:
    """Sends `w3-17`, then `w3-18`, ...; goes on with the next one only after an answer."""

    number: int
    port: int
    sent: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    retries: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.write)

    def write(self) -> None:
        connection = None
        while not self.stop.is_set():
            item = f"w{self.number}-{len(self.sent)}"
            self.sent.append(item)
            while not self.stop.is_set():
                try:
                    connection = connection or http.client.HTTPConnection(
                        HOST, self.port, timeout=10
                    )
                    if self.tell(connection, item):
                        self.acknowledged.append(item)
                        break
                except (OSError, http.client.HTTPException):
                    connection = None
                self.retries += 1
                time.sleep(0.02)

    def tell(self, connection: http.client.HTTPConnection, item: str) -> bool:
        """Whether the service says that it has the purchase."""
        purchase = {"user_id": f"u{self.number}", "item_id": item}
        headers = {"Content-Type": "application/json", "Idempotency-Key": item}
        began = time.monotonic()
        connection.request("POST", "/v1/purchases", json.dumps({"purchases": [purchase]}), headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status in (200, 201):
            return True
        if answer.status in (429, 503, 507):
            self.refused.append(time.monotonic() - began)
            return False
        raise SystemExit(f"unexpected answer {answer.status}: {body[:300]!r}")


@dataclass
class Reader:
    """Asks what the user of the first writer buys next."""

    port: int
    statuses: Counter[int] = field(default_factory=Counter)

    def ask(self) -> None:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/predict", json.dumps({"users": ["u0"]}), headers)
            self.statuses[connection.getresponse().status] += 1
        finally:
            connection.close()


class Server:
    """`nextbuy serve` in a process of its own."""

    def __init__(self, command: list[str], log: Path) -> None:
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        self._command = [*command, "--port", str(self.port)]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return 0 if self._process is None else self._process.pid

    @property
    def processor_seconds(self) -> float:
        """What it and the process of its model have used so far."""
        if self._process is None:
            return 0.0
        threads = Path(f"/proc/{self.pid}/task").glob("*/children")
        children = [child for each in threads for child in each.read_text().split()]
        ticks = 0
        for process in (self.pid, *children):
            told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(told[11]) + int(told[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; the process of its model has to end by itself."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)

    def wait_until_ready(self) -> None:
        """Until /health/ready says so.

        Raises:
            SystemExit: If it does not within a minute, or the process is gone.
        """
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self._process is not None and self._process.poll() is not None:
                raise SystemExit(f"the server left: {self._log.read_text()[-2000:]}")
            connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
            try:
                connection.request("GET", "/health/ready")
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.02)
        raise SystemExit(f"not ready within a minute: {self._log.read_text()[-2000:]}")


class Postgres:
    """A server of Debian's PostgreSQL in a temporary folder, for loopback alone."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            raise SystemExit("PostgreSQL is not here: run make services first.")
        self._programs, self._data = found[-1].parent, folder / "postgres"
        folder.chmod(0o755)
        self._data.mkdir()
        shutil.chown(self._data, "postgres", "postgres")
        with socket.socket() as free:
            free.bind((HOST, 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql://postgres@{HOST}:{self._port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "postgres")

    def _as_postgres(self, program: str, *arguments: str) -> list[str]:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups",
                str(self._programs / program), *arguments]  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            self._as_postgres(program, *arguments), check=True, stdout=subprocess.DEVNULL,
            cwd=self._data,
        )  # fmt: skip

    def start(self) -> None:
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self._as_postgres("postgres", "-D", str(self._data), "-p", str(self._port),
                              "-c", f"listen_addresses={HOST}",
                              "-c", f"unix_socket_directories={self._data}"),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._data,
        )  # fmt: skip
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self._port)) == 0:
                    return
            time.sleep(0.05)
        raise SystemExit("PostgreSQL did not start within half a minute")

    def kill(self) -> None:
        """Stop at once, without a checkpoint: what is not in the log is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()


if __name__ == "__main__":
    main()
