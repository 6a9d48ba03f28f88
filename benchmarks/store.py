"""How many purchases a second a store acknowledges, each durable before it is answered.

    python benchmarks/store.py                        SQLite, half a minute
    python benchmarks/store.py --folder /srv/data     on that disk
    python benchmarks/store.py --postgres URL         PostgreSQL instead; its tables are made

`single`: threads that each send one purchase, wait for the answer and send the next, through the
committer; by number of threads, with the time that an answer takes. `bulk`: submissions of 1,000
purchases from 4 threads. `syncs_per_second` is what the disk of the folder gives to a program that
appends a page and syncs, one after another: what a store without group commit could reach at most
(for PostgreSQL the disk of the server counts, which is not measured). Prints one JSON line.
"""

import argparse
import hashlib
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.group_commit import Committer
from nextbuy.service.store.opening import open_store
from nextbuy.service.store.protocol import Store, Submission

THREADS = (1, 8, 32)
BULK = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the file is made; default temporary")
    parser.add_argument("--postgres", metavar="URL")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        url = asked.postgres or str(Path(name) / "live.db")
        store = open_store(url)
        found: dict[str, Any] = {
            "store": "postgresql" if asked.postgres else "sqlite",
            "cores": os.cpu_count(),
            "seconds": asked.seconds,
            "syncs_per_second": syncs_per_second(Path(name), asked.seconds / 2),
            "single": {n: measure(store, n, 1, asked.seconds) for n in THREADS},
            "bulk": measure(store, 4, BULK, asked.seconds),
        }
        store.check_whole()
        found["purchases"] = store.last_sequence()
        store.close()
    print(json.dumps(found))


def measure(store: Store, num_threads: int, size: int, seconds: float) -> dict[str, float]:
    """Purchases acknowledged a second, and how long an answer took."""
    committer, end = Committer(store), time.monotonic() + seconds
    waits: list[list[float]] = [[] for _ in range(num_threads)]

    def send(thread: int) -> None:
        number = 0
        while (began := time.monotonic()) < end:
            committer.submit(submission(f"{began}/{thread}/{number}", thread, size)).result()
            waits[thread].append(time.monotonic() - began)
            number += 1

    threads = [threading.Thread(target=send, args=[n]) for n in range(num_threads)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - began
    committer.close()
    taken = 1_000 * np.concatenate(waits)
    return {
        "purchases_per_second": round(len(taken) * size / elapsed, 1),
        "p50_ms": round(float(np.quantile(taken, 0.5)), 2),
        "p99_ms": round(float(np.quantile(taken, 0.99)), 2),
        "max_ms": round(float(taken.max()), 2),
    }


def submission(key: str, thread: int, size: int) -> Submission:
    purchases = tuple(
        LivePurchase(
            user_id=f"user{hash((key, n)) % 100_000}", item_id=f"item{n % 1_000}",
            timestamp=time.time_ns() // 1_000, platform="Zepto", price=9.5, quantity=1.0,
        )
        for n in range(size)
    )  # fmt: skip
    digest = hashlib.sha256(key.encode()).digest()
    return Submission(key=key, digest=digest, purchases=purchases, received=thread)


def syncs_per_second(folder: Path, seconds: float) -> float:
    """Appends of a page, each synced."""
    with (folder / "syncs").open("wb", buffering=0) as file:
        number, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            file.write(bytes(4_096))
            os.fdatasync(file.fileno())
            number += 1
        return round(number / (time.monotonic() - began), 1)


if __name__ == "__main__":
    main()
