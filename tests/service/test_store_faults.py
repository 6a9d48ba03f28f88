"""What a store suffers, seen by clients of the whole service: SQLite's log cannot be emptied, or
PostgreSQL stops, is cut off, or takes no writes."""

import asyncio
import resource
from contextlib import closing
from pathlib import Path

import apsw
import psycopg
import pytest

from nextbuy.service.store.opening import open_store
from tests.service.assembled import opened, using
from tests.service.store.proxy import Proxy

QUESTION = {"users": ["u1"], "k": 3}
CUT_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nextbuy'"
)


async def send(client, key, *items, user="ann"):
    rows = [{"user_id": user, "item_id": item} for item in items or ("tea",)]
    headers = {"Idempotency-Key": key}
    return await client.post("/v1/purchases", json={"purchases": rows}, headers=headers)


async def sent_by_64(client, name, purchases):
    """Statuses of 64 writers at once, and of somebody who reads meanwhile."""
    items = [f"{name} {'x' * 200}"] * purchases

    async def read():
        told = []
        for _ in range(20):
            told.append((await client.get("/v1/users/ann", params={"limit": 1})).status_code)
            await asyncio.sleep(0)
        return told

    writing = (send(client, f"{name}-{n}", *items, user=f"u{n % 8}") for n in range(64))
    *written, read = await asyncio.gather(*writing, read())
    return [told.status_code for told in written], read


def refusals_of(answers):
    """Their statuses; each says when to come again and nothing of the inside."""
    for told in answers:
        assert int(told.headers["retry-after"]) >= 1, told.text
        assert told.json()["detail"] == "The store of purchases cannot be used now."
    return {told.status_code for told in answers}


def users_in(store):
    """Of all that is stored, in the order of sequence."""
    with closing(open_store(str(store))) as opened_again:
        opened_again.check_whole()
        return [one.purchase.user_id for one in opened_again.after(0, 100_000)]


def test_S23_64_writers_go_on_while_a_reader_keeps_the_log_from_being_emptied(shop_folder):
    """As a backup by hand or a slow report does; the log grows, and is emptied afterwards, for what
    was forgotten must not stay in it."""
    path = shop_folder / "purchases.sqlite"
    log = Path(f"{path}-wal")

    async def ask(client):
        assert (await send(client, "first")).status_code == 200
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM purchases").fetchall()
            written, read = await sent_by_64(client, "starved", 400)
            assert set(written) == {200}
            assert set(read) == {200}
            assert log.stat().st_size > 6 * 2**20  # it is emptied at 4 MiB where nobody reads
            assert path.stat().st_size < 2**20
            assert (await client.delete("/v1/users/u3")).json()["deleted"] == 8 * 400
            assert (await client.get("/v1/users/u3")).status_code == 404
        assert (await client.get("/health/ready")).status_code == 200
        assert log.stat().st_size < 2**20
        assert b"starved" not in log.read_bytes()
        assert (await send(client, "after")).status_code == 200

    using(ask, shop_folder, ready_seconds=0)
    assert users_in(path).count("u4") == 8 * 400
    assert users_in(path).count("u3") == 0


def test_S23_a_log_that_cannot_be_emptied_for_a_full_disk_costs_no_answer(tmp_path):
    """The file may not grow; the log beside it, which is smaller, may."""
    path = tmp_path / "purchases.sqlite"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def ask(client):
        assert (await send(client, "before")).status_code == 200
        for name in ("first", "second"):
            assert set((await sent_by_64(client, name, 500))[0]) == {200}
        size = path.stat().st_size
        assert size > 13 * 2**20
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 2**16, before[1]))
        try:
            written, read = await sent_by_64(client, "third", 200)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert set(written) == set(read) == {200}
        assert path.stat().st_size == size
        assert (await send(client, "after")).status_code == 200
        assert path.stat().st_size > size + 2 * 2**20

    using(ask, tmp_path)
    assert users_in(path).count("u4") == 8 * 1_200


def test_S23_a_database_that_another_program_holds_is_told_as_not_now(tmp_path, monkeypatch):
    monkeypatch.setattr("nextbuy.service.store.sqlite_file.BUSY_SECONDS", 0.05)
    path = tmp_path / "purchases.sqlite"

    async def ask(client):
        assert (await send(client, "first")).status_code == 200
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as other:
            other.execute("BEGIN IMMEDIATE")
            refused = await asyncio.gather(*(send(client, f"k{n}") for n in range(8)))
            assert refusals_of(refused) == {503}
            assert (await client.get("/v1/users/ann")).json()["total"] == 1
            other.execute("ROLLBACK")
        again = await asyncio.gather(*(send(client, f"k{n}") for n in range(8)))
        assert [told.json()["repeated"] for told in again] == [False] * 8

    using(ask, tmp_path)
    assert users_in(path) == ["ann"] * 9


@pytest.fixture
def url(postgres):
    return postgres.url(postgres.make_schema())


async def healed(client, key):
    """The purchase is taken again, within five seconds."""
    for _ in range(100):
        told = await send(client, key)
        if told.status_code == 200:
            return told.json()
        assert refusals_of([told]) == {503}
        await asyncio.sleep(0.05)
    raise AssertionError("it did not heal")


async def statuses(client):
    """Of what needs a store that can be written, and of what goes on without."""
    asked = (
        client.get("/health/ready"), send(client, "during"), client.delete("/v1/users/u9"),
        client.get("/health/live"), client.post("/v1/predict", json=QUESTION),
        client.get("/v1/model"),
    )  # fmt: skip
    return [told.status_code for told in await asyncio.gather(*asked)]


AWAY = [503, 503, 503, 200, 200, 200]
WELL = [200, 200, 200, 200, 200, 200]


def test_S28_while_postgresql_is_down_whom_we_know_is_answered_and_nothing_is_lost(
    postgres, url, shop_folder
):
    async def ask(client):
        assert (await send(client, "before", user="u1")).status_code == 200
        known = await client.post("/v1/predict", json=QUESTION)
        assert known.status_code == 200
        postgres.stop()
        try:
            for _ in range(3):
                assert await statuses(client) == AWAY
                again = await client.post("/v1/predict", json=QUESTION)
                assert again.json() == known.json()
            refused = await asyncio.gather(*(send(client, f"k{n}") for n in range(64)))
            assert refusals_of(refused) == {503}
            unknown = await client.post("/v1/predict", json={"users": ["who is that"]})
            assert refusals_of([unknown]) == {503}
        finally:
            postgres.start()
        await healed(client, "k0")
        again = await asyncio.gather(*(send(client, f"k{n}") for n in range(64)))
        assert {told.status_code for told in again} == {200}
        assert await statuses(client) == WELL
        return (await client.get("/v1/users/ann")).json()["total"]

    assert using(ask, shop_folder, store=url, ready_seconds=0) == 65
    with closing(open_store(url, read_only=True)) as store:
        found = [one.purchase.user_id for one in store.after(0, 1_000)]
    assert found == ["u1", *["ann"] * 65]


def test_S28_connections_that_are_cut_and_a_restart_between_requests_cost_no_answer(
    postgres, url, shop_folder
):
    async def ask(client):
        for number in range(4):
            assert (await send(client, f"a{number}")).status_code == 200
            with psycopg.connect(url, autocommit=True) as other:
                other.execute(CUT_ALL)
            assert (await client.get("/v1/users/nobody")).status_code == 404
        postgres.stop()
        postgres.start()
        assert (await send(client, "b")).status_code == 200
        return (await client.get("/v1/users/ann")).json()["total"]

    assert using(ask, shop_folder, store=url) == 5


@pytest.mark.parametrize("when", ["before", "after"])
def test_S30_over_http_a_commit_that_is_cut_off_is_one_purchase(postgres, shop_folder, when):
    proxy = Proxy(postgres.port)
    url = postgres.url(postgres.make_schema(), proxy.port)

    async def ask(client):
        assert (await send(client, "k1")).status_code == 200
        proxy.cut_at, proxy.when = b"COMMIT", when
        told = await send(client, "k2", "rice", "soap")
        assert (told.status_code, told.json()["first_sequence"]) == (200, 2)
        assert proxy.num_cuts == 1
        assert (await send(client, "k2", "rice", "soap")).json()["repeated"]
        return (await client.get("/v1/users/ann")).json()

    try:
        found = using(ask, shop_folder, store=url)
    finally:
        proxy.close()
    assert [row["item_id"] for row in found["purchases"]] == ["tea", "rice", "soap"]


def test_S28_a_postgresql_that_takes_no_writes_is_read_and_heals(postgres, url, shop_folder):
    """As a standby is, until it is promoted."""
    writable = postgres.url("public%20-cdefault_transaction_read_only%3Doff")

    def set_database(words):
        with psycopg.connect(writable, autocommit=True) as other:
            other.execute(f"ALTER DATABASE postgres {words}".encode())
            other.execute(CUT_ALL)

    async def ask(client):
        assert (await send(client, "before")).status_code == 200
        set_database("SET default_transaction_read_only = on")
        try:
            assert await statuses(client) == AWAY
            assert (await client.get("/v1/users/ann")).json()["total"] == 1
            stranger = await client.post("/v1/predict", json={"users": ["who is that"]})
            assert stranger.json()["answers"][0]["fallback"] is True
        finally:
            set_database("RESET default_transaction_read_only")
        assert (await healed(client, "during"))["first_sequence"] == 2
        assert await statuses(client) == WELL

    using(ask, shop_folder, store=url, ready_seconds=0)


def test_S28_a_service_does_not_start_without_its_store_and_starts_once_it_is_back(
    postgres, url, shop_folder
):
    async def first_answer():
        async with opened(shop_folder, store=url) as client:
            return (await send(client, "k")).status_code

    postgres.stop()
    try:
        with pytest.raises(Exception, match=r"cannot be (reached|used)") as refused:
            asyncio.run(first_answer())
    finally:
        postgres.start()
    assert "pass" not in str(refused.value)
    assert asyncio.run(first_answer()) == 200
