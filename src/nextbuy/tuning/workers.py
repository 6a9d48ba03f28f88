"""Several trials at a time, each in a process of its own; this one alone writes the study."""

import contextlib
import json
import math
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol

from nextbuy.errors import TrainingError
from nextbuy.storage import failpoint
from nextbuy.threads import THREADS_VARIABLES, num_cores
from nextbuy.tuning.fitting import PRUNE, Outcome
from nextbuy.tuning.search import Running, Search
from nextbuy.tuning.shared_split import save_split

_SPLIT: Final = "split"
_SECONDS_BETWEEN_SIGNS: Final = 1.0


class WorkerProcess(Protocol):
    """What a search needs of `subprocess.Popen`."""

    returncode: int | None

    @property
    def stdin(self) -> Any:
        """Bytes are written to it, and flushed."""
        ...

    @property
    def stdout(self) -> Any:
        """Has a `fileno` that becomes ready when there is something to read, or the end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def communicate(self) -> Any:
        """Wait until it has ended."""
        ...


StartsProcess = Callable[[Sequence[str], int], WorkerProcess]
"""Starts the interpreter with these words; so many of them share the processors."""


def start_here(words: Sequence[str], workers: int) -> WorkerProcess:
    """On this machine."""
    threads = str(max(1, num_cores() // workers))
    return subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the search, which ends its workers
        env={**os.environ, **dict.fromkeys(THREADS_VARIABLES, threads)},
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class Worker:
    """A process, whether it has read the split, and the trial that it fits."""

    process: WorkerProcess
    is_ready: bool = False
    running: Running | None = None
    heard: bytes = b""

    def tell(self, line: str) -> None:
        """Write it a line; one that has ended is found out when it is read from."""
        pipe = _there(self.process.stdin)
        with contextlib.suppress(BrokenPipeError):
            pipe.write(line.encode() + b"\n")
            pipe.flush()

    def lines(self) -> Iterator[dict[str, Any]] | None:
        """What it said since; None if it has ended."""
        read = os.read(_there(self.process.stdout).fileno(), 1 << 16)
        if not read:
            return None
        *whole, self.heard = (self.heard + read).split(b"\n")
        return (json.loads(line) for line in whole)


class Workers:
    """As many processes as `config.workers`, with the cores divided among them.

    Args:
        search: Whose trials are fitted.
        start: Starts them.
    """

    def __init__(self, search: Search, start: StartsProcess = start_here) -> None:
        self._search, self._start_process = search, start
        self._split = search.folder / _SPLIT
        self._workers: list[Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> "Workers":
        save_split(self._search.fitting.split, self._split)
        for _ in range(self._search.fitting.config.workers):
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.communicate()
            if worker.running is not None:
                self._search.put_back(worker.running)
        self._selector.close()
        shutil.rmtree(self._split, ignore_errors=True)

    def run(self) -> None:
        """Try until there are enough finished trials or the time is up."""
        search = self._search
        while True:
            for worker in self._workers:
                busy = self._num_running()
                enough = search.num_finished() + busy >= search.fitting.config.trials
                if worker.running is None and not enough and search.has_time():
                    self._ask(worker, busy)
            if not self._num_running():
                return
            for key, _ in self._selector.select(_SECONDS_BETWEEN_SIGNS):
                self._hear(key.data)
            search.alive()

    def _num_running(self) -> int:
        return sum(worker.running is not None for worker in self._workers)

    def _start(self) -> None:
        config = self._search.fitting.config
        words = ["-m", "nextbuy.tuning.worker", str(self._split)]
        worker = Worker(self._start_process(words, config.workers))
        worker.tell(config.model_dump_json())
        self._workers.append(worker)
        self._selector.register(_there(worker.process.stdout), selectors.EVENT_READ, worker)

    def _ask(self, worker: Worker, num_running: int) -> None:
        running = worker.running = self._search.begin(num_running)
        left = self._search.deadline() - time.monotonic()
        asked = {
            "values": running.values,
            "folder": str(self._search.folder_of(running.trial)),
            "seconds": left if math.isfinite(left) else None,
        }
        worker.tell(json.dumps(asked))

    def _hear(self, worker: Worker) -> None:
        lines = worker.lines()
        if lines is None:
            self._replace(worker)
            return
        for said in lines:
            running = worker.running
            if running is None or "ready" in said:
                worker.is_ready = True
            elif "epoch" in said:
                prune = running.judge(said["epoch"], said["loss"]) == PRUNE
                failpoint("mid_parallel")
                worker.tell(PRUNE if prune else "go")
            else:
                worker.running = None
                error = None if said["error"] is None else TrainingError(said["error"])
                self._search.end(running, Outcome(**{**said, "error": error}))

    def _replace(self, worker: Worker) -> None:
        """A worker has ended by itself, killed or out of memory: its trial is tried once more."""
        self._selector.unregister(_there(worker.process.stdout))
        worker.process.communicate()
        self._workers.remove(worker)
        if not worker.is_ready:
            raise TrainingError(
                f"A worker ended with code {worker.process.returncode} before it could begin; what "
                "it said is above. Use fewer --workers."
            )
        if worker.running is not None:
            self._search.lose(worker.running)
        self._start()


def _there(pipe: IO[bytes] | None) -> IO[bytes]:
    """A pipe that was asked for."""
    if pipe is None:
        raise TypeError("The process has no pipe.")
    return pipe
