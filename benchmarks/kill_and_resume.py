"""Kill a training run again and again; does it end with the bytes of one that nobody killed?

    python benchmarks/kill_and_resume.py --engine torch --kills 20
    python benchmarks/kill_and_resume.py --engine tensorflow --kills 20

Half of the kills hit named moments (inside and around a save, after a step), half hit a random
moment after the first checkpoint. Every kill is a SIGKILL. The killed run is given again, with the
same command, until it ends; then every file of its last checkpoint (weights, best weights,
optimizer, the state with its counters) and the log are compared by SHA-256. Prints one JSON object;
the exit code is 1 if a single byte differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = Path(__file__).parents[1] / "tests" / "training" / "small_run.py"
MOMENTS = (
    "after_step:3", "after_tmp_write:2", "before_manifest:3", "mid_manifest:2", "after_manifest:2",
    "after_dir_fsync:3", "after_rename:2", "after_parent_fsync:2", "before_epoch_save:1",
    "after_step:5",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=["torch", "tensorflow"], default="torch")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills-per-run", type=int, default=5, help="then the run may end")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    plan = [MOMENTS[i // 2 % len(MOMENTS)] if i % 2 else "random" for i in range(arguments.kills)]
    done: dict[str, int] = {}
    runs = equal = too_late = 0
    with tempfile.TemporaryDirectory() as temporary:
        whole = end(Path(temporary) / "whole", arguments.engine)
        while plan:
            runs += 1
            folder = Path(temporary) / f"killed-{runs}"
            for moment in plan[: arguments.kills_per_run]:
                if kill(folder, arguments.engine, moment, rng):
                    done[moment.split(":")[0]] = done.get(moment.split(":")[0], 0) + 1
                    plan.remove(moment)
                else:
                    too_late += 1  # the run had ended before: the kill is tried again in another
                    break
            equal += end(folder, arguments.engine) == whole
            say(f"run {runs}: {sum(done.values())} kills, {equal} of {runs} runs byte-equal")
    report = {
        "engine": arguments.engine,
        "kills": sum(done.values()),
        "kills_by_moment": dict(sorted(done.items())),
        "tries_after_the_end": too_late,
        "runs": runs,
        "runs_byte_equal": equal,
        "files_compared": sorted(whole),
    }
    print(json.dumps(report, indent=2))
    sys.exit(equal != runs)


def kill(folder: Path, engine: str, moment: str, rng: random.Random) -> bool:
    """Start or go on with a run, and kill it; False if it ended first."""
    failpoint = "" if moment == "random" else moment
    process = start(folder, engine, failpoint)
    if moment == "random":
        seen = checkpoints(folder)
        while process.poll() is None and checkpoints(folder) <= seen:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
    process.communicate(timeout=300)
    return process.returncode == -signal.SIGKILL


def checkpoints(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("checkpoints/step-*")}


def end(folder: Path, engine: str) -> dict[str, str]:
    process = start(folder, engine, "")
    out, err = process.communicate(timeout=300)
    if process.returncode:
        sys.exit(f"the run failed: {err[-2000:]}")
    hashes: dict[str, str] = json.loads(out)
    return hashes


def start(folder: Path, engine: str, failpoint: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(RUN), str(folder), engine, "--epochs", "4"],
        env={**os.environ, "NEXTBUY_FAILPOINT": failpoint},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
