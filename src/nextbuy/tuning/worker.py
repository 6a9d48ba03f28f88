"""A worker of a search: `python -m nextbuy.tuning.worker FOLDER`, started by `workers.py`.

It reads the config and then a line of JSON for each trial from standard input, and answers with
lines of JSON on standard output: `{"ready"}` at first; `{"epoch", "loss"}` after each epoch, to
which the answer is a line `go` or `prune`; at the end of a trial the outcome. It ends with its
input, in the middle of a trial too: so no worker outlives a search that was killed.
"""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from nextbuy.storage import failpoint
from nextbuy.tuning.config import TuningConfig
from nextbuy.tuning.fitting import Fitting, Outcome, Watched
from nextbuy.tuning.shared_split import load_split


def serve(folder: Path, lines: Callable[[], str], answers: TextIO) -> None:
    """Fit what is asked for, until the process ends."""

    def answer(**facts: Any) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    def judge(epoch: int, loss: float) -> str:
        answer(epoch=epoch, loss=loss)
        return lines()

    config = TuningConfig.model_validate_json(lines())
    fitting = Fitting(config=config, split=load_split(folder))
    answer(ready=True)
    while True:
        asked = json.loads(lines())
        left = asked["seconds"]
        deadline = float("inf") if left is None else time.monotonic() + left
        failpoint("worker_trial")
        outcome = fitting.attempt(
            asked["values"], Path(asked["folder"]), Watched(deadline, judge=judge)
        )
        answer(**as_json(outcome))


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything but the model, whose weights are in the checkpoint."""
    return {
        "state": outcome.state,
        "seconds": outcome.seconds,
        "scoring": outcome.scoring,
        "scores": dict(outcome.scores),
        "error": None if outcome.error is None else str(outcome.error),
    }


def _main() -> None:
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            heard.put(line.strip())
        os._exit(0)  # the search has ended, and with it whatever is being fitted

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    threading.Thread(target=listen, daemon=True).start()
    serve(Path(sys.argv[1]), heard.get, answers)


if __name__ == "__main__":
    _main()
