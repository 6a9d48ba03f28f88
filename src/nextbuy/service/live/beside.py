"""A process beside the service that holds the same model, so that two cores can work.

The event loop, which reads and writes requests, and the model, which computes, want the same
interpreter: in one process they take turns. Where the model has a process of its own, one works on
a batch while the other reads the next. Whoever asks works on it alone where the process cannot be
asked: because it is starting, has been killed, or hangs. It is then started again.
"""

import contextlib
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Condition, Event, Lock, Thread
from typing import Any, Final, Self

from nextbuy.data.histories import Float32, Histories, Int32, Int64
from nextbuy.models.protocol import Searched
from nextbuy.service.live.frames import Arrays, receive, send
from nextbuy.service.live.model_process import arrays_of
from nextbuy.splitting.rules import Rules

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 15.0  # ten million items and 128 questions take three
_START_SECONDS: Final = 120.0
_SHORTEST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_STDERR: Final = 2
_PROGRAM: Final = "nextbuy.service.live.model_process"


class ModelBeside:
    """The model of one version in another process, which is kept running until `close`.

    Args:
        folder: Of the version.
        answer_seconds: A process that takes longer for an answer is killed.
    """

    def __init__(self, folder: Path, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._folder, self._answer_seconds = folder, answer_seconds
        self._line: _Line | None = None
        self._starting: _Line | None = None
        self._changes = Lock()
        self._closed = Event()
        self._keeper = Thread(target=self._keep, name="nextbuy-model-beside", daemon=True)
        self._keeper.start()

    @property
    def is_ready(self) -> bool:
        """Whether the process can be asked."""
        return self._line is not None

    @property
    def process_id(self) -> int | None:
        """Of the process that can be asked; None if there is none."""
        line = self._line
        return None if line is None else line.process.pid

    def offers(
        self, histories: Histories, told: Int64 | None, k: int, rules: Rules | None
    ) -> tuple[Int32, Float32] | None:
        """Items and log-probabilities as of `found_offers`, [U, k]; None if it cannot be asked."""
        text = None if rules is None else rules.model_dump_json()
        found = self._ask(histories, told, k, rules=text)
        return None if found is None else (found["items"], found["values"])

    def search(self, histories: Histories, told: Int64 | None, k: int) -> Searched | None:
        """As `Searching.search`; None if it cannot be asked."""
        found = self._ask(histories, told, k, searches=True)
        return None if found is None else Searched(**found)

    def close(self) -> None:
        """End the process; whoever asks from now on gets None."""
        self._closed.set()
        with self._changes:
            self._line, line = None, self._starting
        if line is not None:
            line.end()
        self._keeper.join()

    def _ask(
        self,
        histories: Histories,
        told: Int64 | None,
        k: int,
        *,
        rules: str | None = None,
        searches: bool = False,
    ) -> Arrays | None:
        line = self._line
        if line is None:
            return None
        words = {"k": k, "rules": rules, "searches": searches}
        try:
            answer, found = line.ask(words, arrays_of(histories, told))
        except (EOFError, OSError) as error:
            if not self._closed.is_set():
                logger.warning(
                    "the model's process did not answer (%s); it is started again",
                    type(error).__name__,
                )
            self._end(line)
            return None
        if "error" in answer:
            logger.warning("the model's process failed: %s", answer["error"])
            return None
        return found

    def _keep(self) -> None:
        """Start it again whenever it has ended, after a pause that grows while it ends soon."""
        pause = _SHORTEST_PAUSE
        while not self._closed.is_set():
            started, code = time.monotonic(), None
            try:
                line = self._start()
            except OSError as error:
                logger.warning("the model's process could not be started: %s", error)
            else:
                code = line.process.wait()
                self._end(line)
                line.close()
            if time.monotonic() - started > _LONGEST_PAUSE:
                pause = _SHORTEST_PAUSE
            if code is not None and not self._closed.is_set():
                logger.warning(
                    "the model's process ended with %s; the next one starts in %.0f s", code, pause
                )
            self._closed.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _start(self) -> "_Line":
        """A process, which can be asked from now on if it said that it is ready."""
        line = _Line.to(self._folder)
        with self._changes:
            self._starting = line
        if self._closed.is_set():
            line.end()
        if line.is_ready(self._answer_seconds):
            with self._changes:
                if not self._closed.is_set():
                    self._line = line
                    logger.info("the model has a process of its own, %d", line.process.pid)
                    return line
        line.end()
        return line

    def _end(self, line: "_Line") -> None:
        with self._changes:
            if self._line is line:
                self._line = None
        line.end()


class _Line:
    """A process and the socket to it. Several threads may ask; answers come in the same order."""

    def __init__(self, process: "subprocess.Popen[bytes]", pipe: socket.socket) -> None:
        self.process, self._pipe = process, pipe
        self._sending, self._turns = Lock(), Condition()
        self._sent = self._answered = self._inside = 0

    @classmethod
    def to(cls, folder: Path) -> Self:
        """A new process."""
        mine, its = socket.socketpair()
        with its, contextlib.ExitStack() as opened:
            opened.enter_context(mine)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROGRAM, str(folder), str(its.fileno())],
                stdin=subprocess.DEVNULL, stdout=_STDERR, pass_fds=(its.fileno(),),
            )  # fmt: skip
            opened.pop_all()
        return cls(process, mine)

    def is_ready(self, answer_seconds: float) -> bool:
        """Wait until it has loaded the model; False if it ends before."""
        try:
            self._pipe.settimeout(_START_SECONDS)
            receive(self._pipe)
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)  # so that it is told how it ended
            return False
        self._pipe.settimeout(answer_seconds)
        return True

    def ask(self, words: Mapping[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """What it answers; `EOFError` or `OSError` if it does not."""
        with self._turns:
            self._inside += 1
        try:
            with self._sending:
                send(self._pipe, words, arrays)
                turn = self._sent
                self._sent += 1
            with self._turns:
                self._turns.wait_for(lambda: self._answered == turn)
            try:
                return receive(self._pipe)
            finally:
                with self._turns:
                    self._answered += 1
                    self._turns.notify_all()
        finally:
            with self._turns:
                self._inside -= 1
                self._turns.notify_all()

    def end(self) -> None:
        """Kill it; whoever waits for an answer is told that none comes."""
        self.process.kill()
        with contextlib.suppress(OSError):
            self._pipe.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it, and give the socket back once nobody is at it."""
        self.end()
        self.process.wait()
        with self._turns:
            self._turns.wait_for(lambda: not self._inside)
            self._pipe.close()
