"""Training, scoring and preparing on a Ray cluster of this machine: seconds, results, and losses.

    python benchmarks/cluster.py [--users 4000] [--epochs 3] [--kills 10] [--partition]

Fits one transformer on `world:market` here, by one worker and by two, each time on as many threads
in all, and scores all users and prepares a log of `--rows` rows here and by two workers. Then
training by two workers is disturbed by SIGSTOP of one rank, which must be given up, by SIGKILL of
one after another until there were `--kills`, and once its driver is killed; all must end with the
weights of the undisturbed run. With `--partition` (Linux, root) two ranks in network namespaces are
cut off from each other in the middle, in both directions and in one. Prints one JSON line; the exit
code is 1 if a result differs. Needs no data. On a machine of two cores two workers can be no faster
than two threads: what is measured is the overhead.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import torch

from nextbuy.cluster.blocks import RayBlocks
from nextbuy.cluster.config import ClusterConfig
from nextbuy.cluster.connecting import connected
from nextbuy.cluster.training import RayWorkers, newest_checkpoint
from nextbuy.data.encoding import encode
from nextbuy.data.prepare.preparing import prepare
from nextbuy.data.prepare.survey import PrepareConfig
from nextbuy.data.sources import load_source
from nextbuy.models.protocol import FitOptions, Model
from nextbuy.models.registry import create
from nextbuy.predictor import Predictor, PredictorConfig
from nextbuy.predictor.everybody import BlockScorer, ScoreRequest, score_everybody, score_here
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Split
from nextbuy.splitting.choice import choose_split
from prepare import write_log

TOLERANCE = 1e-3
"""Of the validation loss, in nats: two workers against none."""

PROBABILITY_TOLERANCE = 1e-6
"""Workers have fewer threads than this process, and sum in another order."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--partition", action="store_true")
    parser.add_argument("--driver", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's workers are nice by default)
    split = split_of(arguments.users)
    if arguments.driver is not None:  # this is the process that is to be killed
        fit(split, arguments, 2, folder=arguments.driver)
        return
    with redirect_stdout(sys.stderr), connected(ClusterConfig(workers=2)):
        report = trained(split, arguments) | scored(split) | prepared(arguments.rows)
    report |= driver_killed(arguments, report.pop("two"))
    if arguments.partition:
        report |= {f"partition_{ways}_ways": partitioned(ways) for ways in (2, 1)}
    report |= {"users": arguments.users, "epochs": arguments.epochs, "load": os.getloadavg()[0]}
    print(json.dumps(report))
    checks = [value for name, value in report.items() if name.endswith(("_equal", "_within"))]
    sys.exit(0 if all(checks) else 1)


def split_of(users: int) -> Split:
    encoded = encode(load_source("world:market", users=users, seed=0).purchases)
    return choose_split("temporal", encoded.catalog, encoded.histories, seed=0)


def fit(
    split: Split,
    arguments: argparse.Namespace,
    workers: int,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Any, float, list[str]]:
    """The model, the seconds it took, and what was lost; 0 workers fit it here."""
    training = {
        "epochs": arguments.epochs, "tokens": arguments.tokens,
        "checkpoint_seconds": 5.0 if folder is None else 0.3,
    }  # fmt: skip
    model = create("transformer", training=training)
    here = RayWorkers(ClusterConfig(workers=workers or 1, timeout_seconds=30))
    options = FitOptions(run_folder=folder, progress=progress or SilentProgress())
    started = time.monotonic()
    fitted: Model
    if workers == 0:
        fitted = model.fit(split.train, split.validation, split.catalog, options)
    else:
        fitted = here.fit(model, split.train, split.validation, split.catalog, options)
    say(f"{workers} workers: {time.monotonic() - started:.1f} s")
    return fitted, time.monotonic() - started, here.lost


def trained(split: Split, arguments: argparse.Namespace) -> dict[str, Any]:
    fit(split_of(50), arguments, 0)  # the first step of a process imports for seconds
    local, seconds_local, _ = fit(split, arguments, 0)
    one, seconds_one, _ = fit(split, arguments, 1)
    two, seconds_two, _ = fit(split, arguments, 2)
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(arguments.kills, local.result.num_steps, Path(folder))
        disturbed, seconds_killed, lost = fit(
            split, arguments, 2, folder=Path(folder), progress=killer
        )
    apart = max(float(np.abs(w - two.weights()[n]).max()) for n, w in local.weights().items())
    loss = abs(local.result.best_score - two.result.best_score)
    return {
        "threads": torch.get_num_threads(),
        "items": len(split.catalog),
        "steps": local.result.num_steps,
        "seconds_local": round(seconds_local, 1),
        "seconds_1_worker": round(seconds_one, 1),
        "seconds_2_workers": round(seconds_two, 1),
        "one_worker_equal": digest(one) == digest(local),
        "loss_local": local.result.best_score,
        "loss_2_workers": two.result.best_score,
        "loss_within": loss <= TOLERANCE,
        "largest_difference_of_a_weight": apart,
        "kills": arguments.kills,
        "killed_and_stopped": killer.done,
        "as_many_as_asked_equal": killer.done == arguments.kills + 1,
        "lost": len(lost),
        "seconds_killed": round(seconds_killed, 1),
        "killed_equal": digest(disturbed) == digest(two) and len(lost) == killer.done,
        "two": digest(two),
    }


class Killer(SilentProgress):
    """Kills rank 0 and rank 1 in turn, evenly over the steps of an undisturbed run; stops one."""

    def __init__(self, kills: int, num_steps: int, folder: Path) -> None:
        self._folder, self._seen = folder, ""
        self.done = 0
        self._at = [num_steps * (kill + 1) // (kills + 2) for kill in range(kills + 1)]
        self._step = 0

    def start(self, name: str, total: int, done: int = 0) -> None:  # noqa: ARG002
        if name == "train":
            self._step = done

    def advance(self, units: int, facts: dict[str, float]) -> None:  # noqa: ARG002
        self._step += units
        if self.done < len(self._at) and self._step >= self._at[self.done]:
            found, newest = ray_workers(), newest_checkpoint(self._folder)
            if len(found) == 2 and newest != self._seen:  # what gets no further is given up
                self._seen = newest
                number = signal.SIGKILL if self.done else signal.SIGSTOP
                found[self.done % 2].send_signal(number)
                self.done += 1
                say(f"{number.name} {self.done} in step {self._step}")


def ray_workers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return sorted((p for p in children if p.name().startswith("ray::Worker")), key=lambda p: p.pid)


def scored(split: Split) -> dict[str, Any]:
    config = PredictorConfig(models=("personal-frequency", "transformer"), epochs=1)
    predictor = Predictor.fit("world:market", config=config, users=len(split.train))
    who = predictor.histories.take(np.arange(20_000) % len(predictor.histories))
    scorer = BlockScorer.of(predictor, who, ScoreRequest(k=10))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("here", "2_workers"):
            started = time.monotonic()
            where = score_here if name == "here" else by_two
            score_everybody(scorer, Path(folder) / name, bundle_hash="benchmark", scoring=where)
            found[f"seconds_scoring_{name}"] = round(time.monotonic() - started, 1)
            say(f"scored {name}")
        here, there = (
            pl.read_parquet(Path(folder) / name / "*.parquet") for name in ("here", "2_workers")
        )
        apart = float((here["probability"] - there["probability"]).abs().max() or 0.0)
        found["scored_users"], found["scored_probability_difference"] = len(who), apart
        found["scored_items_equal"] = here["item_id"].equals(there["item_id"])
        found["scored_within"] = apart < PROBABILITY_TOLERANCE
    return found


def prepared(rows: int) -> dict[str, Any]:
    """A synthetic log as histories in files, here and by two workers."""
    found: dict[str, Any] = {"prepared_rows": rows}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder / "log", rows)
        two = RayBlocks(ClusterConfig(workers=2))
        for place, where in (("here", None), ("2_workers", two)):
            started = time.monotonic()
            config = PrepareConfig(buckets=16)
            prepare(folder / "log", folder / place, config, where=where)
            found[f"seconds_preparing_{place}"] = round(time.monotonic() - started, 1)
            say(f"prepared {place}")
        files = sorted(p.relative_to(folder / "here") for p in (folder / "here").rglob("*"))
        files = [p for p in files if (folder / "here" / p).is_file() and p.name != "lock"]
        found["prepared_files"] = len(files)
        found["prepared_equal"] = all(
            (folder / "here" / p).read_bytes() == (folder / "2_workers" / p).read_bytes()
            for p in files
        )
    return found


def by_two(scorer: BlockScorer, numbers: Sequence[int]) -> Iterator[tuple[int, pl.DataFrame]]:
    return RayBlocks(ClusterConfig(workers=2))(scorer.offers, numbers)


def driver_killed(arguments: argparse.Namespace, wanted: str) -> dict[str, Any]:
    """SIGKILL of the process that gave the command; the same command goes on."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--users", str(arguments.users),
                   "--epochs", str(arguments.epochs), "--tokens", str(arguments.tokens),
                   "--driver", folder]  # fmt: skip
        process = subprocess.Popen(command, start_new_session=True)
        while process.poll() is None and not list(Path(folder).glob("checkpoints/step-*")):
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        was_killed = process.wait() == -signal.SIGKILL
        say("driver killed; the same again")
        split = split_of(arguments.users)
        with redirect_stdout(sys.stderr), connected(ClusterConfig(workers=2)):
            again, _, _ = fit(split, arguments, 2, folder=Path(folder))
    return {"driver_killed": was_killed, "driver_killed_equal": digest(again) == wanted}


def partitioned(ways: int) -> dict[str, Any]:
    """Two ranks, each in a network of its own, whose packets are dropped in the middle.

    The routes of one side (2: of both) become black holes while the connection is open: nobody is
    told, as when a cable is pulled (C04, C15).
    """
    root, timeout = Path(__file__).parents[1], 5
    commands = [
        "ip netns add nextbuy-a", "ip netns add nextbuy-b",
        "ip link add nextbuy-va type veth peer name nextbuy-vb",
        "ip link set nextbuy-va netns nextbuy-a", "ip link set nextbuy-vb netns nextbuy-b",
        "ip -n nextbuy-a addr add 10.77.0.1/24 dev nextbuy-va",
        "ip -n nextbuy-b addr add 10.77.0.2/24 dev nextbuy-vb",
        "ip -n nextbuy-a link set lo up", "ip -n nextbuy-b link set lo up",
        "ip -n nextbuy-a link set nextbuy-va up", "ip -n nextbuy-b link set nextbuy-vb up",
    ]  # fmt: skip
    cuts = ["ip -n nextbuy-b route add blackhole 10.77.0.1/32",
            "ip -n nextbuy-a route add blackhole 10.77.0.2/32"][:ways]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    ranks: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for command in commands:
                subprocess.run(command.split(), check=True)
            for rank, name in enumerate(("nextbuy-a", "nextbuy-b")):
                words = ["ip", "netns", "exec", name, sys.executable, "-m",
                         "tests.training.small_team", str(rank), "2", "10.77.0.1", "29611", folder,
                         "--own-host", f"10.77.0.{rank + 1}", "--timeout", str(timeout),
                         "--pause", "0.05", "--epochs", "40", "--join", "60"]  # fmt: skip
                ranks.append(subprocess.Popen(
                    words, cwd=root, env=environment, stderr=subprocess.PIPE, text=True,
                    stdout=subprocess.DEVNULL,
                ))  # fmt: skip
            while not list(Path(folder).glob("checkpoints/step-*")):
                if any(rank.poll() is not None for rank in ranks):
                    raise RuntimeError(ranks[0].communicate()[1])
                time.sleep(0.05)
            for command in cuts:
                subprocess.run(command.split(), check=True)
            started = time.monotonic()
            errors = [rank.communicate(timeout=20 * timeout)[1] for rank in ranks]
            took = time.monotonic() - started
            stored = sorted(path.name for path in Path(folder).glob("checkpoints/*"))
        finally:
            for one in ranks:
                one.kill()
            for name in ("nextbuy-a", "nextbuy-b"):
                subprocess.run(["ip", "netns", "del", name], check=False)
    return {
        "ended_after_seconds": round(took, 1),
        "timeout_seconds": timeout,
        "lost_told_by": sum("PeerLostError" in error for error in errors),
        "whole_checkpoints_alone": all(name.startswith("step-") for name in stored),
    }


def digest(model: Any) -> str:
    weights = model.weights()
    return hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
