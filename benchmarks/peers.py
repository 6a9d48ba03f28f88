"""The transformer beside its peers: targets a second, ranking after equal epochs, peak memory.

    python benchmarks/peers.py FOLDER --log s3_beauty --epochs 2
    python benchmarks/peers.py FOLDER --log ml_1m --peers rectools
    python benchmarks/peers.py FOLDER --until-best 1200

FOLDER has s3_beauty.parquet and ml_1m.parquet. Each peer runs in an environment of its own, which
is made from the package index when it is missing (`--environments`), in a process of its own, on
the same split file and the same two threads; one that cannot be installed is reported as missing.
Everybody hands in ten offers for each user (what was seen left out) and is scored here: the last
purchase is the answer, the one before it is left out of training as the papers do, and is seen at
the question. Seconds are those of fitting, after a first fit on 200 users that loads what is loaded
once. The machine may do other things at other times, so nextbuy runs right before each peer and is
compared with that one; `load` is how many processes wanted to run before and after.

With `--until-best` RecBole trains until its validation stops getting better, or for so many
seconds; then nextbuy trains with its defaults, and the time until it ranks the test as well as
RecBole's best epoch is compared with the time until that epoch. Both are seconds of training, the
scoring between epochs left out. Prints one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"
PEERS = {
    "rectools": (["rectools[torch]==0.19.0"], "peer_rectools.py"),
    "replay": (["replay-rec[torch]==0.22.0"], "peer_replay.py"),
    # RecBole was last released before NumPy 2 and pandas 3.
    "recbole": (["recbole==1.2.1", "numpy<2", "pandas<2.3", "scipy<1.14"], "peer_recbole.py"),
}
"""What to install and what to run."""
LONGEST = {"s3_beauty": 50, "ml_1m": 200}
SHARED, WHOLE = "1024", "0"
"""Samples of nextbuy's loss; 0 is the whole catalog."""
MOST_EPOCHS = 300
"""Of RecBole when validation says when to stop; its own default."""
THREADS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--log", choices=LONGEST, default="s3_beauty")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--users", type=int, help="only the first so many, for a quick look")
    parser.add_argument("--until-best", type=int, metavar="SECONDS", help="RecBole alone")
    parser.add_argument("--environments", type=Path, default=HERE.parent / "build" / "peers")
    arguments = parser.parse_args()
    source = arguments.data / f"{arguments.log}.parquet"
    if not source.exists():
        sys.exit(f"{source} is not here; nothing was measured.")
    found: dict[str, Any] = {"log": arguments.log, "users": arguments.users or "all",
                             "threads": THREADS, "sgemm_gflops": sgemm()}  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        split(source, folder, arguments.users)
        longest = LONGEST[arguments.log]
        if arguments.until_best is None:
            found |= {"epochs": arguments.epochs}
            found |= equal_epochs(folder, longest, arguments)
        else:
            found |= until_best(folder, longest, arguments)
    print(json.dumps(found, indent=1))


def split(source: Path, folder: Path, users: int | None) -> None:
    """Write train.csv, seen.csv and answers.csv."""
    frame = pl.read_parquet(source)
    order = "position" if "position" in frame.columns else "timestamp"
    frame = frame.select("user_id", "item_id", pl.col(order).alias("position"))
    if users is not None:
        frame = frame.filter(pl.col("user_id").rank("dense") <= users)
    frame = frame.sort("user_id", "position").with_columns(
        left=pl.len().over("user_id") - 1 - pl.int_range(pl.len()).over("user_id")
    )
    frame.filter(pl.col("left") >= 2).drop("left").write_csv(folder / "train.csv")
    frame.filter(pl.col("left") >= 1).drop("left").write_csv(folder / "seen.csv")
    frame.filter(pl.col("left") == 0).drop("left").write_csv(folder / "answers.csv")


def equal_epochs(folder: Path, longest: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every peer with nextbuy right before it, after the same number of epochs."""
    told = [str(folder), str(longest), str(arguments.epochs)]
    nextbuy = [sys.executable, str(HERE / "peer_nextbuy.py"), *told]
    found = {"nextbuy, whole catalog": measured([*nextbuy, WHOLE], folder)}
    for name in arguments.peers:
        script = command(name, arguments.environments)
        if script is None:
            found[name] = {"missing": f"{PEERS[name][0]} could not be installed"}
            continue
        ours = measured([*nextbuy, SHARED], folder)
        theirs = measured([*script, *told], folder)
        ratio = ours["targets_per_second"] / theirs["targets_per_second"]
        found[name] = theirs | {
            "nextbuy, 1,024 shared samples": ours,
            "nextbuy_over_peer": round(ratio, 2),
        }
    return found


def until_best(folder: Path, longest: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """RecBole until its best epoch, then nextbuy until it ranks as well."""
    script = command("recbole", arguments.environments)
    if script is None:
        return {"recbole": {"missing": f"{PEERS['recbole'][0]} could not be installed"}}
    told = [str(folder), str(longest)]
    limit = str(arguments.until_best)
    theirs = measured([*script, *told, str(MOST_EPOCHS), limit], folder)
    nextbuy = [sys.executable, str(HERE / "peer_nextbuy.py"), *told]
    ours = measured([*nextbuy, "each"], folder)
    curve = [one | scores(folder, f"offers_{one['epoch']}.csv") for one in ours.pop("curve")]
    reached = next((one for one in curve if one["ndcg@10"] >= theirs["ndcg@10"]), None)
    ratio = None if reached is None else round(theirs["seconds"] / reached["seconds"], 1)
    return {"recbole": theirs, "nextbuy": ours | {"curve": curve}, "reached": reached,
            "recbole_over_nextbuy": ratio}  # fmt: skip


def command(name: str, environments: Path) -> list[str] | None:
    """How to run a peer, in an environment that has it; None if that cannot be made."""
    packages, script = PEERS[name]
    python = environments / name / "bin" / "python"
    if not python.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", str(environments / name)], check=True)
            install = [str(python), "-m", "pip", "install", "-q"]
            for wanted in ([TORCH], [TORCH, *packages]):
                subprocess.run([*install, *wanted], check=True)
        except subprocess.CalledProcessError:
            return None
    return [str(python), str(HERE / script)]


def measured(command: list[str], folder: Path) -> dict[str, Any]:
    """Run one of them and score its offers."""
    limits = {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    before = os.getloadavg()[0]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | limits
    )
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    facts["targets_per_second"] = round(facts["targets"] / facts["seconds"])
    facts["load"] = [round(before, 2), round(os.getloadavg()[0], 2)]
    facts |= scores(folder, "offers.csv")
    print(f"{command[1:]}: {facts}", file=sys.stderr, flush=True)
    return facts


def scores(folder: Path, name: str) -> dict[str, float]:
    """ndcg@10 and hit rate@10 of a file of offers (user_id, item_id, rank from 1)."""
    answers = pl.read_csv(folder / "answers.csv").select("user_id", "item_id")
    offers = pl.read_csv(folder / name)
    hits = answers.join(offers, on=["user_id", "item_id"], how="left")["rank"].to_numpy()
    ranks = np.where(np.isnan(hits.astype(float)), np.inf, hits)
    return {
        "ndcg@10": round(float((1 / np.log2(ranks + 1)).mean()), 4),
        "hit_rate@10": round(float(np.isfinite(ranks).mean()), 4),
    }


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
