"""Files, packed files and folders: P41 to P50, P53 of the catalogue of faults."""

import gzip
import io
import json
import os
import resource
import time
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextbuy.data.fingerprint import fingerprint
from nextbuy.data.formats.sql import SqlSource
from nextbuy.data.options import Limits
from nextbuy.data.reading import read_purchases
from nextbuy.errors import ColumnError, DataError, EmptyDataError, UnreadableFileError
from nextbuy.progress import SilentProgress
from tests.data.logs import HEADER, database, ids, options, read, rejected, written

ROWS = "".join(f"u{n % 7},i{n % 11},2024-01-{1 + n % 28:02d}\n" for n in range(100))
FRAME = pl.DataFrame(
    {"user_id": ["u1", "u2"], "item_id": ["i1", "i2"], "timestamp": ["2024-01-02"] * 2}
)


def parquet(frame, **written_with) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(
        frame if isinstance(frame, pa.Table) else frame.to_arrow(), buffer, **written_with
    )
    return buffer.getvalue()


def read_quickly(source, **told):
    begin = time.monotonic()
    with pytest.raises(DataError) as caught:
        read_purchases(source, options(**told))
    assert time.monotonic() - begin < 1
    return str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 8, 0.5, -1])
def test_P41_truncated_parquet(tmp_path, keep):
    whole = parquet(FRAME)
    cut = whole[: int(len(whole) * keep)] if keep == 0.5 else whole[:keep]
    with pytest.raises((UnreadableFileError, EmptyDataError), match=r"log\.parquet"):
        read(tmp_path, cut, "log.parquet")


def test_P42_bit_flips_are_caught_by_page_checksums(tmp_path):
    frame = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in range(500)],
            "item_id": ["i"] * 500,
            "timestamp": ["2024-01-02"] * 500,
        }
    )
    whole = bytearray(parquet(frame, write_page_checksum=True, compression="none"))
    honest = fingerprint(read(tmp_path, bytes(whole), "log.parquet"))
    end = whole.rindex(b"u499") + 4
    for position in range(whole.index(b"u100"), end, 97):
        whole[position] ^= 4
        with pytest.raises(UnreadableFileError, match=r"log\.parquet"):
            read(tmp_path, bytes(whole), "log.parquet")
        whole[position] ^= 4
    assert fingerprint(read(tmp_path, bytes(whole), "log.parquet")) == honest


def test_P42_the_hash_of_each_file_is_recorded(tmp_path):
    purchases = read(tmp_path, b"user_id,item_id,timestamp\nu,i,2024-01-02\n")
    ((name, sha256),) = purchases.hashes
    assert name.endswith("log.csv")
    # printf 'user_id,item_id,timestamp\nu,i,2024-01-02\n' | sha256sum
    assert sha256 == "d826a4d7636e4aba963bb2ece6e89eb9acb2cc9e742e1317ecdafd32009e4331"


def test_P43_parquet_types_are_converted(tmp_path):
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    table = pa.table(
        {
            "user_id": pa.array([2**64 - 1, 7], pa.uint64()),
            "item_id": pa.array(["a", "b"]).dictionary_encode(),
            "timestamp": pa.array([moment] * 2, pa.timestamp("ns", "Asia/Kolkata")),
            "price": pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)),
            "quantity": pa.array([1, 2], pa.int8()),
            "platform": pa.array([b"x", None], pa.binary()),
        }
    )
    purchases = read(tmp_path, parquet(table), "log.parquet")
    assert ids(purchases, "user_id") == ["18446744073709551615", "7"]
    assert ids(purchases) == ["a", "b"]
    assert purchases.frame["timestamp"].to_list() == [moment] * 2
    assert purchases.frame["price"].to_list() == [1.25, None]
    assert ids(purchases, "platform") == ["x", None]
    old = pa.table(
        {
            **{n: table[n] for n in ("user_id", "item_id")},
            "timestamp": pa.array([moment.replace(tzinfo=None)] * 2),
        }
    )
    ancient = read(tmp_path, parquet(old, use_deprecated_int96_timestamps=True), "old.parquet")
    assert ancient.frame["timestamp"].to_list() == [moment] * 2
    days = old.set_column(2, "timestamp", pa.array([date(2024, 1, 2)] * 2))
    assert read(tmp_path, parquet(days), "d.parquet").frame["timestamp"][0] == datetime(
        2024, 1, 2, tzinfo=UTC
    )


def test_P43_lists_are_baskets_and_what_is_no_id_is_refused(tmp_path):
    lists = pl.DataFrame(
        {
            "user_id": ["u1", "u2"],
            "item_id": [["a", "b"], []],
            "timestamp": ["2024-01-02", "2024-01-03"],
        }
    )
    purchases = read(tmp_path, parquet(lists), "log.parquet")
    assert ids(purchases) == ["a", "b"]
    assert ids(purchases, "user_id") == ["u1", "u1"]
    assert rejected(purchases) == [(2, "item_id", "empty")]
    for column, value in (
        ("user_id", [{"a": 1}] * 2),
        ("user_id", [1.5, 2.5]),
        ("timestamp", [[1], [2]]),
    ):
        with pytest.raises(DataError, match=r"type|floats"):
            read(tmp_path, parquet(FRAME.with_columns(pl.Series(column, value))), "bad.parquet")


def test_P44_a_folder_of_differing_columns_names_file_and_column(tmp_path):
    written(tmp_path, HEADER + "u1,i1,2024-01-02\n", "logs/a.csv")
    written(tmp_path, HEADER + "u2,,2024-01-02\n", "logs/b.csv")
    written(tmp_path, "no log", "logs/_SUCCESS")
    purchases = read_purchases(tmp_path / "logs", options())
    assert ids(purchases, "user_id") == ["u1"]
    assert purchases.rejects["file"][0].endswith("b.csv")
    assert rejected(purchases) == [(2, "item_id", "empty")]
    assert ids(read_purchases(str(tmp_path / "logs" / "*.csv"), options())) == ["i1"]
    written(tmp_path, "user_id,item_id,timestamp,price\nu3,i3,2024-01-02,1\n", "logs/c.csv")
    with pytest.raises(ColumnError, match=r"c\.csv has \['price'\]"):
        read_purchases(tmp_path / "logs", options())
    written(tmp_path, parquet(FRAME.with_columns(timestamp=pl.lit(date(2024, 1, 2)))), "logs/c.csv")
    with pytest.raises(ColumnError, match=r"'timestamp' is of type"):
        read_purchases(tmp_path / "logs", options())


@pytest.mark.parametrize("kind", ["gz", "zst", "zip"])
def test_P45_bombs_are_given_up_before_they_fill_memory(tmp_path, kind):
    block = HEADER.encode() + b"u1,i1,2024-01-02\n" * 3_000_000  # 51 MB
    path = tmp_path / f"bomb.csv.{kind}"
    if kind == "gz":
        path.write_bytes(gzip.compress(block, 9))
    elif kind == "zst":
        path.write_bytes(pa.compress(block, codec="zstd", asbytes=True))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb.csv", block)
    assert "over the limits of 100:1" in read_quickly(path)
    small = Limits(ratio=10**6, unpacked_bytes=len(block) - 1)
    assert f"{len(block) - 1} bytes" in read_quickly(path, limits=small)


@pytest.mark.parametrize("kind", ["gz", "zst", "zip"])
def test_P45_honest_packed_files_are_read(tmp_path, kind):
    content = (HEADER + ROWS).encode()
    plain = read(tmp_path, content)
    path = tmp_path / f"log.csv.{kind}"
    if kind == "gz":
        path.write_bytes(gzip.compress(content[:40]) + gzip.compress(content[40:]))
    elif kind == "zst":
        path.write_bytes(pa.compress(content, codec="zstd", asbytes=True))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("log.csv", content)
    assert read_purchases(path, options()).frame.equals(plain.frame)


def test_P46_truncated_and_damaged_packed_files(tmp_path):
    noise = "".join(f"u{n * 7919 % 1000},i{n},2024-01-02\n" for n in range(3000))
    content = (HEADER + noise).encode()
    packed = gzip.compress(content)
    broken = bytearray(packed)
    broken[-6] ^= 1
    zstd = pa.compress(content, codec="zstd", asbytes=True)
    damaged = {
        "a.csv.gz": packed[:-9],
        "b.csv.gz": bytes(broken),
        "c.csv.gz": packed[:20],
        "d.csv.zst": zstd[:-4],
        "e.csv.gz": content,
    }
    for name, data in damaged.items():
        with pytest.raises(UnreadableFileError, match=name):
            read(tmp_path, data, name)


@pytest.mark.parametrize(
    "name", ["../log.csv", "/log.csv", "a/../../log.csv", "C:log.csv", "..\\log.csv"]
)
def test_P47_zip_members_with_unsafe_names(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), HEADER + ROWS)
    with pytest.raises(UnreadableFileError, match="unsafe name"):
        read_purchases(tmp_path / "log.zip", options())


def test_P47_zip_with_links_nested_or_several_members(tmp_path):
    link = zipfile.ZipInfo("log.csv")
    link.external_attr = 0o120777 << 16
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("log.csv", HEADER + ROWS)
    for members, reason in (
        ([(link, "/etc/passwd")], "no regular file"),
        ([("inner.zip", inner.getvalue())], "packed file inside"),
        ([("a.csv", HEADER + ROWS), ("b.csv", HEADER + ROWS)], "2 members"),
        ([], "0 members"),
    ):
        with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
            for name, content in members:
                archive.writestr(name, content)
        with pytest.raises(UnreadableFileError, match=reason):
            read_purchases(tmp_path / "log.zip", options())


def test_P48_json_lines_that_are_broken(tmp_path):
    good = '{"user_id": "u1", "item_id": "i1", "timestamp": "2024-01-02", "price": 1.50}'
    lines = [
        good,
        '[{"user_id": "u1"}]',
        good.replace("1.50", "NaN"),
        good.replace('"item_id"', '"user_id"'),
        '{"user_id": ' + "[" * 100_000 + "]" * 100_000 + "}",
        good.replace('"i1"', "9" * 5000),
        "\ufeff" + good,
        '"text"',
        "",
        good.replace('"i1"', "null"),
        good.replace("1.50", "1e999"),
        '{"user_id": "u1", "item_id": "i1", "x": ' + '{"a":' * 40 + "1" + "}" * 41,
        good.replace('"i1"', '{"a": "' + "x" * (1 << 20) + '"}'),
        good[:-20],
    ]
    purchases = read(tmp_path, "\n".join(lines), "log.jsonl")
    assert ids(purchases) == ["i1"]
    reasons = {line: reason for line, _, reason in rejected(purchases)}
    assert sorted(reasons) == [2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14]
    assert reasons[2] == "is a list, not an object"
    assert reasons[3] == "NaN is no JSON"
    assert reasons[4] == "the key 'user_id' occurs twice"
    assert reasons[5] == reasons[12] == "nested deeper than 32"
    assert reasons[6] == "longer than 256 bytes"
    assert reasons[13] == "line over 1048576 bytes"
    assert reasons[14].startswith("malformed JSON")
    assert purchases.counts.rows_in == 13


def test_P48_a_json_list_is_read_whole_or_not_at_all(tmp_path):
    rows = [{"user_id": "u1", "item_id": 7, "timestamp": "2024-01-02"}, 3]
    purchases = read(tmp_path, json.dumps(rows, indent=1), "log.json")
    assert ids(purchases) == ["7"]
    assert rejected(purchases) == [(2, None, "is a single value, not an object")]
    with pytest.raises(UnreadableFileError, match=r"log\.json is no JSON list.*line 7"):
        read(tmp_path, json.dumps(rows, indent=1)[:-4], "log.json")
    with pytest.raises(EmptyDataError, match=r"name it \.json"):
        read(tmp_path, json.dumps(rows), "log.jsonl")


class _Writer(SilentProgress):
    """Somebody who writes to the file while it is read."""

    def __init__(self, change):
        self._change = change

    def advance(self, units, facts):
        self._change()


@pytest.mark.parametrize("how", ["grows", "is replaced", "is rewritten", "vanishes"])
def test_P49_a_file_that_changes_while_it_is_read(tmp_path, how):
    path = written(tmp_path, HEADER + ROWS)

    def change():
        if how == "grows":
            path.write_text(HEADER + ROWS + "u1,i1,2024-01-02\n")
        elif how == "is replaced":
            written(tmp_path, HEADER + ROWS, "new.csv").replace(path)
        elif how == "is rewritten":
            path.write_text(HEADER + ROWS.upper())
            os.utime(path, ns=(1, 1))
        else:
            path.unlink()

    with pytest.raises(UnreadableFileError, match=r"changed while it was read|cannot be read"):
        read_purchases(path, options(), _Writer(change))


def test_P50_what_is_no_readable_file_is_answered_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "empty").mkdir()
    with (tmp_path / "sparse.csv").open("wb") as file:
        file.write((HEADER + ROWS).encode())
        file.truncate(10 << 30)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "a pipe, not a regular file" in read_quickly(tmp_path / "pipe.csv")
    assert "a character device" in read_quickly("/dev/zero")
    assert "loop.csv cannot be opened" in read_quickly(tmp_path / "loop.csv")
    assert "no such file" in read_quickly(tmp_path / "missing.csv")
    assert "holds no file with a known suffix" in read_quickly(tmp_path / "empty")
    assert "matches no file" in read_quickly(str(tmp_path / "*.parquet"))
    assert "hole that was never written" in read_quickly(tmp_path / "sparse.csv")
    assert "cannot be opened" in read_quickly("x" * 5000)
    assert "is no path" in read_quickly("a\0b")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # KiB


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_P50_no_permission(tmp_path):
    path = written(tmp_path, HEADER + ROWS)
    path.chmod(0)
    assert "permission denied" in read_quickly(path)


def test_P53_the_same_data_has_the_same_fingerprint(tmp_path):
    rows = [
        (f"0{n % 9}", f"i,{n % 5}", f"2024-01-{1 + n % 28:02d} 10:00:00", n % 4 + 0.1, platform)
        for n, platform in enumerate([None, "Zomato", "KFC"] * 20)
    ]
    names = ["user_id", "item_id", "timestamp", "price", "platform"]
    frame = pl.DataFrame(rows, schema=names, orient="row")
    frame.write_csv(tmp_path / "log.csv")
    frame.write_csv(tmp_path / "log.tsv", separator="\t")
    frame.write_ndjson(tmp_path / "log.jsonl")
    typed = frame.with_columns(pl.col("timestamp").str.to_datetime().dt.replace_time_zone("UTC"))
    typed.write_parquet(tmp_path / "log.parquet")
    halves = tmp_path / "halves"
    halves.mkdir()
    frame[30:].write_csv(halves / "a.csv")
    frame[:30].write_csv(halves / "b.csv")
    epochs = typed.with_columns(pl.col("timestamp").dt.epoch("s")).rename(
        {"user_id": "Customer ID"}
    )
    url = database(tmp_path, rows, ", ".join(names))
    sources = [tmp_path / f"log.{kind}" for kind in ("csv", "tsv", "jsonl", "parquet")]
    sources += [
        halves,
        SqlSource(url, "purchases"),
        SqlSource(url, "SELECT * FROM purchases ORDER BY price"),
    ]
    sources += [
        frame,
        frame.sample(fraction=1, shuffle=True, seed=1),
        epochs,
        typed.to_arrow(),
        typed.to_pandas(),
        typed.lazy(),
    ]
    prints = {fingerprint(read_purchases(source, options())) for source in sources}
    assert len(prints) == 1
    assert fingerprint(read_purchases(frame[1:], options())) not in prints
    changed = frame.with_columns(price=pl.col("price").replace(0.1, 0.2))
    assert fingerprint(read_purchases(changed, options())) not in prints
