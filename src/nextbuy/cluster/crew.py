"""The workers of one start of a training: begun together, watched, ended together."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nextbuy.cluster.code import code_facts, refuse_other_code
from nextbuy.cluster.config import ClusterConfig
from nextbuy.cluster.connecting import end_process, here, what_is_free
from nextbuy.cluster.worker import Event, Meeting, Outcome, Worker
from nextbuy.errors import ConfigError, NextbuyError, PeerLostError
from nextbuy.models.protocol import FitOptions
from nextbuy.progress import Progress, SilentProgress
from nextbuy.training.distributed import JoinConfig
from nextbuy.training.interruption import Interrupted, StopRequest

logger = logging.getLogger(__name__)

_THREADS: Final = 4
"""Of a worker for calls: one fits, the others answer."""

_OFTEN: Final = 0.3
_SELDOM: Final = 2.0
"""Seconds between two calls to rank 0, which has news, and to others."""

_LAST_SIGN: Final = 5.0
"""Seconds in which a worker that is alive answers."""

_SLOW: Final = 1.5
_WORTH_SAYING: Final = 10.0
"""A worker that takes so many times as long as the fastest is named, if these are more seconds."""

Handle = Any  # Ray makes handles of actors at run time


class Crew:
    """One worker a rank; rank 0 is on the node of this process, where the run folder is."""

    def __init__(self, config: ClusterConfig, *, threads: int, gpus: int) -> None:
        self._config, self._threads = config, threads
        self._token = uuid4().hex
        actor: Any = ray.remote(Worker)
        common = {"num_cpus": threads, "num_gpus": gpus, "max_concurrency": _THREADS}
        places: list[Any] = ["SPREAD"] * config.workers
        places[0] = NodeAffinitySchedulingStrategy(here(), soft=False)
        self._workers: list[Handle] = [
            actor.options(**common, max_restarts=0, scheduling_strategy=place).remote(rank)
            for rank, place in enumerate(places)
        ]
        self._names = [f"Rank {rank}" for rank in range(config.workers)]
        self._places: list[tuple[str, int]] = []
        self._silent: set[int] = set()
        self._calls: dict[int, tuple[Any, float]] = {}
        self._called = [0.0] * config.workers

    def fit(self, job: Any, options: FitOptions, stop: StopRequest) -> Any:
        """The fitted model of a job, which is a reference to a `Job`.

        Raises:
            PeerLostError: If a worker died, hangs or cannot be reached; it is named.
            NextbuyError: What a worker says.
        """
        self._check_code()
        host, port = self._listening()
        meeting = Meeting(
            host=host, port=port, config=self._join_config(), threads=self._threads,
            options=replace(options, progress=SilentProgress(), workers=None),
        )  # fmt: skip
        waiting = {w.fit.remote(job, meeting): rank for rank, w in enumerate(self._workers)}
        outcomes: dict[int, Outcome] = {}
        has_stopped = False
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=_OFTEN)
            for reference in done:
                outcomes[waiting[reference]] = self._outcome(reference, waiting)
                del waiting[reference]
            self._look_after(waiting.values(), options.progress)
            if stop.signal_number is not None and not has_stopped:
                has_stopped = True
                self._workers[0].stop.remote(stop.signal_number)
        self._tell(self._answer(self._workers[0].news.remote(), 0), options.progress)
        self._say_who_was_slow(outcomes[0].seconds)
        return outcomes[0].model

    def end(self) -> None:
        """Kill all of them; nothing of them goes on."""
        for worker in self._workers:
            ray.kill(worker)
        for node, pid in (self._places[rank] for rank in self._silent):
            end_process(node, pid)

    def _check_code(self) -> None:
        wanted = code_facts()
        try:
            found = ray.get(
                [w.about.remote() for w in self._workers], timeout=self._config.start_seconds
            )
        except GetTimeoutError as error:
            raise ConfigError(
                f"{len(self._workers)} workers of {self._threads} processors did not start within "
                f"{self._config.start_seconds:g} s; free are {what_is_free()}."
            ) from error
        except RayActorError as error:
            raise PeerLostError(f"A worker died as it started: {_short(error)}") from error
        self._names = [
            f"Rank {rank} (pid {one['pid']} on {one['host']})" for rank, one in enumerate(found)
        ]
        self._places = [(one["node"], int(one["pid"])) for one in found]
        for name, one in zip(self._names, found, strict=True):
            refuse_other_code(name, one, wanted)

    def _listening(self) -> tuple[str, int]:
        if len(self._workers) == 1:
            return "", 0
        found = self._answer(self._workers[0].listen.remote(self._config.port), 0)
        if isinstance(found, NextbuyError):
            raise found
        return str(found[0]), int(found[1])

    def _join_config(self) -> JoinConfig | None:
        if len(self._workers) == 1:
            return None
        return JoinConfig(
            size=len(self._workers), join_seconds=self._config.join_seconds,
            timeout_seconds=self._config.timeout_seconds, must_agree={"start": self._token},
        )  # fmt: skip

    def _outcome(self, reference: Any, waiting: dict[Any, int]) -> Outcome:
        rank = waiting[reference]
        try:
            outcome: Outcome = ray.get(reference)
        except RayActorError as error:
            raise PeerLostError(f"{self._names[rank]} died: {_short(error)}") from error
        if isinstance(outcome.error, PeerLostError):
            others = {r: one for r, one in waiting.items() if one != rank}
            raise PeerLostError(f"{self._who_is_lost(others)}{outcome.error}") from outcome.error
        is_saved = rank == 0 or not isinstance(outcome.error, Interrupted)
        if outcome.error is not None and is_saved:  # rank 0 may still be saving what all stopped at
            raise outcome.error
        return outcome

    def _who_is_lost(self, others: dict[Any, int]) -> str:
        """Names those who died or do not answer any more."""
        signs = {self._workers[rank].news.remote(): rank for rank in others.values()}
        answered, silent = ray.wait(list(signs), num_returns=len(signs), timeout=_LAST_SIGN)
        self._silent |= {signs[one] for one in silent}
        lost = [f"{self._names[signs[one]]} does not answer. " for one in silent]
        for one in answered:
            try:
                ray.get(one)
            except RayActorError as error:
                lost.append(f"{self._names[signs[one]]} died: {_short(error)} ")
        return "".join(lost)

    def _look_after(self, ranks: Any, progress: Progress) -> None:
        """Ask those who are still at it for news; give up who has been silent for too long."""
        now = time.monotonic()
        for rank in ranks:
            call = self._calls.get(rank)
            if call is None:
                pause = _OFTEN if rank == 0 else _SELDOM
                if now - self._called[rank] >= pause:
                    self._called[rank] = now
                    self._calls[rank] = self._workers[rank].news.remote(), now
                continue
            reference, since = call
            if ray.wait([reference], timeout=0)[0]:
                del self._calls[rank]
                self._tell(self._answer(reference, rank), progress)
            elif now - since > self._config.timeout_seconds:
                self._silent.add(rank)
                raise PeerLostError(
                    f"{self._names[rank]} has not answered for {now - since:.0f} s."
                )

    def _answer(self, reference: Any, rank: int) -> Any:
        try:
            return ray.get(reference, timeout=self._config.timeout_seconds)
        except RayActorError as error:
            raise PeerLostError(f"{self._names[rank]} died: {_short(error)}") from error
        except GetTimeoutError as error:
            self._silent.add(rank)
            raise PeerLostError(f"{self._names[rank]} does not answer.") from error

    @staticmethod
    def _tell(events: list[Event], progress: Progress) -> None:
        for name, arguments in events:
            told: Callable[..., None] = getattr(progress, name)
            told(*arguments)

    def _say_who_was_slow(self, seconds: tuple[float, ...]) -> None:
        for name, one in zip(self._names, seconds, strict=False):
            logger.info("%s computed for %.1f s.", name, one)
            if one - min(seconds) > _WORTH_SAYING and one > _SLOW * min(seconds):
                logger.warning(
                    "%s computed for %.0f s, the fastest for %.0f s: all waited for it.",
                    name, one, min(seconds),
                )  # fmt: skip


def _short(error: Exception) -> str:
    """The first line of what Ray says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
