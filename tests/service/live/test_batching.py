"""Concurrent callers are worked on together, in turn, and none of them spoils it for others."""

import asyncio
import threading

import pytest

from nextbuy.errors import ConfigError, OverloadedError
from nextbuy.service.live.batching import Batcher


class Worker:
    """Doubles numbers, once it is let; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def __call__(self, jobs):
        self.batches.append(list(jobs))
        self.begun.set()
        self.gate.wait(10)
        if 13 in jobs:
            raise ConfigError("13 is no number")
        return [2 * job for job in jobs]


def batcher(worker, **limits):
    return Batcher(worker, **{"most_at_once": 4, "most_waiting": 8, "share": 2} | limits)


async def while_busy(worker, gathered, ask):
    """Let `ask` begin while the worker is held by another caller."""
    worker.gate.clear()
    first = asyncio.create_task(gathered.results([0]))
    await asyncio.to_thread(worker.begun.wait, 10)
    tasks = await ask()
    worker.gate.set()
    return [await first, *await asyncio.gather(*tasks, return_exceptions=True)]


async def begun(*calls):
    """Tasks that wait for their turn already."""
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


def test_what_waits_is_worked_on_at_once_and_split_again():
    worker = Worker()
    gathered = batcher(worker)

    async def ask():
        return await begun(*(gathered.results([n]) for n in (1, 2, 3)))

    found = asyncio.run(while_busy(worker, gathered, ask))
    assert found == [[0], [2], [4], [6]]
    assert worker.batches == [[0], [1, 2, 3]]


def test_a_long_call_leaves_room_for_others():
    worker = Worker()
    gathered = batcher(worker)

    async def ask():
        return await begun(gathered.results([1, 2, 3, 4, 5]), gathered.results([6]))

    found = asyncio.run(while_busy(worker, gathered, ask))
    assert found == [[0], [2, 4, 6, 8, 10], [12]]
    assert worker.batches == [[0], [1, 2, 6], [3, 4, 5]]


def test_what_is_too_much_is_refused_and_the_rest_goes_on():
    worker = Worker()
    gathered = batcher(worker, most_waiting=2)

    async def ask():
        return await begun(*(gathered.results([n]) for n in (1, 2, 3)))

    *found, refused = asyncio.run(while_busy(worker, gathered, ask))
    assert found == [[0], [2], [4]]
    assert isinstance(refused, OverloadedError)
    assert asyncio.run(gathered.results([4])) == [8]


def test_nobody_works_for_callers_that_have_gone():
    worker = Worker()
    gathered = batcher(worker)

    async def ask():
        tasks = await begun(gathered.results([1]), gathered.results([2]))
        tasks[0].cancel()
        return tasks

    first, gone, stayed = asyncio.run(while_busy(worker, gathered, ask))
    assert (first, stayed) == ([0], [4])
    assert isinstance(gone, asyncio.CancelledError)
    assert worker.batches == [[0], [2]]


def test_an_error_reaches_those_of_its_batch_and_no_one_later():
    gathered = batcher(Worker())
    with pytest.raises(ConfigError, match="13"):
        asyncio.run(gathered.results([13]))
    assert asyncio.run(gathered.results([1])) == [2]


def test_those_whose_requests_are_being_read_come_into_the_first_batch():
    worker = Worker()
    gathered = batcher(worker)

    async def ask():
        first = asyncio.create_task(gathered.results([1]))
        for _ in range(3):  # turns that the event loop needs to read the next request
            await asyncio.sleep(0)
        return await asyncio.gather(first, gathered.results([2]))

    assert asyncio.run(ask()) == [[2], [4]]
    assert worker.batches == [[1, 2]]
    gathered.close()


def test_a_worker_elsewhere_gets_the_next_batch_before_it_has_ended_one():
    worker = Worker()
    gathered = batcher(worker, most_waiting=64, most_at_once=40, looks_ahead=lambda: True)

    async def ask():
        more = await begun(*(gathered.results([n]) for n in range(20, 30)))
        while len(worker.batches) < 2:
            await asyncio.sleep(0.01)
        return [*more, *await begun(gathered.results([99]))]

    found = asyncio.run(asyncio.wait_for(while_busy(worker, gathered, ask), 20))
    assert found == [[0], *([2 * n] for n in range(20, 30)), [198]]
    assert worker.batches == [[0], list(range(20, 30)), [99]]


def test_half_of_many_jobs_is_left_for_the_batch_behind():
    worker = Worker()
    gathered = batcher(worker, most_waiting=64, most_at_once=60, looks_ahead=lambda: True)

    async def ask():
        return await asyncio.gather(*(gathered.results([n]) for n in range(20, 60)))

    assert asyncio.run(ask()) == [[2 * n] for n in range(20, 60)]
    assert sorted(map(len, worker.batches)) == [20, 20]
