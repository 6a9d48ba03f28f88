"""`nextbuy store`: import, check, back up, damage, restore."""

import json

import polars as pl
import pytest

from nextbuy.service.store.sqlite import SqliteStore
from tests.service.store.sending import bought, sent
from tests.shop import shop_log


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    shop_log(20).write_csv(path)
    return path


def test_a_log_is_imported_once_and_a_longer_one_adds_the_rest(log, tmp_path, run):
    url, height = tmp_path / "live.db", shop_log(20).height
    code, out, _ = run("store", "import", url, log, "--json")
    assert code == 0
    assert json.loads(out) == {
        "stored": height, "repeated": 0, "rejected": 0, "last_sequence": height
    }  # fmt: skip
    assert json.loads(run("store", "import", url, log, "--json")[1])["repeated"] == height
    more = shop_log(20)[:3]  # bought again, equal in every column
    pl.concat([shop_log(20).sample(fraction=1, shuffle=True, seed=1), more]).write_csv(log)
    code, out, _ = run("store", "import", url, log)
    assert out == f"3 purchases stored, {height} were there already, 0 rows rejected\n"
    store = SqliteStore(url)
    stored = [one.purchase for one in store.after(0, 10_000)]
    expected = pl.concat([shop_log(20).sort("timestamp"), more])
    assert [one.user_id for one in stored[:height]] == expected["user_id"].to_list()[:height]
    assert sorted((one.user_id, one.item_id, one.timestamp, one.price) for one in stored) == sorted(
        expected.with_columns(pl.col("timestamp").dt.timestamp("us")).iter_rows()
    )
    store.close()


def test_an_order_is_no_moment(tmp_path, run):
    (tmp_path / "log.jsonl").write_text('{"user": "user1", "purchases": ["Flipkart", "Zomato"]}')
    code, _, err = run("store", "import", tmp_path / "live.db", tmp_path / "log.jsonl")
    assert code == 1
    assert "only an order" in err


def test_a_backup_is_made_while_a_service_runs_and_restored_when_it_does_not(tmp_path, run):
    url, backup = tmp_path / "live.db", tmp_path / "backup.db"
    store = SqliteStore(url)
    store.write([sent("k1", bought("ann")), sent("k2", bought("bob"))])
    assert run("store", "backup", url, backup)[0] == 0
    assert "is there already" in run("store", "backup", url, backup)[2]
    store.write([sent("k3", bought("late"))])
    assert "in use by another service" in run("store", "restore", backup, url)[2]
    store.close()
    url.write_bytes(b"nonsense" * 1_000)
    code, _, err = run("store", "check", url)
    assert code == 1
    assert f"nextbuy store restore BACKUP {url}" in " ".join(err.split())
    code, out, _ = run("store", "restore", backup, url)
    assert code == 0
    assert f"what was there: {url}.replaced-1" in out
    assert (tmp_path / "live.db.replaced-1").read_bytes() == b"nonsense" * 1_000
    code, out, _ = run("store", "check", url, "--json")
    assert json.loads(out) == {"last_sequence": 2, "forgotten": 0}
    again = SqliteStore(url)
    assert [one.purchase.user_id for one in again.after(0, 9)] == ["ann", "bob"]
    again.close()


def test_a_backup_that_is_damaged_replaces_nothing(tmp_path, run):
    url, backup = tmp_path / "live.db", tmp_path / "backup.db"
    store = SqliteStore(url)
    store.write([sent(f"k{n}", bought(f"u{n}")) for n in range(200)])
    store.back_up(backup)
    store.close()
    data, before = bytearray(backup.read_bytes()), url.read_bytes()
    data[-4096:] = bytes(4096)
    backup.write_bytes(data)
    code, _, err = run("store", "restore", backup, url)
    assert code == 1
    assert "backup.db is damaged" in " ".join(err.split())
    assert url.read_bytes() == before
    assert run("store", "restore", url, url)[0] == 1
