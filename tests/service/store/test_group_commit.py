"""Submissions from many threads become few transactions, and nobody waits for ever."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nextbuy.errors import ConflictError, OverloadedError, StoreUnavailableError
from nextbuy.service.store.group_commit import Committer
from nextbuy.service.store.settling import settle, stored_purchases
from nextbuy.service.store.sqlite import SqliteStore
from tests.service.store.sending import bought, sent


class GatedStore:
    """Keeps the groups that it is given; each write waits at a gate until it is let through."""

    def __init__(self, error=None):
        self.groups, self.error, self.last, self.rows = [], error, 0, []
        self.reached, self.gate = threading.Semaphore(0), threading.Semaphore(0)

    def write(self, submissions):
        self.reached.release()
        self.gate.acquire()
        self.groups.append([one.key for one in submissions])
        if self.error is not None:
            raise self.error
        settled = settle(submissions, {}, self.last)
        for first, submission in settled.new:
            self.rows += stored_purchases(first, submission)
        self.last += sum(len(one.purchases) for one in submissions)
        return settled.outcomes

    def identity(self):
        return "memory"

    def last_sequence(self):
        return self.last

    def after(self, sequence, most):
        return [row for row in self.rows if row.sequence > sequence][:most]


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "live.db")
    yield store
    store.close()


def small(n):
    return sent(f"k{n}", bought(f"u{n}"))


def test_what_comes_during_a_write_is_the_next_group():
    store = GatedStore()
    committer = Committer(store, most=3)
    futures = [committer.submit(small(0))]
    store.reached.acquire()
    futures += [committer.submit(small(n)) for n in range(1, 6)]
    store.gate.release(3)
    assert [future.result().first_sequence for future in futures] == [1, 2, 3, 4, 5, 6]
    assert store.groups == [["k0"], ["k1", "k2", "k3"], ["k4", "k5"]]
    committer.close()


def test_a_group_has_some_thousand_purchases_and_a_larger_submission_stands_alone(monkeypatch):
    monkeypatch.setattr("nextbuy.service.store.group_commit.MOST_PURCHASES", 10)
    store = GatedStore()
    committer = Committer(store)
    sizes = [1, 6, 4, 1, 30, 1]
    futures = [committer.submit(small(0))]
    store.reached.acquire()
    futures += [
        committer.submit(sent(f"k{n}", *(bought("ann") for _ in range(size))))
        for n, size in enumerate(sizes[1:], 1)
    ]
    store.gate.release(10)
    assert [future.result().count for future in futures] == sizes
    assert store.groups == [["k0"], ["k1", "k2"], ["k3"], ["k4"], ["k5"]]
    committer.close()


def test_S47_a_full_queue_refuses_and_what_was_accepted_is_stored():
    store = GatedStore()
    committer = Committer(store, queue_size=2)
    accepted = [committer.submit(small(0))]
    store.reached.acquire()
    accepted += [committer.submit(small(1)), committer.submit(small(2))]
    assert committer.waiting == 2
    with pytest.raises(OverloadedError, match="2 submissions wait"):
        committer.submit(small(3))
    store.gate.release(2)
    assert [future.result().count for future in accepted] == [1, 1, 1]
    committer.close()


def test_S48_closing_stores_what_was_accepted_and_takes_no_more():
    store = GatedStore()
    committer = Committer(store, most=1)
    futures = [committer.submit(small(n)) for n in range(3)]
    store.gate.release(3)
    committer.close()
    committer.close()
    assert [future.result(timeout=0).first_sequence for future in futures] == [1, 2, 3]
    with pytest.raises(OverloadedError, match="stopping"):
        committer.submit(small(4))


def test_a_group_that_cannot_be_stored_fails_and_the_next_is_tried():
    store = GatedStore(error=StoreUnavailableError("the disk is full"))
    told = []
    committer = Committer(store, on_stored=told.extend)
    first = committer.submit(small(0))
    store.reached.acquire()
    group = [committer.submit(small(1)), committer.submit(small(2))]
    store.gate.release(2)
    for future in [first, *group]:
        with pytest.raises(StoreUnavailableError, match="the disk is full"):
            future.result()
    assert told == []
    store.error = None
    store.gate.release()
    assert committer.submit(small(1)).result().first_sequence == 1
    assert [one.purchase.user_id for one in told] == ["u1"]
    committer.close()


def test_S30_what_a_failed_write_stored_after_all_is_told_with_the_next(store, monkeypatch):
    """The answer to a commit is lost, and the client does not come again."""
    told, write = [], store.write
    store.write([sent("before", bought("zoe"))])
    committer = Committer(store, on_stored=told.extend)
    committer.submit(small(1)).result()

    def write_and_lose(submissions):
        write(submissions)
        raise StoreUnavailableError("the connection was lost")

    monkeypatch.setattr(store, "write", write_and_lose)
    with pytest.raises(StoreUnavailableError, match="was lost"):
        committer.submit(small(2)).result()
    monkeypatch.setattr(store, "write", write)
    for n in (3, 2, 4):
        committer.submit(small(n)).result()
    assert [(one.sequence, one.purchase.user_id) for one in told] == [
        (2, "u1"), (3, "u2"), (4, "u3"), (5, "u4")
    ]  # fmt: skip
    committer.close()


def test_an_unknown_error_does_not_stop_the_committer(caplog):
    store = GatedStore(error=ZeroDivisionError("a defect"))
    committer = Committer(store)
    store.gate.release(2)
    with pytest.raises(StoreUnavailableError, match="under the same key"):
        committer.submit(small(0)).result()
    assert "a defect" in caplog.text
    store.error = None
    assert committer.submit(small(0)).result().first_sequence == 1
    committer.close()


def test_a_submission_that_nobody_waits_for_any_more_is_not_stored():
    store = GatedStore()
    committer = Committer(store)
    first = committer.submit(small(0))
    store.reached.acquire()
    cancelled, other = committer.submit(small(1)), committer.submit(small(2))
    assert cancelled.cancel()
    store.gate.release(2)
    assert [first.result().first_sequence, other.result().first_sequence] == [1, 2]
    assert store.groups == [["k0"], ["k2"]]
    committer.close()


def test_what_is_new_is_told_once_after_it_is_durable_and_before_the_answer(store):
    told = []

    def on_stored(purchases):
        assert store.last_sequence() >= purchases[-1].sequence
        assert not future.done()
        told.extend(purchases)

    committer = Committer(store, on_stored=on_stored, wait_seconds=0.2)
    futures = []
    for submission in (small(0), small(1), small(0), sent("k1", bought("eve"))):
        futures.append(committer.submit(submission))
        future = futures[0]
    receipts = [one.result() for one in futures[:3]]
    with pytest.raises(ConflictError):
        futures[3].result()
    assert [one.is_repeat for one in receipts] == [False, False, True]
    assert [(one.sequence, one.purchase.user_id) for one in told] == [(1, "u0"), (2, "u1")]
    assert told == list(store.after(0, 9))
    committer.close()


def test_S22_one_key_100_times_in_parallel_is_stored_once(store):
    committer, start = Committer(store), threading.Barrier(100)

    def send(_):
        start.wait()
        return committer.submit(small(7)).result()

    with ThreadPoolExecutor(100) as pool:
        receipts = list(pool.map(send, range(100)))
    assert {(one.first_sequence, one.count) for one in receipts} == {(1, 1)}
    assert [one.is_repeat for one in receipts].count(False) == 1
    assert store.last_sequence() == 1
    committer.close()


def test_S23_64_submitters_and_a_reader_at_once(store):
    committer, stop = Committer(store), threading.Event()

    def send(thread):
        return [
            committer.submit(sent(f"{thread}/{n}", bought(f"u{thread}", f"i{n}"))).result()
            for n in range(5)
        ]

    def read():
        seen = []
        while not stop.is_set():
            found = store.purchases_of(["u3"]).get("u3", [])
            seen.append([one.purchase.item_id for one in found])
        return seen

    with ThreadPoolExecutor(65) as pool:
        reader = pool.submit(read)
        receipts = [one for found in pool.map(send, range(64)) for one in found]
        stop.set()
    assert sorted(one.first_sequence for one in receipts) == list(range(1, 321))
    assert all(seen == [f"i{n}" for n in range(len(seen))] for seen in reader.result())
    committer.close()


def test_it_can_be_awaited(store):
    committer = Committer(store)

    async def send():
        return await asyncio.gather(
            *(asyncio.wrap_future(committer.submit(small(n))) for n in range(20))
        )

    assert [one.first_sequence for one in asyncio.run(send())] == list(range(1, 21))
    committer.close()
