"""Databases: P51 and P52 of the catalogue of faults."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from nextbuy.data.formats.sql import SqlSource
from nextbuy.data.reading import read_purchases
from nextbuy.errors import ColumnError, ConfigError, UnreadableFileError
from nextbuy.progress import SilentProgress
from tests.data.logs import database, ids, options, rejected


def test_P51_missing_tables_and_hostile_names(tmp_path):
    hostile = '"; DROP TABLE purchases;--'
    quoted = hostile.replace('"', '""')
    url = database(
        tmp_path, [("u1", "i1", "2024-01-02")], f'"{quoted}", "select", "order"', '"group"'
    )
    with pytest.raises(UnreadableFileError, match=r"no table 'grup'.*Nearest is 'group'"):
        read_purchases(SqlSource(url, "grup"), options())
    with pytest.raises(ColumnError, match="no column 'user'"):
        read_purchases(SqlSource(url, "group"), options(user_column="user"))
    told = options(user_column=hostile, item_column="select", time_column="order")
    for _ in range(2):  # the table is still there
        assert ids(read_purchases(SqlSource(url, "group"), told)) == ["i1"]
    with pytest.raises(UnreadableFileError, match="no table 'DROP TABLE"):
        read_purchases(SqlSource(url, 'DROP TABLE "group"'), options())
    with pytest.raises(UnreadableFileError, match="Nothing was kept"):
        read_purchases(SqlSource(url, "SELECT * FROM nowhere"), options())
    with pytest.raises(ConfigError, match="URL"):
        read_purchases(SqlSource("no url", "group"), options())
    with pytest.raises(UnreadableFileError, match=r"\*\*\*") as caught:
        read_purchases(SqlSource("nodriver://me:secret@host/db", "group"), options())
    assert "secret" not in str(caught.value)


def test_P51_a_failure_in_the_middle_of_the_cursor_keeps_nothing(tmp_path):
    rows = [("u1", f"i{n}", "2024-01-02", 1) for n in range(60_000)]
    rows.append(("u1", "i", "2024-01-02", -(2**63)))
    url = database(tmp_path, rows, "user_id, item_id, timestamp, n")
    query = "SELECT user_id, item_id, timestamp, abs(n) AS quantity FROM purchases"
    with pytest.raises(UnreadableFileError, match=r"integer overflow.*Nothing was kept"):
        read_purchases(SqlSource(url, query), options())


def test_P52_sql_nulls_decimals_and_naive_times(tmp_path):
    url = database(
        tmp_path,
        [
            ("u1", 7, "2024-01-02 03:04:05", 1.25),
            (None, "i", "2024-01-02", 1),
            (2, "i", "2024-01-02", None),
        ],
        "user_id, item_id, timestamp, price",
    )
    purchases = read_purchases(SqlSource(url, "purchases"), options(time_zone="Asia/Kolkata"))
    assert ids(purchases) == ["7", "i"]
    assert rejected(purchases) == [(2, "user_id", "empty")]
    assert purchases.frame["price"].to_list() == [1.25, None]
    assert purchases.frame["timestamp"][0] == datetime(2024, 1, 1, 21, 34, 5, tzinfo=UTC)


def test_P52_values_of_other_databases_keep_every_digit():
    from nextbuy.data.formats.sql import _text

    zone = timezone(timedelta(hours=5, minutes=30))
    assert _text(Decimal("12.50"), "price") == "12.50"
    assert _text(Decimal("1E+3"), "price") == "1000"
    assert _text(datetime(2024, 1, 2, 3, 4, 5, tzinfo=zone), "t") == "2024-01-02T03:04:05+05:30"
    assert _text(date(2024, 1, 2), "t") == "2024-01-02"
    assert _text(b"00123", "user_id") == "00123"
    with pytest.raises(ColumnError, match="not UTF-8"):
        _text(b"\xff", "user_id")


def test_P52_a_large_result_is_fetched_in_chunks(tmp_path):
    url = database(
        tmp_path, [(f"u{n % 100}", f"i{n % 7}", 1_700_000_000 + n) for n in range(120_000)]
    )
    sizes = []
    watcher = SilentProgress()
    watcher.advance = lambda units, facts: sizes.append(units)
    purchases = read_purchases(SqlSource(url, "purchases"), options(), watcher)
    assert sizes == [50_000, 50_000, 20_000]
    assert purchases.counts.kept == 120_000
