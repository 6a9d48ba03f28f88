"""Reading as a whole: the account of the rows, the nested form, frames, baskets and order."""

import csv
import io

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextbuy.data.encoding import encode
from nextbuy.data.fingerprint import fingerprint
from nextbuy.data.reading import read_purchases, write_rejects
from nextbuy.errors import ColumnError, ConfigError, DataError, EmptyDataError, UnreadableFileError
from tests.data.logs import HEADER, ids, options, read, rejected, written

FIELD = st.sampled_from(
    ["u1", "007", "", " x ", "2024-01-02", "2030-01-01", "-3", "1e5", "é", '"', '"a,b"', '"a\nb"',
     '"q""q"', "a\0b", "NaN", ";", "\u200b", "'", "1,5", '"open']
)  # fmt: skip
LINE = st.lists(FIELD, max_size=5).map(",".join)
MESSY = st.lists(LINE | st.text(max_size=12), max_size=12)
settings.register_profile("files", suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(settings.get_profile("files"), max_examples=300, deadline=None)
@given(lines=MESSY, end=st.sampled_from(["\n", "\r\n", "\r"]), tail=st.binary(max_size=3))
def test_every_row_of_a_messy_file_is_accounted_for(tmp_path, lines, end, tail):
    content = end.join(["user_id,item_id,timestamp,price", "u,i,2024-01-02,1", *lines]).encode(
        "utf-8", "surrogatepass"
    )
    try:
        purchases = read(tmp_path, content + tail, duplicates="drop")
    except DataError as error:
        assert "log.csv" in str(error)
        return
    counts = purchases.counts
    assert counts.rows_in == counts.kept + counts.rejected + counts.duplicates
    assert counts.kept == purchases.frame.height
    assert counts.rejected == purchases.rejects.height
    assert (
        purchases.frame.select("user_id", "item_id", "timestamp").null_count().sum_horizontal()[0]
        == 0
    )
    text = (content + tail).decode("utf-8", "replace")
    lines_in_file = len(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    assert purchases.rejects.filter(~pl.col("line").is_between(2, lines_in_file)).is_empty()
    assert purchases.rejects["reason"].null_count() == 0


CLEAN = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@settings(settings.get_profile("files"), max_examples=200, deadline=None)
@given(pairs=st.lists(st.tuples(CLEAN, CLEAN), min_size=1, max_size=8))
def test_ids_come_back_as_the_csv_module_wrote_them(tmp_path, pairs):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerow(["user_id", "item_id", "timestamp"])
    writer.writerows([(user, item, "2024-01-02") for user, item in pairs])
    purchases = read(tmp_path, buffer.getvalue(), spaces="keep")
    assert list(zip(ids(purchases, "user_id"), ids(purchases), strict=True)) == pairs


def test_the_reject_file_has_line_column_reason_and_raw_text(tmp_path):
    purchases = read(tmp_path, HEADER + "u1,i1,2024-01-02\n,i2,2024-01-02\nu3,i3\n")
    write_rejects(purchases, tmp_path / "out" / "rejects.csv")
    table = pl.read_csv(tmp_path / "out" / "rejects.csv")
    assert table.columns == ["file", "line", "column", "reason", "raw"]
    assert table["line"].to_list() == [3, 4]
    assert table["reason"].to_list() == ["empty", "2 fields instead of 3"]
    assert table["raw"].to_list() == [",i2,2024-01-02", "u3,i3"]


NESTED = (
    '{"user": "user1", "purchases": ["Flipkart", "Zomato", "Flipkart"]}\n'
    '{"user": "user2", "purchases": []}\n'
    '{"user": "user3", "purchases": ["KFC"]}\n'
    '{"user": "user1", "purchases": ["Myntra"]}\n'
)


@pytest.mark.parametrize("name", ["log.jsonl", "log.json", "log"])
def test_the_nested_form_is_an_order_without_dates(tmp_path, name):
    purchases = read(tmp_path, NESTED, name)
    assert purchases.time_kind == "order"
    assert purchases.frame.rows() == [
        ("user1", "Flipkart", 0),
        ("user1", "Zomato", 1),
        ("user1", "Flipkart", 2),
        ("user3", "KFC", 0),
        ("user1", "Myntra", 3),
    ]
    assert rejected(purchases) == [(2, "item_id", "empty")]
    assert any("order" in guess for guess in purchases.guesses)
    encoded = encode(purchases)
    bought = encoded.catalog.ids(encoded.histories.items)["item_id"].to_list()
    assert bought == ["Flipkart", "Zomato", "Flipkart", "Myntra", "KFC"]
    assert encoded.histories.baskets.tolist() == [0, 1, 2, 3, 0]


def test_nested_purchases_may_be_objects(tmp_path):
    line = '{"user": "u1", "purchases": [{"item": "a", "time": 1704164645}, {"item": "b"}]}'
    purchases = read(tmp_path, line, "log.jsonl")
    assert purchases.frame.rows()[0][:2] == ("u1", "a")
    assert rejected(purchases) == [(1, "timestamp", "empty")]


def test_row_order_as_the_only_time(tmp_path):
    content = "user_id,item_id\nu1,b\nu2,z\nu1,a\n"
    with pytest.raises(ColumnError, match="--time order"):
        read(tmp_path, content)
    purchases = read(tmp_path, content, time="order")
    assert purchases.frame["timestamp"].to_list() == [0, 0, 1]
    encoded = encode(purchases)
    assert encoded.catalog.ids(encoded.histories.items)["item_id"].to_list() == ["b", "a", "z"]


def test_positions_are_an_order(tmp_path):
    content = "user_id,item_id,timestamp\nu1,b,3\nu1,a,1\nu1,c,3\n"
    for told in ({}, {"time": "order"}):
        purchases = read(tmp_path, content, **told)
        assert purchases.time_kind == "order"
        assert encode(purchases).histories.baskets.tolist() == [0, 1, 1]
    with pytest.raises(DataError, match="--time order"):
        read(tmp_path, content, time="dates")
    assert (
        read(tmp_path, "user_id,item_id,position\nu1,b,3\n", time="order").frame["timestamp"][0]
        == 3
    )


ROWS = {"Customer ID": ["00123", "x"], "sku": ["1e5", "NA"], "when": ["2024-01-02", "2024-01-03"]}


@pytest.mark.parametrize(
    "made",
    [
        pd.DataFrame,
        pl.DataFrame,
        pl.LazyFrame,
        pa.table,
        lambda rows: duckdb.from_arrow(pa.table(rows)),
    ],
    ids=["pandas", "polars", "lazy polars", "arrow", "duckdb"],
)
def test_frames_of_every_library(made):
    frame = made(ROWS)
    purchases = read_purchases(frame, options(time_column="when"))
    assert ids(purchases, "user_id") == ["00123", "x"]
    assert ids(purchases) == ["1e5", "NA"]


def test_pandas_with_mixed_and_missing_values():
    frame = pd.DataFrame(
        {
            "user": [1, "X9", None, 10**30],
            "item": [7.0, None, 9.0, 8.0],
            "date": pd.to_datetime(["2024-01-02"] * 4),
        }
    )
    purchases = read_purchases(frame, options())
    assert ids(purchases, "user_id") == ["1", str(10**30)]
    assert ids(purchases) == ["7", "8"]
    assert rejected(purchases) == [(2, "item_id", "empty"), (3, "user_id", "empty")]


def test_what_is_no_source_is_refused():
    with pytest.raises(UnreadableFileError, match="type int"):
        read_purchases(5)
    with pytest.raises(EmptyDataError, match="0 rows"):
        read_purchases(pl.DataFrame(ROWS)[:0], options(time_column="when"))


def test_a_log_of_platforms_has_platforms_as_items(tmp_path):
    purchases = read(tmp_path, "user,platform,date\nu1,Zomato,2024-01-02\n")
    assert ids(purchases) == ["Zomato"]
    assert "item_id is the column 'platform': there is no other item" in purchases.guesses


def test_what_makes_a_basket_is_told_or_guessed(tmp_path):
    rows = "u1,a,2024-01-02,o1\nu1,b,2024-01-02,o2\nu1,c,2024-01-03,o2\n"
    content = "user_id,item_id,timestamp,order_id\n" + rows
    found = {
        told: (purchases := read(tmp_path, content, baskets=told)).basket_kind
        + str(encode(purchases).histories.baskets.tolist())
        for told in ("auto", "column", "timestamp", "none")
    }
    assert found == {
        "auto": "column[0, 1, 1]",
        "column": "column[0, 1, 1]",
        "timestamp": "timestamp[0, 0, 1]",
        "none": "none[0, 1, 2]",
    }
    with pytest.raises(ConfigError, match="--basket-column"):
        read(tmp_path, HEADER + "u1,a,2024-01-02\n", baskets="column")


def test_only_the_needed_columns_of_a_parquet_file_are_kept(tmp_path):
    frame = pl.DataFrame(ROWS).with_columns(
        blob=pl.struct(pl.lit(1)), when=pl.col("when").str.to_date()
    )
    frame.write_parquet(tmp_path / "log.parquet")
    purchases = read_purchases(tmp_path / "log.parquet", options(time_column="when"))
    assert purchases.frame.columns == ["user_id", "item_id", "timestamp"]


def test_the_bytes_that_were_read_are_reported(tmp_path):
    class Counter:
        def __init__(self):
            self.seen = []

        def about(self, subject):
            pass

        def start(self, name, total, done=0):
            self.seen.append((name, total))

        def advance(self, units, facts):
            self.seen.append(units)

        def finish(self):
            self.seen.append("finish")

    counter = Counter()
    path = written(tmp_path, HEADER + "u1,i1,2024-01-02\n")
    read_purchases(path, options(), counter)
    assert counter.seen == [("reading", 43), 43, "finish"]


def test_a_fingerprint_tells_columns_and_time_apart(tmp_path):
    dated = read(tmp_path, HEADER + "a,b,2024-01-02\n")
    swapped = read(tmp_path, HEADER + "b,a,2024-01-02\n")
    joined = read(tmp_path, HEADER + "ab,b,2024-01-02\na,bb,2024-01-02\n")
    other = read(tmp_path, HEADER + "a,b,2024-01-02\nab,bb,2024-01-02\n")
    ordered = read(tmp_path, HEADER + "a,b,1\n")
    prints = {fingerprint(each) for each in (dated, swapped, joined, other, ordered)}
    assert len(prints) == 5
    assert all(len(each) == 64 for each in prints)
