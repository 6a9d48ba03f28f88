"""The transformer beside its peers: targets a second, ranking after equal epochs, peak memory.

    python benchmarks/peers.py FOLDER --log s3_beauty --epochs 2

FOLDER has s3_beauty.parquet and ml_1m.parquet. Each peer runs in an environment of its own, which
is made from the package index when it is missing (`--environments`), in a process of its own, on
the same split file and the same two threads; one that cannot be installed is reported as missing.
Everybody hands in ten offers for each user (what was seen left out) and is scored here: the last
purchase is the answer, the one before it is left out of training as the papers do, and is seen at
the question. Seconds are those of fitting, after a first fit on 200 users that loads what is loaded
once. Prints one JSON object.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

HERE = Path(__file__).parent
PEERS = {"rectools": ("rectools[torch]==0.19.0", "peer_rectools.py")}
"""What to install and what to run."""
LONGEST = {"s3_beauty": 50, "ml_1m": 200}
THREADS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--log", choices=LONGEST, default="s3_beauty")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--environments", type=Path, default=HERE.parent / "build" / "peers")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        sample, epochs, folder = arguments.inside
        ours(Path(folder), int(sample), int(epochs), LONGEST[arguments.log])
        return
    source = arguments.data / f"{arguments.log}.parquet"
    if not source.exists():
        sys.exit(f"{source} is not here; nothing was measured.")
    found: dict[str, Any] = {"log": arguments.log, "epochs": arguments.epochs, "threads": THREADS,
                             "sgemm_gflops": sgemm()}  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        split(source, folder)
        command = [sys.executable, __file__, str(arguments.data), "--log", arguments.log]
        for name, sample in (
            ("nextbuy, 1,024 shared samples", 1024),
            ("nextbuy, whole catalog", 0),
        ):
            inside = ["--inside", str(sample), str(arguments.epochs), str(folder)]
            found[name] = measured([*command, *inside], folder)
        for name, (package, script) in PEERS.items():
            python = environment(arguments.environments / name, package)
            if python is None:
                found[name] = f"missing: {package} could not be installed"
                continue
            settings = [str(folder), str(LONGEST[arguments.log]), str(arguments.epochs)]
            found[name] = measured([str(python), str(HERE / script), *settings], folder)
            found[f"over {name}"] = round(
                found["nextbuy, 1,024 shared samples"]["targets_per_second"]
                / found[name]["targets_per_second"], 1,
            )  # fmt: skip
    print(json.dumps(found, indent=1))


def split(source: Path, folder: Path) -> None:
    """Write train.csv, seen.csv and answers.csv."""
    frame = pl.read_parquet(source)
    order = "position" if "position" in frame.columns else "timestamp"
    frame = frame.select("user_id", "item_id", pl.col(order).alias("position"))
    frame = frame.sort("user_id", "position").with_columns(
        left=pl.len().over("user_id") - 1 - pl.int_range(pl.len()).over("user_id")
    )
    frame.filter(pl.col("left") >= 2).drop("left").write_csv(folder / "train.csv")
    frame.filter(pl.col("left") >= 1).drop("left").write_csv(folder / "seen.csv")
    frame.filter(pl.col("left") == 0).drop("left").write_csv(folder / "answers.csv")


def environment(place: Path, package: str) -> Path | None:
    """The interpreter of an environment that has the package; None if it cannot be made."""
    python = place / "bin" / "python"
    if python.exists():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        for wanted in (["torch==2.13.0"], package.split()):
            subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
    except subprocess.CalledProcessError:
        return None
    return python


def measured(command: list[str], folder: Path) -> dict[str, Any]:
    """Run one of them and score its offers."""
    limits = {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | limits
    )
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    facts["targets_per_second"] = round(facts["targets"] / facts["seconds"])
    print(f"{command[-4:]}: {facts}", file=sys.stderr, flush=True)
    return facts | scores(folder)


def scores(folder: Path) -> dict[str, float]:
    """ndcg@10 and hit rate@10 of offers.csv (user_id, item_id, rank from 1)."""
    answers = pl.read_csv(folder / "answers.csv").select("user_id", "item_id")
    offers = pl.read_csv(folder / "offers.csv")
    hits = answers.join(offers, on=["user_id", "item_id"], how="left")["rank"].to_numpy()
    ranks = np.where(np.isnan(hits.astype(float)), np.inf, hits)
    return {
        "ndcg@10": round(float((1 / np.log2(ranks + 1)).mean()), 4),
        "hit_rate@10": round(float(np.isfinite(ranks).mean()), 4),
    }


def ours(folder: Path, sample: int, epochs: int, longest: int) -> None:
    """Fit on train.csv, offer ten items for each user of seen.csv, print the costs."""
    from nextbuy.data.encoding import encode
    from nextbuy.data.options import ReadOptions
    from nextbuy.data.reading import read_purchases
    from nextbuy.data.recoding import in_catalog
    from nextbuy.models.protocol import FitOptions, top_k
    from nextbuy.models.transformer import Transformer, TransformerConfig
    from nextbuy.predictor.refit import no_cases

    def encoded(name: str) -> Any:
        frame = pl.read_csv(folder / f"{name}.csv")
        text = frame.with_columns(pl.col("user_id", "item_id").cast(pl.String))
        return encode(read_purchases(text, ReadOptions(time="order", time_column="position")))

    train, seen = encoded("train"), encoded("seen")
    config = TransformerConfig(training={"longest_window": longest, "sample_size": sample})
    few = train.histories.take(np.arange(200))
    Transformer(config).fit(few, no_cases(few), train.catalog, FitOptions(epochs=1))
    model = Transformer(config)
    started = time.perf_counter()
    model.fit(train.histories, no_cases(train.histories), train.catalog, FitOptions(epochs=epochs))
    seconds = time.perf_counter() - started
    histories = in_catalog(seen.histories, seen.catalog, train.catalog)
    names = train.catalog.table["item_id"].to_numpy()
    users, items = [], []
    for start in range(0, len(histories), 1024):
        part = histories.take(np.arange(start, min(start + 1024, len(histories))))
        log_p = model.log_probabilities(part, None)
        log_p[part.owners, part.items] = -np.inf
        users.append(np.repeat(part.user_ids.to_numpy(), 10))
        items.append(names[top_k(log_p, 10)[0] - 1].ravel())
    offers = pl.DataFrame({"user_id": np.concatenate(users), "item_id": np.concatenate(items)})
    offers = offers.with_columns(pl.all().cast(pl.Int32), rank=pl.int_range(pl.len()).mod(10) + 1)
    offers.write_csv(folder / "offers.csv")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    facts = {"seconds": round(seconds, 1), "targets": epochs * train.histories.num_purchases,
             "peak_memory_mib": peak}  # fmt: skip
    print(json.dumps(facts))


def sgemm() -> float:
    """GFLOP/s of a single-precision matrix product of 1,024 rows and columns."""
    import torch

    torch.set_num_threads(THREADS)
    square, seconds = torch.ones(1024, 1024), []
    for _ in range(20):
        started = time.perf_counter()
        square @ square
        seconds.append(time.perf_counter() - started)
    return round(2 * 1024**3 / float(np.median(seconds)) / 1e9, 1)


if __name__ == "__main__":
    main()
