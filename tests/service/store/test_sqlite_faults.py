"""SQLite on a disk that loses power, fails or is full, at every operation one after another."""

import itertools

import pytest

from nextbuy.errors import StoreError, StoreUnavailableError
from nextbuy.service.store.sqlite import SqliteStore
from tests.service.store.faulty_disk import FaultyDisk
from tests.service.store.sending import bought, offered, sent

_names = itertools.count()
WORK = (
    lambda store: store.write([sent("k1", bought("ann", "tea"), bought("bob"))]),
    lambda store: store.write_served([offered("ann", 1), offered("bob", 2)]),
    lambda store: store.write([sent("k2", bought("ann")), sent("k3", *[bought("cat")] * 150)]),
    lambda store: store.forget("ann"),
    lambda store: store.write([sent("k2", bought("ann")), sent("k4", bought("ann", "new"))]),
)
"""The fourth empties the log, so that the fifth begins it anew."""


@pytest.fixture
def disk():
    disk = FaultyDisk(f"faulty-{next(_names)}")
    yield disk
    disk.unregister()


def state_of(store):
    """All that was acknowledged to be durable."""
    return list(store.after(0, 1_000)), store.last_sequence(), store.forgotten()


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """What a store without faults holds: before the work, and after each part of it."""
    store = SqliteStore(tmp_path_factory.mktemp("states") / "live.db")
    states = [state_of(store)]
    for part in WORK:
        part(store)
        states.append(state_of(store))
    store.close()
    return states


def work_until_it_fails(path, disk):
    """How many parts were acknowledged; -1 if not even opening was."""
    done = -1
    try:
        store = SqliteStore(path, vfs=disk.name)
        done = 0
        try:
            for part in WORK:
                part(store)
                done += 1
        finally:
            if done == len(WORK):
                disk.mend()
            store.close()
    except StoreError:
        pass
    return done


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_G2_after_a_power_loss_at_any_operation_all_or_nothing_of_it_is_there(
    tmp_path, disk, states, seed
):
    disk.fault, reached = "power", set()
    for at in itertools.count(1):
        before, after = tmp_path / f"before{at}", tmp_path / f"after{at}"
        before.mkdir(), after.mkdir()
        disk.at, disk.operations = at, 0
        disk.platters.clear()
        done = work_until_it_fails(before / "live.db", disk)
        if done == len(WORK):
            break
        disk.mend()
        disk.disk_after_power_loss(after, None if seed is None else seed * 1_000 + at)
        store = SqliteStore(after / "live.db")
        store.check_whole()
        found = state_of(store)
        store.close()
        assert found in states[max(done, 0) : done + 2], f"operation {at}, {done} parts were done"
        reached.add(done)
    assert reached == {-1, 0, 1, 2, 3, 4}
    assert at > 40


@pytest.mark.parametrize("fault", ["error", "full", "once"])
def test_G3_S26_a_disk_that_fails_at_any_operation_stops_writes_and_heals_without_a_restart(
    tmp_path, disk, states, fault
):
    num_failures = 0
    for at in itertools.count(1):
        path = tmp_path / f"{at}.db"
        disk.fault, disk.at, disk.operations = fault, None, 0
        store = SqliteStore(path, vfs=disk.name)
        disk.at, disk.operations = at, 0
        for number, part in enumerate(WORK):
            try:
                part(store)
            except StoreUnavailableError:
                num_failures += 1
                assert state_of(store) in states[number : number + 2]  # reads go on
                disk.mend()
                part(store)
            assert state_of(store) == states[number + 1]
        is_last = disk.operations < at
        disk.mend()
        store.check()
        store.close()
        again = SqliteStore(path, vfs=disk.name)
        again.check_whole()
        assert state_of(again) == states[-1]
        again.close()
        if is_last:
            break
    assert num_failures > 20
