"""Live quality is computed in the background, again and again, and a failure is no end of it."""

import threading

import pytest

from nextbuy.errors import StoreUnavailableError
from nextbuy.service.watching.watcher import Watcher


def test_results_come_by_themselves_until_it_is_stopped():
    results, third = iter(range(1_000_000)), threading.Event()

    def compute():
        found = next(results)
        if found >= 2:
            third.set()
        return found

    watcher = Watcher(compute, seconds=0.001)
    assert watcher.latest is None
    watcher.start()
    assert third.wait(5)
    watcher.stop()
    last = watcher.latest
    assert last >= 1
    assert not [t for t in threading.enumerate() if t.name == "watcher"]
    watcher.stop()
    assert watcher.latest == last


def test_a_failure_keeps_the_old_result_and_says_why(caplog):
    answers = [1, StoreUnavailableError("the store is away"), 2]

    def compute():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watcher = Watcher(compute)
    watcher.refresh()
    watcher.refresh()
    assert (watcher.latest, watcher.failure) == (1, "the store is away")
    assert "the store is away" in caplog.text
    watcher.refresh()
    assert (watcher.latest, watcher.failure) == (2, None)


def test_a_fault_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        Watcher(lambda: 1 / 0).refresh()
