"""How fast a log larger than memory becomes histories, in how much memory, and what training on
them costs before its first step.

    python benchmarks/prepare.py [--rows 20000000 200000000] [--folder DIR] [--memory-limit 8GiB]

For each number of rows: a synthetic log is written as Parquet, a million rows at a time (users and
items skewed, prices of items, two platforms, three years; a user per 60 rows, 100,000 items), and
prepared by `nextbuy prepare` in a process of its own. Then a second process maps the histories and
trains `lstm-rnn` on them for a few steps. Prints one JSON line a number of rows: rows per second,
and per second of processor (which tells more where others use the machine), peak resident memory,
peak anonymous memory (what cannot be given back to the disk), and seconds to the first step. Needs
about 150 bytes of disk a row for a while, in DIR (a folder for temporary files); everything is
removed at the end.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

_CHUNK = 1_000_000
_NUM_ITEMS = 100_000
_ROWS_PER_USER = 60
_ROWS_PER_FILE = 20_000_000


def write_log(folder: Path, num_rows: int, seed: int = 0) -> None:
    """A log in files of 20 million rows, a core each; rows are in the order of time but for those
    of one million."""
    folder.mkdir()
    firsts = range(0, num_rows, _ROWS_PER_FILE)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(write_file, folder, num_rows, seed), firsts))


def write_file(folder: Path, num_rows: int, seed: int, start: int) -> None:
    """The rows from `start` on, as many as a file has."""
    shop = np.random.default_rng(seed)  # the same in every file
    prices = np.round(np.exp(shop.normal(3.0, 1.0, _NUM_ITEMS)), 2)
    items = pl.Series([f"SKU{i:06d}" for i in shop.permutation(_NUM_ITEMS)])
    popularity = 1.0 / np.arange(1, _NUM_ITEMS + 1) ** 0.8
    drawn = shop.choice(_NUM_ITEMS, 1 << 22, p=popularity / popularity.sum())
    categories = pl.Series([f"c{i}" for i in range(300)])
    rng = np.random.default_rng((seed, start))
    num_users = max(1, num_rows // _ROWS_PER_USER)
    first_second, span = 1_640_995_200, 3 * 365 * 86_400
    writer: pq.ParquetWriter | None = None
    for first in range(start, min(num_rows, start + _ROWS_PER_FILE), _CHUNK):
        size = min(_CHUNK, num_rows - first)
        # The square root thins out low numbers: some users buy much more than others.
        user = (num_users * np.sqrt(rng.random(size)) * rng.random(size) ** 0.3).astype(np.int64)
        item = drawn[rng.integers(0, len(drawn), size)]
        seconds = first_second + (first + size * rng.random(size)) / num_rows * span
        price = prices[item] * rng.choice([1.0, 0.9, 0.8], size, p=[0.8, 0.15, 0.05])
        table = pl.DataFrame(
            {
                "user_id": pl.Series(user).cast(pl.String).str.zfill(9),
                "item_id": items.gather(item),
                "timestamp": pl.Series(seconds.astype(np.int64) * 1_000_000).cast(
                    pl.Datetime("us", "UTC")
                ),
                "platform": pl.Series(["web", "app"]).gather(item % 2),
                "category": categories.gather(item % 300),
                "price": np.round(price, 2),
                "quantity": rng.integers(1, 4, size).astype(np.float64),
            }
        ).to_arrow(compat_level=pl.CompatLevel.oldest())
        if writer is None:
            path = folder / f"part-{start // _ROWS_PER_FILE:03d}.parquet"
            writer = pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


class Watch:
    """The highest resident and anonymous memory of a process, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self.resident = self.anonymous = 0
        self._status = Path(f"/proc/{pid}/status")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            try:
                text = self._status.read_text(encoding="ascii")
            except OSError:
                return
            held = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            self.resident = max(self.resident, _kib(held.get("VmHWM")))
            self.anonymous = max(self.anonymous, _kib(held.get("RssAnon")))

    def stop(self) -> dict[str, float]:
        """What was seen, in GiB."""
        self._over.set()
        self._thread.join()
        return {
            "peak_resident_gib": round(self.resident / 2**20, 2),
            "peak_anonymous_gib": round(self.anonymous / 2**20, 2),
        }


def _kib(text: str | None) -> int:
    return int(text.split()[0]) if text else 0


class Enough(Exception):  # noqa: N818  (not an error)
    """So many steps are enough."""


def run_watched(command: list[str]) -> tuple[str, str, dict[str, float]]:
    """What a command prints on its two channels, and its seconds and memory."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    printed, said = process.communicate()
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    took = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
        ),
        **watch.stop(),
    }
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    return printed, said, took


def first_steps(folder: Path, steps: int) -> None:
    """Map the histories, train until some steps are taken, and print when the first one was."""
    started = time.monotonic()
    from nextbuy.data.prepare.prepared import Prepared
    from nextbuy.models.lstm_rnn import LstmRnn
    from nextbuy.models.protocol import FitOptions
    from nextbuy.progress import SilentProgress
    from nextbuy.splitting.cases import Cases

    imported = time.monotonic()

    class Steps(SilentProgress):
        def __init__(self) -> None:
            self.name, self.total, self.cpu, self.at = "", 0, 0.0, []

        def start(self, name: str, total: int, done: int = 0) -> None:  # noqa: ARG002
            self.name, self.total, self.cpu = name, total, time.process_time()

        def advance(self, units: int, facts: dict[str, float]) -> None:  # noqa: ARG002
            if self.name == "train":
                self.at.append(time.monotonic())
                if len(self.at) > steps:
                    raise Enough

    prepared = Prepared.load(folder)
    mapped = time.monotonic()
    histories, catalog = prepared.encoded.histories, prepared.encoded.catalog
    nothing = Cases(
        histories=histories.take(np.array([], dtype=np.int64)), as_of=None,
        target_items=np.array([], dtype=np.int32), target_offsets=np.zeros(1, dtype=np.int64),
    )  # fmt: skip
    watched = Steps()
    with contextlib.suppress(Enough):
        LstmRnn().fit(histories, nothing, catalog, FitOptions(epochs=1, progress=watched))
    between = np.diff(watched.at)
    print(
        json.dumps(
            {
                "import_seconds": round(imported - started, 2),
                "map_seconds": round(mapped - imported, 2),
                "first_step_seconds": round(watched.at[0] - mapped, 2),
                "until_training_cpu_seconds": round(watched.cpu, 2),
                "steps_an_epoch": watched.total,
                "seconds_a_step": round(float(np.median(between)), 4),
            }
        )
    )


def measure(rows: int, folder: Path, memory_limit: str) -> dict[str, object]:
    """Everything about one log."""
    log, out = folder / "log", folder / "prepared"
    write_log(log, rows)
    size = sum(path.stat().st_size for path in log.iterdir())
    command = [sys.executable, "-m", "nextbuy", "prepare", str(log), "--out", str(out),
               "--memory-limit", memory_limit, "--json"]  # fmt: skip
    load = os.getloadavg()[0]
    printed, said, took = run_watched(command)
    facts = json.loads(printed)
    stages = re.findall(r"(\w+): 100 % after ([\d.]+) s", said)
    steps, _, training = run_watched([sys.executable, __file__, "--steps-of", str(out)])
    return {
        "rows": rows, "users": facts["users"], "items": facts["items"],
        "source_gib": round(size / 2**30, 2),
        "rows_per_second": round(rows / took["seconds"]),
        "rows_per_cpu_second": round(rows / took["cpu_seconds"]), **took,
        "forecast_gib": round(facts["forecast"]["memory_bytes"] / 2**30, 2),
        "stages": {name: float(seconds) for name, seconds in stages},
        "training": {**json.loads(steps), **training}, "load_before": round(load, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000_000, 200_000_000])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--memory-limit", default="8GiB")
    parser.add_argument("--steps-of", type=Path, default=None, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.steps_of is not None:
        first_steps(asked.steps_of, steps=3)
        return
    for rows in asked.rows:
        folder = Path(tempfile.mkdtemp(prefix="nextbuy-prepare-", dir=asked.folder))
        try:
            print(json.dumps(measure(rows, folder, asked.memory_limit)), flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
