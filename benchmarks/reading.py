"""Reading and encoding a log, against bare Polars reading and sorting of the same file.

    python benchmarks/reading.py --rows 10000000 --folder /somewhere/with/2/GB

Two synthetic logs are written as CSV and as Parquet: `numbers` (whole-number ids, epoch seconds, a
price) and `text` (text ids, written dates, a price, a platform). Each measurement runs in a process
of its own, after a warm-up on a small file, so that its peak memory is its own; the processes take
turns, so that a busy moment of the machine hits all of them. Printed is one JSON object: median
seconds, rows a second, peak memory, and for nextbuy the ratios against bare Polars with its own
inference and with all columns as text.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

KINDS, FORMATS, WAYS = ("numbers", "text"), ("csv", "parquet"), ("nextbuy", "polars", "polars-text")
SMALL = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one if left out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--measure", nargs=3, metavar=("WAY", "WARM-UP", "FILE"), help="one process"
    )
    arguments = parser.parse_args()
    if arguments.measure:
        way, small, large = arguments.measure
        print(json.dumps(measure(way, Path(small), Path(large))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(compare(folder, arguments.rows, arguments.repeats), indent=2))


def compare(folder: Path, num_rows: int, repeats: int) -> dict[str, object]:
    results: dict[str, object] = {}
    for kind in KINDS:
        write_logs(folder, kind, SMALL)
        write_logs(folder, kind, num_rows)
        for form in FORMATS:
            small, large = (folder / f"{kind}-{n}.{form}" for n in (SMALL, num_rows))
            ways = WAYS if form == "csv" else WAYS[:2]
            runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(repeats):
                for way in ways:
                    command = [sys.executable, __file__, "--measure", way, str(small), str(large)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    runs[way].append(json.loads(done.stdout))
            results[f"{kind} {form}"] = summary(runs, num_rows, large)
    return {"rows": num_rows, "repeats": repeats, "results": results}


def summary(
    runs: dict[str, list[dict[str, float]]], num_rows: int, file: Path
) -> dict[str, object]:
    seconds = {
        way: statistics.median(run["seconds"] for run in found) for way, found in runs.items()
    }
    facts: dict[str, object] = {
        way: {
            "seconds": round(seconds[way], 3),
            "rows_per_second": round(num_rows / seconds[way]),
            "peak_memory_mib": max(run["peak_memory_mib"] for run in found),
        }
        for way, found in runs.items()
    }
    facts["file_mib"] = file.stat().st_size >> 20
    for way in list(runs)[1:]:
        facts[f"ratio to {way}"] = round(seconds["nextbuy"] / seconds[way], 3)
    return facts


def measure(way: str, small: Path, large: Path) -> dict[str, float]:
    run_way(way, small)
    begin = time.perf_counter()
    run_way(way, large)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"seconds": seconds, "peak_memory_mib": peak}


def run_way(way: str, file: Path) -> None:
    if way == "nextbuy":
        from nextbuy.data.encoding import encode
        from nextbuy.data.reading import read_purchases

        encoded = encode(read_purchases(file))
        assert encoded.histories.num_purchases > 0
    else:
        if file.suffix == ".parquet":
            frame = pl.read_parquet(file)
        else:
            frame = pl.read_csv(file, infer_schema=way == "polars")
        assert frame.sort(["user_id", "timestamp"]).height > 0


def write_logs(folder: Path, kind: str, num_rows: int) -> None:
    """A log with heavy-tailed users and items over three years; written once."""
    path = folder / f"{kind}-{num_rows}"
    if path.with_suffix(".parquet").exists():
        return
    rng = np.random.default_rng(7)
    users = (rng.pareto(1.2, num_rows) * 1000).astype(np.int64) % max(num_rows // 20, 1)
    items = np.minimum((rng.pareto(1.0, num_rows) * 50).astype(np.int64), 49_999)
    times = rng.integers(1_600_000_000, 1_700_000_000, num_rows)
    frame = pl.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "timestamp": times,
            "price": rng.integers(100, 100_000, num_rows) / 100,
        }
    )
    if kind == "text":
        platforms = np.array(["Flipkart", "Zomato", "Amazon Shopping", "Myntra"])
        frame = frame.with_columns(
            user_id=pl.format("user{}", "user_id"),
            item_id=pl.format("sku-{}", "item_id"),
            timestamp=pl.from_epoch("timestamp", time_unit="s").dt.strftime("%Y-%m-%d %H:%M:%S"),
            platform=pl.Series(platforms[rng.integers(0, 4, num_rows)]),
        )
    frame.write_csv(path.with_suffix(".csv"))
    frame.write_parquet(path.with_suffix(".parquet"))


if __name__ == "__main__":
    main()
