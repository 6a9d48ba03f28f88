"""Tune the transformer and kill it at random moments; is a trial lost, and is the gain noise?

    python benchmarks/tune.py FOLDER --log s3_beauty --minutes 20 --kills 3
    python benchmarks/tune.py FOLDER --log complete_journey --minutes 20 --kills 3

FOLDER has s3_beauty.parquet, or is that file; the Complete Journey (its categories) comes from its
package. `nextbuy tune` runs in a process group of its own, which is killed with SIGKILL and started
again with the time that is left. Each line that said before a kill that a trial had ended is then
looked up in the study: it must be there, with the same end and the same value. Prints one JSON
line; the exit code is 1 if a trial was lost. On a machine that others use set OMP_NUM_THREADS=1:
threads that wait for each other there cost several times as much as they save.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FIRST, LAST = 0.08, 0.7
"""Shares of the time between which kills come: after the start, and with time left to end."""

SAID: Final = re.compile(
    r"trial (?P<number>\d+) (?P<state>complete|pruned|failed)"
    r"(?:, validation \S+ (?P<value>[-\d.]+))?"
)
STATES: Final = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
LOGS: Final[dict[str, tuple[str, ...]]] = {
    "s3_beauty": ("--time", "order", "--time-column", "position", "--split", "leave-last-out"),
    "complete_journey": ("--level", "category"),
}


@dataclass
class Started:
    """A search that runs, and what it said of its trials."""

    process: "subprocess.Popen[str]"
    said: list[dict[str, str | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self) -> None:
        """Until it ends."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.notes.append(line)
            if found := SAID.match(line.strip()):
                self.said.append(found.groupdict())
                say(line.strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--log", choices=LOGS, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--metric", default="loss")
    parser.add_argument("--epochs", type=int, help="of each trial; default the model's own")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--keep", type=Path, help="folder for the study; default one that is gone")
    arguments = parser.parse_args()
    source = "complete-journey"
    if arguments.log == "s3_beauty":
        path = arguments.data / "s3_beauty.parquet" if arguments.data.is_dir() else arguments.data
        if not path.exists():
            sys.exit(f"{path} is not here; nothing was measured.")
        source = str(path)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "study"
        report = measure(arguments, source, folder)
    print(json.dumps(report))
    sys.exit(bool(report["lost"]))


def measure(arguments: argparse.Namespace, source: str, folder: Path) -> dict[str, Any]:
    """Search with kills, and hold what was said against what is kept."""
    seconds = 60 * arguments.minutes
    rng = random.Random(arguments.seed)
    moments = sorted(rng.uniform(FIRST, LAST) * seconds for _ in range(arguments.kills))
    said: list[dict[str, str | None]] = []
    kills, began = [], time.monotonic()

    def gone() -> float:
        return time.monotonic() - began

    for moment in moments:
        search = start(arguments, source, folder, seconds - gone())
        try:
            search.process.wait(max(0.0, moment - gone()))
        except subprocess.TimeoutExpired:
            os.killpg(search.process.pid, signal.SIGKILL)
            end(search)
            kills.append(round(gone(), 1))
            said += search.said
            say(f"killed after {gone():.0f} s; {len(said)} trials were said to have ended")
        else:
            end(search)
            sys.exit(f"it ended before the kill: {''.join(search.notes)[-2000:]}")
    search = start(arguments, source, folder, seconds - gone())
    out = end(search)
    if search.process.returncode:
        sys.exit(f"the search failed: {''.join(search.notes)[-2000:]}")
    found = json.loads(out)
    lost = lost_trials(folder, said, arguments.metric)
    return {
        "log": arguments.log,
        "minutes": arguments.minutes,
        "seconds": round(gone(), 1),
        "workers": arguments.workers,
        "epochs": arguments.epochs,
        "kills_after_seconds": kills,
        "trials": found["trials"],
        "said_before_a_kill": len(said),
        "lost": len(lost),
        "lost_trials": lost,
        "default": found["default"],
        "tuned": found["best"],
        "test": found["test"],
        "verdict": found["verdict"],
        "looks_at_the_test": found["looks"],
        "protocol": found["protocol"],
        "cores": len(os.sched_getaffinity(0)),
    }


def lost_trials(folder: Path, said: list[dict[str, str | None]], metric: str) -> list[str]:
    """What was said and is not so, read from the journal with Optuna alone."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    kept = optuna.load_study(study_name=None, storage=storage).get_trials()
    sign = 1 if metric == "loss" else -1
    lost = []
    for one in said:
        trial = kept[int(one["number"] or 0)] if int(one["number"] or 0) < len(kept) else None
        same = trial is not None and trial.state.name == STATES[one["state"] or ""]
        if same and one["value"] is not None and trial is not None and trial.value is not None:
            same = f"{sign * trial.value:.6f}" == one["value"]
        if not same:
            lost.append(f"trial {one['number']} {one['state']} {one['value']}")
    return lost


def start(arguments: argparse.Namespace, source: str, folder: Path, seconds: float) -> Started:
    """A search in a process group of its own."""
    command = [
        sys.executable, "-m", "nextbuy", "tune", source, *LOGS[arguments.log],
        "--model", "transformer", "--trials", "1000", "--metric", arguments.metric,
        "--time-limit", str(max(1.0, seconds)), "--out", str(folder), "--json",
    ]  # fmt: skip
    if arguments.epochs:
        command += ["--epochs", str(arguments.epochs)]
    if arguments.workers > 1:
        command += ["--workers", str(arguments.workers)]
    return Started(
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )
    )  # fmt: skip


def end(search: Started) -> str:
    """What it printed, once it has ended."""
    assert search.process.stdout is not None
    out = search.process.stdout.read()
    search.process.wait()
    search.listener.join()
    return out


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
