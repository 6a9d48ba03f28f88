"""Long work beside the requests: one at a time, a few waiting, results kept for a while."""

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

import polars as pl

from nextbuy.errors import NextbuyError, OverloadedError, ServiceError
from nextbuy.service.config import JobLimits

State = Literal["waiting", "running", "done", "failed", "cancelled"]
Work = Callable[[Callable[[float], None]], tuple[pl.DataFrame, str]]
"""Is given whom to tell the share that is done, 0 to 1; gives a table and the bundle's version."""

ENDED: Final = frozenset({"done", "failed", "cancelled"})
_SECONDS_TO_STOP: Final = 1.0

_log = logging.getLogger(__name__)


class JobCancelledError(ServiceError):
    """Raised inside the work, to end it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """Where one piece of work stands.

    Attributes:
        id: Random, so that it cannot be guessed.
        state: `done`, `failed` and `cancelled` are final.
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
        self._cancelled: set[str] = set()
        self._lock = threading.Condition()
        self._queue: queue.SimpleQueue[tuple[str, Work] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def submit(self, work: Work) -> Job:
        """Put work at the end of the queue.

        Raises:
            OverloadedError: If as many wait as may.
        """
        with self._lock:
            self._expire()
            open_jobs = sum(job.state not in ENDED for job in self._jobs.values())
            if self._is_closed or open_jobs > self._limits.waiting:
                raise OverloadedError("Too many jobs wait already.", retry_after_seconds=10.0)
            job = Job(id=secrets.token_hex(16))
            self._jobs[job.id] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
                self._thread.start()
            self._queue.put((job.id, work))
            return job

    def find(self, job_id: str) -> Job | None:
        """A job; None if there is none or it has expired."""
        with self._lock:
            self._expire()
            return self._jobs.get(job_id)

    def cancel(self, job_id: str) -> Job | None:
        """Stop a job as soon as it says where it stands, or forget its result; None as `find`."""
        with self._lock:
            self._expire()
            job = self._jobs.get(job_id)
            if job is None:
                return None
            if job.state in ENDED:
                del self._jobs[job_id]
                return replace(job, state="cancelled", table=None)
            if job.state == "running":
                self._cancelled.add(job_id)
                return job
            return self._set(job, state="cancelled", ended=self._clock())

    def wait(self, job_id: str, seconds: float) -> Job | None:
        """The job once it has ended, or as it stands after so many seconds."""
        with self._lock:
            self._lock.wait_for(
                lambda: self._jobs[job_id].state in ENDED if job_id in self._jobs else True, seconds
            )
            return self._jobs.get(job_id)

    def close(self) -> None:
        """Cancel everything and wait some seconds for what runs."""
        with self._lock:
            self._is_closed = True
            for job in list(self._jobs.values()):
                if job.state == "waiting":
                    self._set(job, state="cancelled", ended=self._clock())
                elif job.state == "running":
                    self._cancelled.add(job.id)
            thread = self._thread
        self._queue.put(None)
        if thread is not None:
            thread.join(_SECONDS_TO_STOP)

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            job_id, work = entry
            with self._lock:
                job = self._jobs.get(job_id)
                if job is None or job.state != "waiting":
                    continue
                self._set(job, state="running")
            self._run(job_id, work)

    def _run(self, job_id: str, work: Work) -> None:
        ended: dict[str, object]
        try:
            table, version = work(lambda share: self._tell(job_id, share))
            ended = {"state": "done", "progress": 1.0, "table": table, "version": version}
        except JobCancelledError:
            ended = {"state": "cancelled"}
        except NextbuyError as error:
            ended = {"state": "failed", "detail": str(error)}
        except Exception:  # the outer edge of this thread
            _log.exception("job %s failed", job_id)
            ended = {"state": "failed", "detail": "Something went wrong; the log has it."}
        with self._lock:
            self._cancelled.discard(job_id)
            if job_id in self._jobs:
                self._set(self._jobs[job_id], ended=self._clock(), **ended)
            self._expire()

    def _tell(self, job_id: str, share: float) -> None:
        with self._lock:
            if job_id in self._cancelled:
                raise JobCancelledError("the job was cancelled")
            self._set(self._jobs[job_id], progress=min(max(share, 0.0), 1.0))

    def _set(self, job: Job, **changes: object) -> Job:
        changed = replace(job, **changes)  # type: ignore[arg-type]  # names are checked by replace
        self._jobs[job.id] = changed
        self._lock.notify_all()
        return changed

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
