"""The service in a process of its own meets a full disk, and signals under load."""

import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import httpx
import psutil

from nextbuy.service.store.opening import open_store
from tests.service.api.test_serve import serving

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def purchase(user, item="tea"):
    return {"purchase": {"user_id": user, "item_id": item}}


def send(address, key, client=httpx):
    """On a connection of its own, so that no answer is lost for one that was closed when idle."""
    headers = {"Idempotency-Key": key, "Connection": "close"}
    return client.post(f"{address}/v1/purchases", json=purchase(key), headers=headers, timeout=20)


def test_S26_a_full_disk_takes_no_purchases_and_reads_go_on_until_there_is_room(shop_folder):
    """No file may grow: for SQLite that is a disk without room, and it can be taken back."""
    with serving(shop_folder, "--no-page") as (process, address):
        assert send(address, "before").status_code == 200
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
        refused = [send(address, "during") for _ in range(2)]
        assert [told.status_code for told in refused] == [503, 503]
        for told in refused:
            assert int(told.headers["retry-after"]) >= 1
            assert str(shop_folder) not in told.text
        assert httpx.get(f"{address}/health/live").status_code == 200
        assert httpx.get(f"{address}/health/ready").status_code == 503
        for user, expected in (("before", 200), ("during", 404)):
            assert httpx.get(f"{address}/v1/users/{user}").status_code == expected
        told = httpx.post(f"{address}/v1/predict", json={"users": ["before", "u1"]})
        assert [answer["fallback"] for answer in told.json()["answers"]] == [False, False]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
        again = send(address, "during")
        assert (again.status_code, again.json()["repeated"]) == (200, False)
        assert httpx.get(f"{address}/v1/users/during").status_code == 200
    with closing(open_store(str(shop_folder / "purchases.sqlite"))) as store:
        store.check_whole()
        assert [one.purchase.user_id for one in store.after(0, 9)] == ["before", "during"]


def test_S48_what_was_acknowledged_under_load_is_stored_when_it_is_told_to_stop_twice(tmp_path):
    answers: dict[str, int] = {}
    enough = threading.Event()

    def work(address, worker):
        with httpx.Client() as client:
            for number in range(100_000):
                key = f"w{worker}-{number}"
                try:
                    answers[key] = send(address, key, client).status_code
                except httpx.HTTPError:
                    return  # nobody listens any more
                if len(answers) >= 60:
                    enough.set()

    with serving(tmp_path, "--no-page") as (process, address):
        workers = [threading.Thread(target=work, args=(address, n)) for n in range(6)]
        for worker in workers:
            worker.start()
        assert enough.wait(20)
        children = psutil.Process(process.pid).children(recursive=True)
        began = time.monotonic()
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, -signal.SIGTERM)
        assert time.monotonic() - began < 10
        for worker in workers:
            worker.join(20)
        assert not [child for child in children if child.is_running()]
    acknowledged = {key for key, status in answers.items() if status == 200}
    assert len(acknowledged) >= 50
    assert set(answers.values()) <= {200, 503}
    with closing(open_store(str(tmp_path / "purchases.sqlite"))) as store:
        store.check_whole()
        stored = [one.purchase.user_id for one in store.after(0, 1_000_000)]
    assert len(stored) == len(set(stored))
    assert set(stored) >= acknowledged


def test_S53_what_has_to_be_refused_is_refused_without_asserts():
    command = [sys.executable, "-O", "-m", "tests.service.optimised"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.count("held ") == 24


def test_S04_bodies_that_are_refused_are_let_go_of(shop_folder):
    """Each hangs in a cycle with the error that refused it; a hundred are as many megabytes."""
    wide = ("{" + ",".join(f'"{n}":1' for n in range(80_000)) + "}").encode()
    headers = {"content-type": "application/json"}
    with serving(shop_folder, "--no-page") as (process, address), httpx.Client() as client:

        def refuse(times):
            for _ in range(times):
                told = client.post(f"{address}/v1/purchases", content=wide, headers=headers)
                assert told.status_code == 400
            return psutil.Process(process.pid).memory_info().rss

        before = refuse(40)
        assert refuse(80) - before < 40 * len(wide)
