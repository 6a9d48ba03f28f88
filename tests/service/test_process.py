"""The service in a process of its own meets a full disk, clocks that jump, signals under load, and
more requests than it may remember."""

import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

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


FAKETIME = "/usr/lib/*-linux-gnu/faketime/libfaketimeMT.so.1"
JUMPS = ("+0s", "+1h", "-1h", "+10y", "-30y", "+27s", "-1s", "+0s")


def test_S31_a_clock_that_jumps_changes_neither_order_nor_answers(shop_folder, tmp_path):
    """The clock of the whole process, by libfaketime, between one request and the next."""
    found = sorted(Path("/").glob(FAKETIME.lstrip("/")))
    if not found:
        pytest.skip("libfaketime is not installed")
    clock = tmp_path / "clock"
    clock.write_text(JUMPS[0])
    faked = {
        "LD_PRELOAD": str(found[0]), "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    with serving(shop_folder, "--no-page", **faked) as (process, address):

        def ask(path, **body):
            return httpx.post(f"{address}{path}", json=body, timeout=20)

        job = ask("/v1/audience", item="tea", within_days=30).json()["id"]
        years = []
        for number, jump in enumerate(JUMPS):
            clock.write_text(jump)
            told = send(address, f"k{number}")
            assert (told.json()["first_sequence"], told.json()["repeated"]) == (number + 1, False)
            assert send(address, f"k{number}").json()["repeated"] is True
            assert httpx.get(f"{address}/health/ready").status_code == 200
            (answer,) = ask("/v1/predict", users=[f"k{number}"]).json()["answers"]
            assert (answer["fallback"], answer["after_sequence"]) == (False, number + 1)
            (row,) = httpx.get(f"{address}/v1/users/k{number}").json()["purchases"]
            years.append(int(row["timestamp"][:4]))
        now = years[0]
        assert [year - now for year in years] == pytest.approx([0, 0, 0, 10, -30, 0, 0, 0], abs=1)
        ahead = datetime.now(UTC) + timedelta(days=2)
        told = ask(
            "/v1/purchases", purchase={**purchase("x")["purchase"], "timestamp": f"{ahead:%FT%TZ}"}
        )
        assert told.status_code == 422
        assert (
            httpx.get(f"{address}/v1/jobs/{job}").status_code == 200
        )  # kept for an hour, not ten years
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, -signal.SIGTERM)
        assert time.monotonic() - began < 10
    with closing(open_store(str(shop_folder / "purchases.sqlite"))) as store:
        users = [one.purchase.user_id for one in store.after(0, 100)]
    assert users == [f"k{number}" for number in range(len(JUMPS))]


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


def test_S51_many_requests_leave_neither_memory_nor_files_nor_threads_behind(shop_folder):
    """A small share of `benchmarks/soak_service.py`, which sends a million."""
    with serving(shop_folder, "--no-page", "--log", "error") as (process, address):
        seen = psutil.Process(process.pid)

        def ask(times):
            with httpx.Client(base_url=address) as client:
                for number in range(times):
                    user = f"u{number % 40}"
                    answers = (
                        client.post("/v1/purchases", json=purchase(user)),
                        client.post("/v1/predict", json={"users": [user], "k": 3}),
                        client.get(f"/v1/users/{user}", params={"limit": 5}),
                        client.get("/health/ready"),
                        client.post("/v1/predict", json={"users": []}),
                        client.get(f"/v1/jobs/{number}"),
                    )
                    assert [told.status_code for told in answers] == [200] * 4 + [422, 404]
            return seen.memory_info().rss, seen.num_fds(), seen.num_threads()

        ask(100)
        memory, files, threads = ask(40)
        after = ask(100)
        assert after[0] - memory < 8 * 2**20
        assert after[1] <= files + 1
        assert after[2] <= threads + 1
