"""What concurrent callers ask is worked on together, in a thread or two."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from nextbuy.errors import OverloadedError

Job = TypeVar("Job")
Result = TypeVar("Result")

_QUIET_TURNS: Final = 3
"""Turns of the event loop without a new job that say that nobody else is on the way in."""

_LEAST_OF_HALF: Final = 16
"""Jobs of a batch that leaves others for the next one."""

_LONGEST_SECONDS: Final = 0.01
"""Of letting others in, however many come."""


@dataclass(slots=True, eq=False)
class _Call(Generic[Job, Result]):
    """What one caller asks: jobs, how many of them were taken, and the results so far."""

    jobs: Sequence[Job]
    future: "asyncio.Future[list[Result]]"
    taken: int = 0
    results: list[Result] = field(default_factory=list)


_Part = tuple[_Call[Job, Result], int, int]
"""A call, and the first and the one after the last of its jobs in a batch."""


class Batcher(Generic[Job, Result]):
    """Gathers what waits while the worker is busy, and gives it to the worker at once.

    Nothing waits for company that may never come: a job that finds the worker free is worked on
    alone, but for those whose requests have arrived already and are being read. A call of many jobs
    is cut, so that others get their turn between. It may be used from one event loop at a time.

    Args:
        work: Results of some jobs, in their order; called in a thread.
        most_at_once: Jobs of a batch.
        most_waiting: Jobs that may wait; a call that finds the queue empty is taken whatever its
            size.
        share: Jobs of one call in a batch, while others wait.
        looks_ahead: Whether a second batch is given to the worker while it works on one, for it is
            somewhere else and would wait for what is done here between two batches.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Job]], Sequence[Result]],
        *,
        most_at_once: int,
        most_waiting: int,
        share: int,
        looks_ahead: Callable[[], bool] = lambda: False,
    ) -> None:
        self._work = work
        self._looks_ahead = looks_ahead
        self._most_at_once, self._most_waiting, self._share = most_at_once, most_waiting, share
        self._calls: deque[_Call[Job, Result]] = deque()
        self._waiting = 0
        self._gathering: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._worker = ThreadPoolExecutor(2, thread_name_prefix="nextbuy-predict")

    async def results(self, jobs: Sequence[Job]) -> list[Result]:
        """The results of some jobs, in their order.

        Raises:
            OverloadedError: If too many jobs wait already.
            Exception: What `work` raised for a batch with one of the jobs.
        """
        if not jobs:
            return []
        if self._waiting and self._waiting + len(jobs) > self._most_waiting:
            raise OverloadedError(
                f"{self._waiting} questions wait already, and {self._most_waiting} may. "
                "Ask again in a second."
            )
        loop = asyncio.get_running_loop()
        call = _Call[Job, Result](jobs, loop.create_future())
        if self._gathering is None or self._gathering.done():
            self._calls.clear()  # of a loop that has ended
            self._waiting, self._news = 0, asyncio.Event()
            self._gathering = loop.create_task(self._gather())
        self._calls.append(call)
        self._waiting += len(jobs)
        self._news.set()
        return await call.future

    def close(self) -> None:
        """Let the threads end; what is being worked on is finished."""
        self._worker.shutdown(wait=True)

    async def _gather(self) -> None:
        """Batch after batch, until nothing waits."""
        loop = asyncio.get_running_loop()
        running: set[asyncio.Task[None]] = set()
        while self._calls or running:
            self._news.clear()
            most = 2 if self._looks_ahead() else 1
            if self._calls and len(running) < most:
                await self._let_others_in()
                room = self._most_at_once
                if not running and most == 2:  # half now, so that the other half can follow
                    room = min(room, max(_LEAST_OF_HALF, self._waiting // 2))
                running.add(loop.create_task(self._work_on(self._next_batch(room))))
            else:
                news = loop.create_task(self._news.wait())
                there_is_room = [news] if len(running) < most else []
                await asyncio.wait([*running, *there_is_room], return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
            running = {task for task in running if not task.done()}

    async def _work_on(self, batch: "list[_Part[Job, Result]]") -> None:
        """Give a batch to the worker, and its results to those who asked."""
        jobs = [job for call, start, end in batch for job in call.jobs[start:end]]
        if not jobs:
            return
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(self._worker, self._work, jobs)
        await asyncio.wait([done])
        self._hand_out(batch, done)

    async def _let_others_in(self) -> None:
        """Turn the event loop as long as that brings new jobs.

        Work that begins while other requests are being read slows both down: one job alone costs as
        much as six in company, and both threads want the interpreter.
        """
        clock = asyncio.get_running_loop().time
        end, known, quiet = clock() + _LONGEST_SECONDS, self._waiting, 0
        while quiet < _QUIET_TURNS and self._waiting < self._most_at_once and clock() < end:
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._waiting == known else 0
            known = self._waiting

    def _next_batch(self, room: int) -> "list[_Part[Job, Result]]":
        """Some jobs of the calls that wait, each with its range; calls in turn."""
        batch: list[_Part[Job, Result]] = []
        for _ in range(len(self._calls)):
            if not room:
                break
            call = self._calls.popleft()
            left = len(call.jobs) - call.taken
            if call.future.done():  # whoever asked has gone
                self._waiting -= left
                continue
            taken = min(left, room, self._share if self._calls or batch else left)
            batch.append((call, call.taken, call.taken + taken))
            call.taken += taken
            room -= taken
            self._waiting -= taken
            if taken < left:
                self._calls.append(call)
        return batch

    def _hand_out(
        self,
        batch: "Sequence[_Part[Job, Result]]",
        done: "asyncio.Future[Sequence[Result]]",
    ) -> None:
        error = done.exception()
        results = [] if error is not None else list(done.result())
        place = 0
        for call, start, end in batch:
            call.results += results[place : place + end - start]
            place += end - start
            if call.future.done():
                continue
            if error is not None:
                call.future.set_exception(error)
            elif len(call.results) == len(call.jobs):
                call.future.set_result(call.results)
