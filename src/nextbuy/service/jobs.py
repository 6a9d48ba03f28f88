"""Long work beside the requests: one at a time, a few waiting, results kept for a while."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

import polars as pl

from nextbuy.errors import NextbuyError, OverloadedError, ServiceError, TooManyJobsError
from nextbuy.service.config import JobLimits

State = Literal["waiting", "running", "done", "failed", "cancelled"]
Work = Callable[[Callable[[float], None]], tuple[pl.DataFrame, str]]
"""Is given whom to tell the share that is done, 0 to 1; gives a table and the bundle's version."""

_SECONDS_TO_STOP: Final = 1.0

_log = logging.getLogger(__name__)


class JobCancelledError(ServiceError):
    """Raised inside the work, to end it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """Where one piece of work stands.

    Attributes:
        id: Random, so that it cannot be guessed.
        state: `done`, `failed` and `cancelled` are final; a cancelled one is not kept.
        progress: The share that is done, 0 to 1.
        table: The result, once it is done.
        version: Of the bundle that answered.
        detail: Why it failed.
        ended: By the clock of `Jobs`, once it has.
    """

    id: str
    state: State = "waiting"
    progress: float = 0.0
    table: pl.DataFrame | None = None
    version: str | None = None
    detail: str | None = None
    ended: float | None = None

    @property
    def held_bytes(self) -> int:
        """Of its result."""
        return 0 if self.table is None else int(self.table.estimated_size())


class Jobs:
    """Work and results, in one thread; nothing is kept for long, and never much of it."""

    def __init__(self, limits: JobLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._jobs: dict[str, Job] = {}  # oldest first
        self._waiting: dict[str, Work] = {}  # oldest first
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def submit(self, work: Work) -> Job:
        """Put work at the end of the queue.

        Raises:
            TooManyJobsError: If as many wait as may.
            OverloadedError: Once it is closed.
        """
        with self._change:
            self._expire()
            is_running = any(job.state == "running" for job in self._jobs.values())
            room = self._limits.waiting + (0 if is_running else 1)
            if self._is_closed:
                raise OverloadedError("The service is stopping. Send it again later.")
            if len(self._waiting) >= room:
                raise TooManyJobsError("Too many jobs wait already.", retry_after_seconds=10.0)
            job = Job(id=secrets.token_hex(16))
            self._jobs[job.id], self._waiting[job.id] = job, work
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
                self._thread.start()
            self._change.notify_all()
            return job

    def find(self, job_id: str) -> Job | None:
        """A job; None if there is none, or it was cancelled or has expired."""
        with self._change:
            self._expire()
            return self._jobs.get(job_id)

    def cancel(self, job_id: str) -> Job | None:
        """Forget a job; what runs stops as soon as it tells its progress. None as `find`."""
        with self._change:
            self._expire()
            return self._cancel(job_id)

    def wait(self, job_id: str, seconds: float) -> Job | None:
        """The job once it has ended, or as it stands after so many seconds."""
        with self._change:
            self._change.wait_for(lambda: self._has_ended(job_id), seconds)
            return self._jobs.get(job_id)

    def close(self) -> None:
        """Cancel everything and wait a moment for what runs."""
        with self._change:
            self._is_closed = True
            for job_id in list(self._jobs):
                self._cancel(job_id)
            self._change.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_SECONDS_TO_STOP)

    def _cancel(self, job_id: str) -> Job | None:
        self._waiting.pop(job_id, None)
        job = self._jobs.pop(job_id, None)
        self._change.notify_all()
        return None if job is None else replace(job, state="cancelled", table=None)

    def _has_ended(self, job_id: str) -> bool:
        job = self._jobs.get(job_id)
        return job is None or job.ended is not None

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                job_id = next(iter(self._waiting))
                work = self._waiting.pop(job_id)
                self._set(job_id, state="running")
            self._run(job_id, work)

    def _run(self, job_id: str, work: Work) -> None:
        ended: dict[str, object]
        try:
            table, version = work(lambda share: self._tell(job_id, share))
            ended = {"state": "done", "progress": 1.0, "table": table, "version": version}
        except JobCancelledError:
            return
        except NextbuyError as error:
            ended = {"state": "failed", "detail": str(error)}
        except Exception:  # the outer edge of this thread
            _log.exception("job %s failed", job_id)
            ended = {"state": "failed", "detail": "Something went wrong; the log has it."}
        with self._change:
            self._set(job_id, ended=self._clock(), **ended)
            self._expire()

    def _tell(self, job_id: str, share: float) -> None:
        with self._change:
            if job_id not in self._jobs:
                raise JobCancelledError("the job was cancelled")
            self._set(job_id, progress=min(max(share, 0.0), 1.0))

    def _set(self, job_id: str, **changes: object) -> None:
        """Change a job, unless it was cancelled in the meantime."""
        job = self._jobs.get(job_id)
        if job is not None:
            self._jobs[job_id] = replace(job, **changes)  # type: ignore[arg-type]  # names are checked
            self._change.notify_all()

    def _expire(self) -> None:
        """Forget what has ended: too long ago, too many, or too large together; oldest first."""
        now, held, kept = self._clock(), 0, 0
        for job in reversed(list(self._jobs.values())):
            if job.ended is None:
                continue
            held, kept = held + job.held_bytes, kept + 1
            is_old = now - job.ended > self._limits.kept_seconds
            if is_old or kept > self._limits.kept or held > self._limits.result_bytes:
                held -= job.held_bytes
                kept -= 1
                del self._jobs[job.id]
