"""Numbered blocks of work that do not depend on each other, done by the workers of a cluster."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError

from nextbuy.cluster.code import code_facts, refuse_other_code
from nextbuy.cluster.config import ClusterConfig
from nextbuy.cluster.connecting import (
    cpus_for_each,
    end_process,
    what_is_free,
    whereabouts,
)
from nextbuy.errors import ConfigError, PeerLostError

logger = logging.getLogger(__name__)

_AHEAD: Final = 2
"""Blocks that each worker has been given."""

_OFTEN: Final = 0.5

Done = TypeVar("Done")


class BlockWorker:
    """Does the blocks that it is given; what it is to do it has from the one who asks."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._work: Callable[[int], Any] | None = None

    def done(self, stored: Sequence[Any], number: int) -> Any:
        """What comes of a block; `stored` holds a reference to the work, which is followed once."""
        torch.set_num_threads(self._threads)
        if self._work is None:
            self._work = ray.get(stored[0])
        return self._work(number)

    @ray.method(concurrency_group="signs")
    def about(self) -> dict[str, str]:
        """Which code this runs; also a sign of life."""
        return {**whereabouts(), **code_facts()}


class RayBlocks:
    """Does blocks on a cluster; use it within `connected`.

    Ray starts a worker that died again, on another node if its own is lost, and gives it its blocks
    once more; one that does not answer is killed and started again.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._in_vain = 0
        self._places: dict[int, tuple[str, int]] = {}

    def __call__(
        self, work: Callable[[int], Done], numbers: Sequence[int]
    ) -> Iterator[tuple[int, Done]]:
        """What came of each block, with its number, as they are finished.

        Args:
            work: Can be sent: a function of a module, or a method of something that can be.
            numbers: Of the blocks.

        Raises:
            PeerLostError: If a block was lost with its worker again and again.
        """
        if not numbers:
            return
        stored = ray.put(work)  # stays while it is held here: a worker may begin again
        workers = self._started(min(self._config.workers, len(numbers)))
        left, given = list(reversed(numbers)), dict[Any, tuple[int, int]]()
        signs: dict[int, tuple[Any, float]] = {}
        try:
            while left or given:
                for place, worker in enumerate(workers):
                    mine = sum(one == place for one, _ in given.values())
                    for _ in range(min(_AHEAD - mine, len(left))):
                        number = left.pop()
                        given[worker.done.remote([stored], number)] = place, number
                for reference in ray.wait(list(given), timeout=_OFTEN)[0]:
                    number = given.pop(reference)[1]
                    yield number, self._done(reference, number)
                    self._in_vain = 0
                self._restart_who_hangs(workers, signs)
        finally:
            for worker in workers:
                ray.kill(worker)

    def _started(self, count: int) -> list[Any]:
        threads = cpus_for_each(count, torch.get_num_threads())
        made: Any = ray.remote  # whose types do not know of groups
        actor = made(concurrency_groups={"signs": 1})(BlockWorker)
        settings = actor.options(
            num_cpus=threads, max_restarts=-1, max_task_retries=self._config.most_restarts,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        workers = [settings.remote(threads) for _ in range(count)]
        try:
            found = ray.get([w.about.remote() for w in workers], timeout=self._config.start_seconds)
        except GetTimeoutError as error:
            raise ConfigError(
                f"{count} workers of {threads} processors did not start within "
                f"{self._config.start_seconds:g} s; free are {what_is_free()}."
            ) from error
        wanted = code_facts()
        for place, one in enumerate(found):
            self._note(place, one)
            refuse_other_code(f"A worker on {one['host']}", one, wanted)
        return workers

    def _note(self, place: int, about: dict[str, str]) -> None:
        self._places[place] = about["node"], int(about["pid"])

    def _done(self, reference: Any, number: int) -> Any:
        try:
            return ray.get(reference)
        except RayActorError as error:
            raise PeerLostError(
                f"Block {number} was lost with its worker {self._config.most_restarts + 1} times: "
                f"{str(error).splitlines()[0]} Give the same command again to go on."
            ) from error

    def _restart_who_hangs(self, workers: list[Any], signs: dict[int, tuple[Any, float]]) -> None:
        """Ask each for a sign of life from time to time; `signs` has what was asked and until when
        to wait for it, or when to ask. Who was started again has the time of a start."""
        now, patience = time.monotonic(), self._config.timeout_seconds
        for place, worker in enumerate(workers):
            reference, until = signs.setdefault(place, (None, now + patience / 4))
            if reference is None:
                if now > until:
                    signs[place] = worker.about.remote(), now + patience
            elif ray.wait([reference], timeout=0)[0]:
                with suppress(RayActorError):
                    self._note(place, ray.get(reference))
                signs[place] = None, now + patience / 4
            elif now > until:
                self._in_vain += 1
                if self._in_vain > self._config.most_restarts * len(workers):
                    raise PeerLostError(
                        f"Worker {place} has not answered for {patience:g} s, as others before; "
                        f"{self._in_vain} were started again, and no block was finished. "
                        "Give the same command again when the cluster is well."
                    )
                logger.warning("Worker %d does not answer; it is started again.", place)
                ray.kill(worker, no_restart=False)
                node, pid = self._places[place]
                end_process(node, pid)
                starting = max(patience, self._config.start_seconds)
                signs[place] = worker.about.remote(), now + starting
