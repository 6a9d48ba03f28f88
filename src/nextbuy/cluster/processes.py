"""A process on some node of a cluster, told and heard through pipes as if it were here."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayError

from nextbuy.cluster.code import code_facts, refuse_other_code
from nextbuy.cluster.config import ClusterConfig
from nextbuy.cluster.connecting import cpus_for_each, what_is_free, whereabouts
from nextbuy.errors import ConfigError, JoinError
from nextbuy.threads import THREADS_VARIABLES, num_cores

_CHUNK: Final = 1 << 16


class Relay:
    """Starts the process on its node and hands on what is said; the process ends with it."""

    def __init__(self, words: Sequence[str], threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(THREADS_VARIABLES, str(threads))},
        )  # fmt: skip

    def about(self) -> dict[str, str]:
        """Which code is there, and where that is."""
        return {**whereabouts(), **code_facts()}

    def tell(self, said: bytes) -> None:
        """Write to the process; one that has ended is found out by hearing nothing more."""
        pipe = self._process.stdin
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.write(said)
                pipe.flush()

    @ray.method(concurrency_group="hearing")
    def hear(self) -> bytes:
        """What it says next; nothing if it has ended."""
        pipe = self._process.stdout
        return b"" if pipe is None else os.read(pipe.fileno(), _CHUNK)

    @ray.method(concurrency_group="hearing")
    def returncode(self) -> int:
        """Once it has ended."""
        return self._process.wait()


class _Told:
    """The pipe into the process."""

    def __init__(self, relay: Any) -> None:
        self._relay = relay

    def write(self, said: bytes) -> None:
        """Hand it on."""
        self._relay.tell.remote(said)

    def flush(self) -> None:
        """Nothing is kept back."""


class RayProcess:
    """As `subprocess.Popen`, as far as a search needs it.

    Args:
        words: What the interpreter is started with.
        threads: Processors that it has.
        start_seconds: For the cluster to make room for it.

    Raises:
        ConfigError: If there is no room for it in time.
        JoinError: If other code is there.
    """

    def __init__(self, words: Sequence[str], threads: int, start_seconds: float) -> None:
        made: Any = ray.remote  # whose types do not know of groups
        actor = made(concurrency_groups={"hearing": 1})(Relay)
        self._relay = actor.options(num_cpus=threads, scheduling_strategy="SPREAD").remote(
            words, threads
        )
        try:
            found = ray.get(self._relay.about.remote(), timeout=start_seconds)
        except GetTimeoutError as error:
            self.kill()
            raise ConfigError(
                f"A worker of {threads} processors did not start within {start_seconds:g} s; free "
                f"are {what_is_free()}. Ask for fewer --workers."
            ) from error
        try:
            refuse_other_code(f"A worker on {found['host']}", found, code_facts())
        except JoinError:
            self.kill()
            raise
        self.returncode: int | None = None
        self.stdin = _Told(self._relay)
        read, self._write = os.pipe()
        self.stdout = os.fdopen(read, "rb")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            while said := ray.get(self._relay.hear.remote()):
                os.write(self._write, said)
            self.returncode = ray.get(self._relay.returncode.remote())
        except RayError:  # it was killed, or its node is lost
            self.returncode = -9
        finally:
            os.close(self._write)

    def kill(self) -> None:
        """End it, wherever it is."""
        ray.kill(self._relay)

    def communicate(self) -> None:
        """Wait until it has ended."""
        self._thread.join()
        self.stdout.close()


def starting_on(config: ClusterConfig) -> Callable[[Sequence[str], int], RayProcess]:
    """Starts processes on a cluster, as many as share its processors; use it within `connected`."""

    def start(words: Sequence[str], workers: int) -> RayProcess:
        threads = cpus_for_each(workers, num_cores())
        return RayProcess(words, threads, config.start_seconds)

    return start
