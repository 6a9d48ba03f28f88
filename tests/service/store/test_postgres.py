"""The store in PostgreSQL: the contract of stores, and what a server can suffer."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from nextbuy.errors import ConfigError, StoreError, StoreUnavailableError
from nextbuy.service.store.group_commit import Committer
from nextbuy.service.store.migrations import Migration, migrations_of
from nextbuy.service.store.opening import open_store
from nextbuy.service.store.postgres import PostgresStore
from nextbuy.service.store.postgres_connections import Connections
from nextbuy.service.store.protocol import Receipt
from nextbuy.service.store.restoring import restore
from tests.service.store.contract import FULL, StoreContract
from tests.service.store.proxy import Proxy
from tests.service.store.sending import bought, offered, sent

FAILS_TWICE = """
CREATE SEQUENCE failures;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('failures') <= {times} THEN
        RAISE EXCEPTION 'as if another transaction was in the way' USING ERRCODE = '{code}';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER failing BEFORE INSERT ON purchases FOR EACH ROW EXECUTE FUNCTION fail();
"""


@pytest.fixture
def url(postgres):
    return postgres.url(postgres.make_schema())


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def reopen(self, url):
        return lambda: open_store(url)


@pytest.fixture
def store(url):
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def proxy(postgres):
    proxy = Proxy(postgres.port)
    yield proxy
    proxy.close()


@pytest.fixture
def behind_proxy(postgres, proxy):
    """A store whose way to the server can be disturbed."""
    store = open_store(postgres.url(postgres.make_schema(), proxy.port))
    yield store
    store.close()


def execute(url, query):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).rowcount


def fails_fast(store, seconds=0.5):
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        store.write([sent("fast", bought("ann"))])
    assert time.monotonic() - began < seconds


def seconds_until_it_works(store, work):
    began, pause = time.monotonic(), threading.Event()
    while True:
        try:
            work(store)
        except StoreUnavailableError:
            pause.wait(0.02)
            if time.monotonic() - began > 20:
                raise
        else:
            return time.monotonic() - began


def test_S28_a_server_that_is_down_is_told_fast_and_heals_within_5_seconds(postgres, store):
    store.write([sent("k1", bought("ann"))])
    postgres.stop()
    try:
        for _ in range(5):
            fails_fast(store)
        with pytest.raises(StoreUnavailableError):
            store.check()
        with pytest.raises(StoreUnavailableError):
            store.last_sequence()
    finally:
        postgres.start()
    write = lambda store: store.write([sent("k2", bought("bob"))])  # noqa: E731
    assert seconds_until_it_works(store, write) < 5
    assert [one.purchase.user_id for one in store.after(0, 9)] == ["ann", "bob"]


def test_S28_a_server_that_was_restarted_between_two_writes_is_not_noticed(postgres, store):
    store.write([sent("k1", bought("ann"))])
    postgres.stop()
    postgres.start()
    assert store.write([sent("k2", bought("bob"))])[0].first_sequence == 2


def test_S28_connections_that_are_reset_heal(proxy, behind_proxy):
    behind_proxy.write([sent("k1", bought("ann"))])
    proxy.set("refuse")
    fails_fast(behind_proxy)
    fails_fast(behind_proxy, seconds=0.1)
    proxy.set("pass")
    write = lambda store: store.write([sent("k2", bought("bob"))])  # noqa: E731
    assert seconds_until_it_works(behind_proxy, write) < 5


def test_S28_a_server_that_hangs_is_given_up_and_then_told_fast(proxy, behind_proxy, monkeypatch):
    monkeypatch.setattr("nextbuy.service.store.postgres_connections.HANG_SECONDS", 0.4)
    behind_proxy.write([sent("k1", bought("ann"))])
    proxy.set("hang")
    fails_fast(behind_proxy, seconds=2)
    fails_fast(behind_proxy, seconds=0.1)
    proxy.set("pass")
    write = lambda store: store.write([sent("k2", bought("bob"))])  # noqa: E731
    assert seconds_until_it_works(behind_proxy, write) < 5
    assert [one.purchase.user_id for one in behind_proxy.after(0, 9)] == ["ann", "bob"]


def test_S28_a_slow_connection_that_comes_in_slices_changes_no_result(proxy, behind_proxy):
    proxy.delay, proxy.slice_bytes = 0.02, 3
    submissions = [sent("k1", FULL, bought("bob")), sent("k2", bought("ann", "ü 🍋"))]
    began = time.monotonic()
    receipts = behind_proxy.write(submissions)
    assert time.monotonic() - began >= 0.04  # there and back at least once: it was slow
    assert [receipt.first_sequence for receipt in receipts] == [1, 3]
    found = [one.purchase for one in behind_proxy.after(0, 9)]
    assert found == [FULL, bought("bob"), bought("ann", "ü 🍋")]
    assert [receipt.is_repeat for receipt in behind_proxy.write(submissions)] == [True, True]


def test_S28_a_server_that_became_too_slow_is_told_fast_and_heals(proxy, behind_proxy, monkeypatch):
    """A delay of many times the patience, as +5 s is of ours; what was asked is stored once."""
    monkeypatch.setattr("nextbuy.service.store.postgres_connections.HANG_SECONDS", 0.2)
    behind_proxy.write([sent("k1", bought("ann"))])
    proxy.delay = 1.5
    fails_fast(behind_proxy, seconds=2)
    fails_fast(behind_proxy, seconds=0.1)
    proxy.delay = 0.0
    write = lambda store: store.write([sent("k2", bought("bob"))])  # noqa: E731
    assert seconds_until_it_works(behind_proxy, write) < 5
    assert [one.purchase.user_id for one in behind_proxy.after(0, 9)] == ["ann", "bob"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_S30_a_commit_whose_answer_is_lost_is_resolved_by_its_key(proxy, behind_proxy, when):
    behind_proxy.write([sent("k1", bought("ann"))])
    proxy.cut_at, proxy.when = b"COMMIT", when
    found = behind_proxy.write(
        [sent("k1", bought("ann")), sent("k2", bought("bob"), bought("eve"))]
    )
    assert proxy.num_cuts == 1
    assert found == [
        Receipt(first_sequence=1, count=1, is_repeat=True),
        Receipt(first_sequence=2, count=2, is_repeat=False),
    ]
    assert [one.purchase.user_id for one in behind_proxy.after(0, 9)] == ["ann", "bob", "eve"]
    assert behind_proxy.forget("bob") == 1


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_S29_what_the_server_asks_to_do_again_is_done_again_a_few_times(url, store, code):
    execute(url, FAILS_TWICE.format(times=2, code=code))
    assert store.write([sent("k1", bought("ann"))])[0].first_sequence == 1
    execute(
        url, "ALTER SEQUENCE failures RESTART; ALTER SEQUENCE failures INCREMENT -1 MINVALUE -9"
    )
    with pytest.raises(StoreUnavailableError, match="as if another transaction"):
        store.write([sent("k2", bought("bob"))])
    execute(url, "DROP TRIGGER failing ON purchases")
    assert store.write([sent("k2", bought("bob"))])[0] == Receipt(
        first_sequence=2, count=1, is_repeat=False
    )


def test_S29_a_statement_that_takes_too_long_is_given_up(url, monkeypatch):
    monkeypatch.setattr("nextbuy.service.store.postgres_connections.STATEMENT_SECONDS", 0.2)
    store = open_store(url)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE submissions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailableError, match="statement timeout"):
            store.write([sent("k1", bought("ann"))])
    assert store.write([sent("k1", bought("ann"))])[0].first_sequence == 1
    store.close()


def test_S29_when_all_connections_are_in_use_one_waits_then_is_told(url, monkeypatch):
    monkeypatch.setattr("nextbuy.service.store.postgres_connections.WAIT_SECONDS", 0.1)
    connections = Connections(url, "the server", size=1)
    refused = pytest.raises(StoreUnavailableError, match="All connections to the server")
    with connections.borrowed(), refused, connections.borrowed():
        pass
    with connections.borrowed() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    connections.close()


def test_S26_S27_a_server_that_takes_no_writes_still_reads(postgres, url, store):
    store.write([sent("k1", bought("ann"))])
    writable = postgres.url("public%20-cdefault_transaction_read_only%3Doff")
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nextbuy'"
    )
    execute(writable, "ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        execute(writable, end)
        with pytest.raises(StoreUnavailableError, match="read-only"):
            store.write([sent("k2", bought("bob"))])
        with pytest.raises(StoreUnavailableError, match="read-only"):
            store.check()
        assert store.last_sequence() == 1
    finally:
        execute(writable, "ALTER DATABASE postgres RESET default_transaction_read_only")
        execute(writable, end)
    assert store.write([sent("k2", bought("bob"))])[0].first_sequence == 2


def test_a_reader_from_outside_changes_nothing(url, store):
    store.write([sent("k1", bought("ann"))])
    reader = open_store(url, read_only=True)
    assert reader.last_sequence() == 1
    with pytest.raises(StoreError, match="for reading only"):
        reader.write([sent("k2", bought("bob"))])
    with pytest.raises(StoreError, match="for reading only"):
        reader.forget("ann")
    reader.close()


def test_two_services_share_a_store_and_sequences_follow_commits(url):
    stores = [open_store(url), open_store(url)]
    committers = [Committer(store) for store in stores]
    follower, seen, last = open_store(url, read_only=True), [], 0

    def send(thread):
        committer = committers[thread % 2]
        return [
            committer.submit(
                sent(f"{thread // 2}/{n}", bought(f"u{thread // 2}", f"i{n}"))
            ).result()
            for n in range(10)
        ]

    with ThreadPoolExecutor(8) as pool:
        sending = [pool.submit(send, thread) for thread in range(8)]
        while len(seen) < 40:
            page = follower.after(last, 7)
            seen += page
            last = page[-1].sequence if page else last
        receipts = [one for future in sending for one in future.result()]
    # Every key was sent by both services.
    assert sorted(one.first_sequence for one in receipts) == sorted([*range(1, 41)] * 2)
    assert sum(one.is_repeat for one in receipts) == 40
    assert [one.sequence for one in seen] == list(range(1, 41))
    for closing in (*committers, *stores, follower):
        closing.close()


def test_services_that_start_together_make_the_tables_once(url):
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_store(url), range(4)))
    assert [store.last_sequence() for store in stores] == [0] * 4
    for store in stores:
        store.close()


def test_S27_tables_of_something_else_and_of_the_future_are_refused(postgres, url):
    with pytest.raises(StoreError, match="Start the service on it once"):
        open_store(url, read_only=True)
    open_store(url).close()
    execute(url, "UPDATE nextbuy_store SET version = 7")
    newest = len(migrations_of("postgres"))
    with pytest.raises(StoreError, match=rf"version 7; this nextbuy knows versions up to {newest}"):
        open_store(url)
    other = postgres.url(postgres.make_schema())
    execute(other, "CREATE TABLE purchases (id integer)")
    with pytest.raises(StoreError, match="has a table purchases, but is no store"):
        open_store(other)


def test_a_migration_is_taken_whole_or_not_at_all(url):
    first = migrations_of("postgres")
    broken = Migration(2, "CREATE TABLE extra (x integer); SELECT not_there;")
    with pytest.raises(StoreError, match="not_there"):
        PostgresStore(url, "here", steps=[*first, broken])
    with psycopg.connect(url) as connection:
        query = "SELECT version, to_regclass('extra') FROM nextbuy_store"
        assert connection.execute(query).fetchall() == [(1, None)]
    store = PostgresStore(url, "here", steps=[*first, Migration(2, "CREATE TABLE extra (x int)")])
    assert store.last_sequence() == 0
    store.close()


def test_a_backup_is_restored_into_an_empty_store(postgres, url, store, tmp_path):
    store.write([sent("k1", FULL, bought("bob")), sent("k2", bought("eve"))])
    store.write_served([offered("bob", 3)])
    store.forget("eve")
    store.back_up(tmp_path / "backup.db")
    with pytest.raises(StoreError, match="is not empty"):
        restore(tmp_path / "backup.db", url)
    other = postgres.url(postgres.make_schema())
    assert restore(tmp_path / "backup.db", other) is None
    again = open_store(other)
    assert list(again.after(0, 9)) == list(store.after(0, 9))
    assert list(again.served(0)) == [offered("bob", 3)]
    assert (again.last_sequence(), again.identity()) == (3, store.identity())
    assert again.forgotten() == store.forgotten()
    assert again.write([sent("k2", bought("eve"))])[0].is_repeat
    again.write_served([offered("bob", 4)])
    assert len(list(again.served(0))) == 2
    again.close()


def test_the_password_is_in_no_message_and_no_log(url, caplog, postgres):
    caplog.set_level(0)
    wrong = url.replace("pass%20word%25", "hunter2")
    with pytest.raises(StoreUnavailableError) as refused:
        open_store(wrong)
    with pytest.raises(ConfigError) as bad:
        open_store(url.replace("pass%20word%25", "hunter2%zz"))
    with pytest.raises(StoreUnavailableError) as away:
        open_store(wrong.replace(str(postgres.port), "1"))
    for error in (refused, bad, away):
        assert ":***@" in str(error.value)
        assert "hunter2" not in str(error.value)
        assert "hunter2" not in str(error.value.__cause__)
    assert "hunter2" not in caplog.text


def test_a_purchase_outside_of_all_submissions_is_found(url, store):
    store.write([sent("k1", bought("ann")), sent("k2", bought("bob"), bought("bob"))])
    store.check_whole()
    execute(url, "UPDATE purchases SET sequence = 9 WHERE sequence = 3")
    with pytest.raises(StoreError, match="the purchase 9 belongs to no submission"):
        store.check_whole()
