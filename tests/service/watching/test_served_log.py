"""Serving never waits for the log of what was served, and nothing of it gets lost silently."""

import threading

import pytest

from nextbuy.service.store.protocol import ServedOffer
from nextbuy.service.watching.served_log import ServedLog, ServedLogConfig, is_sampled
from tests.service.watching.memory_store import MemoryStore

ALL = ServedLogConfig(rate=1.0, waiting=10, batch=5, seconds=0.05)


def offer(number, user=None):
    return ServedOffer(
        served=number, version="000001", user_id=user or f"u{number}", items=(),
        probabilities=(), after_sequence=0,
    )  # fmt: skip


@pytest.fixture
def store():
    store = MemoryStore()
    yield store
    store.may_write.set()


def test_what_is_kept_is_written_once_and_in_order(store):
    log = ServedLog(store, ALL)
    assert all(log.add(offer(n)) for n in range(8))
    log.close()
    assert [o.served for o in store.offers] == list(range(8))
    counts = log.counts()
    assert (counts.written, counts.dropped, counts.lost, counts.waiting) == (8, 0, 0, 0)
    assert not log.add(offer(9))
    log.close()


def test_a_store_that_hangs_costs_answers_and_no_time(store):
    store.may_write.clear()
    log = ServedLog(store, ALL)
    for n in range(5):
        log.add(offer(n))
    assert store.is_writing.wait(5)  # five are on their way and stay there
    kept = [log.add(offer(n)) for n in range(5, 20)]
    assert kept == [True] * 10 + [False] * 5
    assert log.counts().dropped == 5
    store.may_write.set()
    log.close()
    assert log.counts().written == len(store.offers) == 15


def test_what_the_store_refuses_is_counted_and_the_log_goes_on(store, caplog):
    store.is_away = True
    log = ServedLog(store, ALL)
    for n in range(5):
        log.add(offer(n))
    assert store.is_writing.wait(5)
    log.close()
    assert log.counts().lost == 5
    assert "5 served answers are lost: away" in caplog.text


def test_who_is_forgotten_is_not_written_afterwards(store):
    store.may_write.clear()
    log = ServedLog(store, ALL)
    for n in range(5):
        log.add(offer(n))
    assert store.is_writing.wait(5)
    log.add(offer(6, "ann"))
    log.add(offer(7, "bob"))
    forgetting = threading.Thread(target=log.forget, args=("ann",))
    forgetting.start()  # waits for the write that is going on
    store.may_write.set()
    forgetting.join(5)
    log.close()
    assert "ann" not in {o.user_id for o in store.offers if o.served > 5}
    assert "bob" in {o.user_id for o in store.offers}


def test_the_sample_is_a_tenth_and_the_same_everywhere():
    """For 20,000 answers the share of a tenth has a standard error of .0021."""
    chosen = [is_sampled(f"u{n % 100}", n, 0.1) for n in range(20_000)]
    assert sum(chosen) / len(chosen) == pytest.approx(0.1, abs=0.009)
    assert chosen == [is_sampled(f"u{n % 100}", n, 0.1) for n in range(20_000)]
    by_user = {n % 100 for n in range(20_000) if chosen[n]}
    assert len(by_user) == 100  # nobody is always, nobody never in it
    assert not is_sampled("u", 1, 0.0)
    assert is_sampled("u", 1, 1.0)
    # More of a sample holds all of less of it.
    less = [is_sampled("u", n, 0.05) for n in range(1000)]
    assert all(is_sampled("u", n, 0.1) for n in range(1000) if less[n])


def test_what_is_not_in_the_sample_is_counted_and_not_written(store):
    log = ServedLog(store, ServedLogConfig(rate=0.0))
    assert not log.add(offer(1))
    log.close()
    assert store.offers == []
    assert log.counts().skipped == 1
