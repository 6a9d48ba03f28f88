"""The store in a file: the contract of stores, and what a file can suffer."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from nextbuy.errors import StoreError, StoreUnavailableError
from nextbuy.service.store.file_systems import refuse_network
from nextbuy.service.store.migrations import Migration, migrations_of
from nextbuy.service.store.sqlite import SqliteStore
from nextbuy.service.store.sqlite_format import check_version
from tests.service.store.contract import StoreContract
from tests.service.store.sending import bought, offered, sent


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: SqliteStore(tmp_path / "live.db")


@pytest.fixture
def path(tmp_path):
    """A store with one purchase of ann, closed."""
    path = tmp_path / "live.db"
    store = SqliteStore(path)
    store.write([sent("k1", bought("ann"))])
    store.close()
    return path


def test_S49_a_second_service_on_the_file_is_refused_until_the_first_ends(path):
    first = SqliteStore(path)
    with pytest.raises(StoreError, match=r"live\.db is in use by another service"):
        SqliteStore(path)
    first.close()
    SqliteStore(path).close()


def test_S49_the_lock_dies_with_its_owner(path):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from nextbuy.service.store.sqlite import SqliteStore\n"
        "store = SqliteStore(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match="in use"):
            SqliteStore(path)
        other.kill()
        other.wait()
    SqliteStore(path).close()


def test_a_reader_from_outside_needs_no_lock_and_writes_nothing(path):
    service = SqliteStore(path)
    reader = SqliteStore(path, read_only=True)
    service.write([sent("k2", bought("bob"))])
    assert reader.last_sequence() == 2
    with pytest.raises(StoreError, match="for reading only"):
        reader.write([sent("k3", bought("eve"))])
    reader.close()
    service.close()


def test_S27_a_deleted_file_is_not_written_to(path):
    store = SqliteStore(path)
    path.unlink()
    with pytest.raises(StoreError, match=r"deleted or replaced.*nextbuy store restore BACKUP"):
        store.write([sent("k2", bought("bob"))])
    with pytest.raises(StoreError, match="deleted or replaced"):
        store.check()
    store.close()


def test_S27_a_replaced_file_or_log_is_not_written_to(path, tmp_path):
    for name in ("live.db", "live.db-wal"):
        store = SqliteStore(path)
        shutil.copy(tmp_path / name, tmp_path / "other")
        (tmp_path / "other").replace(tmp_path / name)
        with pytest.raises(StoreError, match="deleted or replaced"):
            store.write([sent("k2", bought("bob"))])
        store.close()


def test_S27_a_flipped_page_is_refused_with_the_way_to_restore(path):
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 64] = bytes(255 - byte for byte in data[page : page + 64])
    path.write_bytes(data)
    with pytest.raises(StoreError, match=rf"damaged.*nextbuy store restore BACKUP {path}"):
        SqliteStore(path)


def test_S27_a_file_of_something_else_is_refused_and_left_alone(tmp_path):
    text, other = tmp_path / "notes.txt", tmp_path / "shop.db"
    text.write_text("not a database at all, but long enough to have a header" * 20)
    db = apsw.Connection(str(other))
    db.execute("CREATE TABLE orders (id)")
    db.close()
    before = text.read_bytes(), other.read_bytes()
    with pytest.raises(StoreError, match=r"notes\.txt is damaged or no store"):
        SqliteStore(text)
    with pytest.raises(StoreError, match=r"shop\.db is an SQLite database, but no store"):
        SqliteStore(other)
    assert (text.read_bytes(), other.read_bytes()) == before


def test_S27_a_store_of_the_future_is_refused_and_both_versions_are_named(path):
    db = apsw.Connection(str(path))
    db.pragma("user_version", 7)
    db.close()
    newest = len(migrations_of("sqlite"))
    with pytest.raises(StoreError, match=rf"version 7; this nextbuy knows versions up to {newest}"):
        SqliteStore(path)


def test_S27_a_read_only_file_is_said(path):
    with tempfile.TemporaryDirectory() as name:  # pytest's folders are shut to other users
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(path, folder / "live.db")
        (folder / "live.db").chmod(0o444)
        (folder / "live.db.lock").touch()
        (folder / "live.db.lock").chmod(0o666)
        with as_somebody_else(), pytest.raises(StoreError, match=r"live\.db cannot be written"):
            SqliteStore(folder / "live.db")


@contextmanager
def as_somebody_else():
    """Root may write anything; so be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_and_a_path_without_folder_are_refused(tmp_path):
    with pytest.raises(StoreError, match="is a folder"):
        SqliteStore(tmp_path)
    with pytest.raises(StoreError, match="lies in a folder that is not there"):
        SqliteStore(tmp_path / "no" / "live.db")
    with pytest.raises(StoreError, match="is not there"):
        SqliteStore(tmp_path / "live.db", read_only=True)


def test_a_store_begun_but_not_made_is_made(tmp_path):
    (tmp_path / "empty.db").touch()
    store = SqliteStore(tmp_path / "empty.db")
    assert store.write([sent("k", bought("ann"))])[0].first_sequence == 1
    store.close()


def test_a_migration_is_taken_whole_or_not_at_all(path):
    first = migrations_of("sqlite")
    broken = Migration(2, "CREATE TABLE extra (x); INSERT INTO extra VALUES (1); NOT SQL;")
    with pytest.raises(StoreError, match="cannot be used"):
        SqliteStore(path, steps=[*first, broken])
    db = apsw.Connection(str(path))
    assert db.pragma("user_version") == 1
    assert not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'extra'").fetchall()
    db.close()
    mended = Migration(2, "CREATE TABLE extra (x);")
    with pytest.raises(StoreError, match="Start the service on it once"):
        SqliteStore(path, steps=[*first, mended], read_only=True)
    store = SqliteStore(path, steps=[*first, mended])
    assert [one.purchase.user_id for one in store.after(0, 9)] == ["ann"]
    store.close()
    with pytest.raises(StoreError, match="version 2; this nextbuy knows versions up to 1"):
        SqliteStore(path, read_only=True)


def test_nothing_of_a_forgotten_user_stays_in_the_files(tmp_path):
    store = SqliteStore(tmp_path / "live.db")
    for n in range(50):
        store.write([sent(f"k{n}", bought("unmistakable", f"item{n}"), bought(f"other{n}"))])
    store.write_served([offered("unmistakable", 1)])
    assert b"unmistakable" in b"".join(p.read_bytes() for p in tmp_path.iterdir())
    store.forget("unmistakable")
    assert b"unmistakable" not in b"".join(p.read_bytes() for p in tmp_path.iterdir())
    store.close()


def test_another_process_that_holds_the_file_is_waited_for_then_said(path, monkeypatch):
    monkeypatch.setattr("nextbuy.service.store.sqlite_file.BUSY_SECONDS", 0.05)
    store = SqliteStore(path)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="cannot be used now"):
        store.write([sent("k2", bought("bob"))])
    assert store.last_sequence() == 1
    other.execute("ROLLBACK")
    assert store.write([sent("k2", bought("bob"))])[0].first_sequence == 2
    other.close()
    store.close()


def test_sqlite_that_loses_writes_is_refused():
    for version in ("3.44.6", "3.44.9", "3.50.7", "3.51.3", "3.54.1", "4.0.0"):
        check_version(version)
    for version in ("3.40.1", "3.44.5", "3.50.6", "3.51.2", "3.45.9"):
        with pytest.raises(StoreError, match=version):
            check_version(version)


def test_C11_a_network_file_system_is_refused(tmp_path):
    place = str(tmp_path / "with space").replace(" ", "\\040")
    mounts = f"/dev/a / ext4 rw 0 0\nhost:/x {place} nfs4 rw 0 0\ntmp {place}/local tmpfs rw 0 0\n"
    refuse_network(tmp_path / "live.db", mounts)
    refuse_network(tmp_path / "with space" / "local" / "live.db", mounts)
    with pytest.raises(StoreError, match=r"kind nfs4.*local disk"):
        refuse_network(tmp_path / "with space" / "live.db", mounts)
