"""What runs in the processes of a cluster that train a network together."""

import socket
import threading
from dataclasses import dataclass
from typing import Any

import torch

from nextbuy.cluster.code import code_facts
from nextbuy.cluster.connecting import own_address, whereabouts
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.errors import NextbuyError
from nextbuy.models.neural import NeuralModel
from nextbuy.models.protocol import FitOptions
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Cases
from nextbuy.training.distributed import DistributedTeam, JoinConfig, join, listen
from nextbuy.training.interruption import StopRequest
from nextbuy.training.team import Alone, Team
from nextbuy.training.torch_engine import torch_device

Event = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Job:
    """What is fitted, on what."""

    model: "NeuralModel[Any, Any]"
    train: Histories
    validation: Cases
    catalog: Catalog


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Meeting:
    """Where the team of a job meets.

    Attributes:
        host: Of rank 0.
        port: Of rank 0.
        config: Of the team; None for one worker.
        threads: Of each.
        options: Of the run; folder and progress are of rank 0 alone.
    """

    host: str
    port: int
    config: JoinConfig | None
    threads: int
    options: FitOptions


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        model: Fitted; of rank 0 alone.
        error: Why there is none.
        seconds: What each rank has computed, without waiting for others; empty if it was alone.
    """

    model: "NeuralModel[Any, Any] | None" = None
    error: NextbuyError | None = None
    seconds: tuple[float, ...] = ()


class Worker:
    """One rank. Ray calls the methods in threads: while one fits, others answer."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._stop = StopRequest()
        self._events = EventList()
        self._listening: socket.socket | None = None

    def about(self) -> dict[str, str]:
        """Who this is, and which code it runs."""
        return {**whereabouts(), **code_facts()}

    def listen(self, port: int) -> tuple[str, int] | NextbuyError:
        """Host and port at which the others find rank 0."""
        host = own_address()
        try:
            self._listening = listen(host, port)
        except NextbuyError as error:
            return error
        return host, int(self._listening.getsockname()[1])

    def fit(self, job: Job, meeting: Meeting) -> Outcome:
        """Fit with the others; errors that are meant for the user are part of what comes back."""
        torch.set_num_threads(meeting.threads)
        try:
            team = self._team(job, meeting)
            model = job.model.fit(
                job.train, job.validation, job.catalog, self._options(meeting, team)
            )
        except NextbuyError as error:
            return Outcome(error=error)
        seconds = tuple(team.seconds) if isinstance(team, DistributedTeam) else ()
        return Outcome(model=model if self._rank == 0 else None, seconds=seconds)

    def news(self) -> list[Event]:
        """What the progress was told since the last time; also a sign of life."""
        return self._events.taken()

    def stop(self, signal_number: int) -> None:
        """Let all save and stop after their step, as on a signal."""
        self._stop.signal_number = signal_number

    def _team(self, job: Job, meeting: Meeting) -> Team:
        if meeting.config is None:
            return Alone(self._stop)
        return join(
            meeting.host, meeting.port, self._rank, meeting.config, listening=self._listening,
            own_host=own_address(), device=torch_device(job.model.config.device),
            stop=self._stop,
        )  # fmt: skip

    def _options(self, meeting: Meeting, team: Team) -> FitOptions:
        told, is_first = meeting.options, self._rank == 0
        progress: Progress = self._events if is_first else SilentProgress()
        return FitOptions(
            seed=told.seed, epochs=told.epochs, run_folder=told.run_folder if is_first else None,
            memory_limit=told.memory_limit, progress=progress, team=team,
        )  # fmt: skip


class EventList:
    """Progress that is told to somebody else later; see `Progress`."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def taken(self) -> list[Event]:
        """What was told since the last time."""
        with self._lock:
            events, self._events = self._events, []
        return events

    def about(self, subject: str) -> None:
        """Note it."""
        self._note("about", subject)

    def start(self, name: str, total: int, done: int = 0) -> None:
        """Note it."""
        self._note("start", name, total, done)

    def advance(self, units: int, facts: dict[str, float]) -> None:
        """Note it."""
        self._note("advance", units, facts)

    def finish(self) -> None:
        """Note it."""
        self._note("finish")

    def _note(self, name: str, *arguments: Any) -> None:
        with self._lock:
            self._events.append((name, arguments))
