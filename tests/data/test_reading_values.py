"""What stands in the fields: P17 to P40 of the catalogue of faults."""

from datetime import UTC, datetime

import polars as pl
import pytest

from nextbuy.data.doctor import examine
from nextbuy.data.encoding import encode
from nextbuy.data.fingerprint import fingerprint
from nextbuy.data.options import Limits
from nextbuy.errors import ColumnError, ConfigError, DataError, EmptyDataError, TimeFormatError
from tests.data.logs import HEADER, ids, options, read, rejected, written

PRICED = "user_id,item_id,timestamp,price,quantity\n"


def times(purchases):
    return [moment.isoformat() for moment in purchases.frame["timestamp"]]


def log_of_items(*items):
    return HEADER + "".join(f"u{n},{item},2024-01-02\n" for n, item in enumerate(items))


def log_of_times(*moments):
    return HEADER + "".join(f"u{n},i1,{moment}\n" for n, moment in enumerate(moments))


def finding(purchases, code):
    return next(found for found in examine(purchases).findings if found.code == code)


@pytest.mark.parametrize("price", ["NaN", "inf", "-inf", "1e999", "N/A", "₹1299", "$5", "1,5x"])
def test_P17_prices_that_are_no_number(tmp_path, price):
    content = PRICED + f'u1,i1,2024-01-02,9.5,1\nu2,i2,2024-01-02,"{price}",1\nu3,i3,2024-01-02,,\n'
    purchases = read(tmp_path, content)
    assert rejected(purchases) == [(3, "price", "is no finite number")]
    assert purchases.frame["price"].to_list() == [9.5, None]
    lenient = read(tmp_path, content, bad_numbers="null")
    assert lenient.frame["price"].to_list() == [9.5, None, None]
    assert "1 values of price are no number, now unknown" in lenient.guesses


def test_P18_returns_follow_the_policy(tmp_path):
    content = (
        PRICED + "u1,i1,2024-01-02,5,1\nu1,i1,2024-01-03,-5,1\n"
        "u1,i1,2024-01-04,5,-1\nu1,i1,2024-01-05,0,1\n"
    )
    dropped = read(tmp_path, content)
    assert dropped.counts.kept == 1
    assert [(line, column) for line, column, _ in rejected(dropped)] == [
        (3, "price"), (4, "quantity"), (5, "price"),
    ]  # fmt: skip
    assert finding(dropped, "returns").found.startswith("2 rows rejected: price zero or negative")
    kept = read(tmp_path, content, returns="keep")
    assert kept.frame["price"].to_list() == [5.0, -5.0, 5.0, 0.0]
    assert "2 rows with a price of zero or below are kept" in kept.guesses
    with pytest.raises(DataError, match=r"2 rows have a price .* row 2 with -5"):
        read(tmp_path, content, returns="error")


def test_P19_leading_zero_ids(tmp_path):
    purchases = read(tmp_path, log_of_items("00123", "123", "0123"))
    assert ids(purchases) == ["00123", "123", "0123"]
    assert len(encode(purchases).catalog) == 3


def test_P20_exponents_as_ids(tmp_path):
    assert ids(read(tmp_path, log_of_items("1e5", "2E3", "100000"))) == ["1e5", "2E3", "100000"]


def test_P21_long_numbers_as_ids(tmp_path):
    long = ["123456789012345678901234567890", str(2**63), str(2**53 + 1), str(2**53)]
    assert ids(read(tmp_path, log_of_items(*long))) == long
    json_rows = "".join(
        f'{{"user_id": 1, "item_id": {each}, "timestamp": "2024-01-02"}}\n' for each in long
    )
    assert ids(read(tmp_path, json_rows, "log.jsonl")) == long


def test_P21_ids_that_already_lost_digits_are_refused(tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user_id": ["u"], "item_id": [1e20], "timestamp": ["2024-01-02"]}).write_parquet(
        path
    )
    with pytest.raises(ColumnError, match=r"floats such as 1e\+20"):
        read(tmp_path, path.read_bytes(), "again.parquet")


def test_P22_words_that_mean_missing_elsewhere(tmp_path):
    words = ["NA", "null", "nan", "None", "NULL", "N/A", "-"]
    assert ids(read(tmp_path, log_of_items(*words))) == words


def test_P23_text_after_thousands_of_numbers(tmp_path):
    purchases = read(tmp_path, log_of_items(*range(4000), "X9"))
    assert purchases.counts.kept == 4001
    assert ids(purchases)[-2:] == ["3999", "X9"]


def test_P24_confusable_ids_are_counted_and_joined_only_when_asked(tmp_path):
    twins = [
        "café",
        "cafe\u0301",
        "pay\u200bpal",
        "paypal",
        "KFC",
        "kfc",
        "\u202eabc",
        "🛒",
        "alone",
    ]
    content = log_of_items(*twins)
    purchases = read(tmp_path, content)
    assert ids(purchases) == twins
    assert "6 values of item_id" in finding(purchases, "confusable-ids").found
    joined = read(tmp_path, content, normalize_ids="nfc")
    assert ids(joined)[:2] == ["café", "café"]
    assert ids(joined)[2:] == twins[2:]


def test_P25_spaces_around_ids(tmp_path):
    content = (
        HEADER + " u1,i1 ,2024-01-02\nu1,\ti1,2024-01-03\nu1,i1,2024-01-04\nu2,   ,2024-01-04\n"
    )
    purchases = read(tmp_path, content)
    assert ids(purchases) == ["i1", "i1", "i1"]
    assert "3 values of item_id had spaces around them, now cut off" in purchases.guesses
    assert rejected(purchases) == [(5, "item_id", "empty")]
    assert ids(read(tmp_path, content, spaces="keep")) == ["i1 ", "\ti1", "i1", "   "]


def test_P26_long_ids_and_lines_at_the_limit_and_beyond(tmp_path):
    purchases = read(
        tmp_path, log_of_items("x" * 256, "x" * 257, "é" * 128, "é" * 129, "x" * 1000_000)
    )
    assert [len(each) for each in ids(purchases)] == [256, 128]
    assert rejected(purchases) == [(n, "item_id", "longer than 256 bytes") for n in (3, 5, 6)]
    line = "u,i,2024-01-02,"
    for longest, kept in ((len(line) + 9, ["i", "i"]), (len(line) + 8, ["i"])):
        content = "user_id,item_id,timestamp,note\n" + line + "n" * 9 + "\n" + line + "n\n"
        purchases = read(tmp_path, content, limits=Limits(line_bytes=longest))
        assert ids(purchases) == kept
    assert rejected(purchases) == [(2, None, f"line over {longest} bytes")]


def test_P26_a_line_over_a_mebibyte(tmp_path):
    purchases = read(tmp_path, log_of_items("i1", "x" * (1 << 20), "i3"))
    assert ids(purchases) == ["i1", "i3"]
    assert rejected(purchases) == [(3, None, "line over 1048576 bytes")]
    assert len(purchases.rejects["raw"][0]) < 3000


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)],
)
def test_P27_epoch_units(tmp_path, unit, factor):
    purchases = read(tmp_path, log_of_times(1704164645 * factor, 1704164646 * factor))
    assert times(purchases) == ["2024-01-02T03:04:05+00:00", "2024-01-02T03:04:06+00:00"]
    assert f"timestamps are epoch {unit}" in purchases.guesses


def test_P27_two_units_in_one_column(tmp_path):
    with pytest.raises(
        TimeFormatError, match=r"1 in seconds \(row 1: 1704164645\).*2 in milliseconds \(row 2"
    ):
        read(tmp_path, log_of_times(1704164645, 1704164645000, 1704164645001))


def test_P27_numbers_and_dates_in_one_column(tmp_path):
    with pytest.raises(TimeFormatError, match=r"'1704164645' and 1 dates such as '2024-01-02'"):
        read(tmp_path, log_of_times(1704164645, 1704164646, "2024-01-02"))


def test_P28_two_orders_of_day_and_month(tmp_path):
    with pytest.raises(
        TimeFormatError, match=r"'2024-01-02' \(year-month-day\) and 1 such as '02/01/2024'"
    ):
        read(tmp_path, log_of_times("2024-01-02", "02/01/2024"))
    with pytest.raises(TimeFormatError, match=r"day/month/year or month/day/year: both fit"):
        read(tmp_path, log_of_times("02/01/2024", "03/04/2024"))
    with pytest.raises(TimeFormatError, match="1 rows only fit one, 1 the other"):
        read(tmp_path, log_of_times("13/01/2024", "01/13/2024"))
    day_first = read(tmp_path, log_of_times("02/01/2024", "13/01/2024"))
    assert times(day_first)[0] == "2024-01-02T00:00:00+00:00"
    assert "dates are day/month/year" in day_first.guesses
    month_first = read(tmp_path, log_of_times("02/01/2024 10:30", "01/13/2024 11:30"))
    assert times(month_first)[0] == "2024-02-01T10:30:00+00:00"
    told = read(tmp_path, log_of_times("02/01/2024", "03/04/2024"), time_format="%d/%m/%Y")
    assert times(told) == ["2024-01-02T00:00:00+00:00", "2024-04-03T00:00:00+00:00"]


def test_P29_offsets_become_utc(tmp_path):
    moments = ("2024-01-02T03:04:05Z", "2024-01-02T08:34:05+05:30", "2024-01-02T08:34:05+0530",
               "2024-01-02 00:04:05-03", "2024-01-02T03:04:05.000Z")  # fmt: skip
    assert set(times(read(tmp_path, log_of_times(*moments)))) == {"2024-01-02T03:04:05+00:00"}


def test_P29_naive_times_beside_offsets_need_a_zone(tmp_path):
    content = log_of_times("2024-01-02T03:04:05Z", "2024-01-02T08:34:05")
    with pytest.raises(TimeFormatError, match=r"1 of 2 timestamps carry no offset \(row 2\).*--tz"):
        read(tmp_path, content)
    purchases = read(tmp_path, content, time_zone="Asia/Kolkata")
    assert set(times(purchases)) == {"2024-01-02T03:04:05+00:00"}
    assert "1 timestamps without offset are in Asia/Kolkata" in purchases.guesses


def test_P29_naive_times_alone_are_utc_and_said_to_be(tmp_path):
    purchases = read(tmp_path, log_of_times("2024-01-02 03:04", "2024-01-02"))
    assert times(purchases) == ["2024-01-02T03:04:00+00:00", "2024-01-02T00:00:00+00:00"]
    assert "timestamps without offset are UTC" in purchases.guesses


def test_P29_clock_changes(tmp_path):
    content = log_of_times("2024-03-31 02:30:00", "2024-10-27 02:30:00", "2024-07-01 12:00:00")
    purchases = read(tmp_path, content, time_zone="Europe/Berlin")
    assert times(purchases) == ["2024-10-27T00:30:00+00:00", "2024-07-01T10:00:00+00:00"]
    assert rejected(purchases) == [
        (2, "timestamp", "does not exist in Europe/Berlin (clock change)")
    ]
    assert any(guess.startswith("1 timestamps occur twice") for guess in purchases.guesses)


def test_P30_future_dates(tmp_path):
    content = log_of_times("2025-06-01", "2025-06-02", "2025-06-02 00:00:01", "2026-01-01")
    purchases = read(tmp_path, content)
    assert purchases.counts.kept == 2
    assert rejected(purchases) == [(n, "timestamp", "lies in the future") for n in (4, 5)]
    later = read(tmp_path, content, now=datetime(2026, 1, 1, tzinfo=UTC))
    assert later.counts.kept == 4
    assert finding(purchases, "future-dates").found.startswith("2 rows rejected")


def test_P31_impossible_dates(tmp_path):
    purchases = read(tmp_path, log_of_times(1704164645, 0, -1, 1704164645, 1704164646))
    assert rejected(purchases) == [(n, "timestamp", "lies before 1973-03-03") for n in (3, 4)]
    texts = log_of_times(
        "2024-01-02", "0001-01-01", "9999-12-31", "24-01-02", "1970-01-01", "2024-02-30"
    )
    assert rejected(read(tmp_path, texts)) == [
        (3, "timestamp", "lies before 1973-03-03"),
        (4, "timestamp", "lies in the future"),
        (5, "timestamp", "lies before 1973-03-03"),
        (6, "timestamp", "lies before 1973-03-03"),
        (7, "timestamp", "is no date"),
    ]


def test_P32_row_order_does_not_matter(tmp_path):
    rows = [f"u{n % 3},i{n % 5},2024-01-{1 + n % 4:02d},{1 + n % 7}\n" for n in range(40)]
    header = "user_id,item_id,timestamp,price\n"
    first = read(tmp_path, header + "".join(rows))
    second = read(tmp_path, header + "".join(reversed(rows)))
    assert fingerprint(first) == fingerprint(second)
    one, two = encode(first), encode(second)
    assert one.catalog.table.equals(two.catalog.table)
    for name in ("items", "times", "baskets", "offsets", "prices"):
        assert (getattr(one.histories, name) == getattr(two.histories, name)).all()
    assert (one.histories.times[1:] >= one.histories.times[:-1])[
        one.histories.owners[1:] == one.histories.owners[:-1]
    ].all()


def test_P33_exact_duplicates_follow_the_policy(tmp_path):
    content = PRICED + "u1,i1,2024-01-02,5,1\n" * 3 + "u1,i1,2024-01-02,6,1\n"
    kept, dropped = read(tmp_path, content), read(tmp_path, content, duplicates="drop")
    assert (kept.counts.kept, kept.counts.duplicates) == (4, 0)
    assert (dropped.counts.kept, dropped.counts.duplicates) == (2, 2)
    assert finding(kept, "duplicate-rows").found == "2 of 4 rows are exact copies of others."


def test_P33_reimporting_the_same_orders_changes_nothing(tmp_path):
    header = "user_id,item_id,timestamp,order_id\n"
    orders = "u1,i1,2024-01-02,o1\nu1,i2,2024-01-02,o1\nu1,i1,2024-01-05,o2\n"
    once = read(tmp_path, header + orders)
    twice = read(tmp_path, header + orders + orders, duplicates="drop")
    assert fingerprint(once) == fingerprint(twice)
    assert twice.counts.duplicates == 3
    found = finding(read(tmp_path, header + orders + orders), "reimported-orders").found
    assert found.startswith("1 orders are there several times with all their lines, such as 'o1'")


def test_P34_equal_timestamps_in_a_basket_are_in_the_order_of_ids(tmp_path):
    content = HEADER + "u1,b,2024-01-02\nu1,c,2024-01-02\nu1,a,2024-01-02\nu1,c,2024-01-03\n"
    encoded = encode(read(tmp_path, content))
    bought = encoded.catalog.ids(encoded.histories.items)["item_id"].to_list()
    assert bought == ["a", "b", "c", "c"]
    assert encoded.histories.baskets.tolist() == [0, 0, 0, 1]


def test_P35_empty_users_and_items(tmp_path):
    purchases = read(
        tmp_path,
        HEADER + ',i1,2024-01-02\nu2,,2024-01-02\nu3,"",2024-01-02\nu4,i4,2024-01-02\nu5,i5,\n',
    )
    assert ids(purchases) == ["i4"]
    assert [(line, column) for line, column, _ in rejected(purchases)] == [
        (2, "user_id"), (3, "item_id"), (4, "item_id"), (6, "timestamp"),
    ]  # fmt: skip
    assert finding(purchases, "missing-values").severity in ("warning", "error")


def test_P36_one_purchase_users_are_kept_and_counted(tmp_path):
    purchases = read(tmp_path, HEADER + "u1,i1,2024-01-02\nu2,i1,2024-01-02\nu2,i2,2024-01-03\n")
    assert encode(purchases).histories.user_ids.to_list() == ["u1", "u2"]
    assert finding(purchases, "one-basket-users").found == "1 of 2 users have one basket only."


def test_P37_one_user_or_one_item(tmp_path):
    one_user = read(tmp_path, HEADER + "u1,i1,2024-01-02\nu1,i2,2024-01-03\n")
    assert "of one user, 'u1'" in finding(one_user, "one-user").found
    one_item = read(tmp_path, HEADER + "u1,i1,2024-01-02\nu2,i1,2024-01-03\n")
    assert "of one item, 'i1'" in finding(one_item, "one-item").found
    assert len(encode(one_item).catalog) == 1


def test_P38_a_user_with_very_many_purchases_keeps_the_latest(tmp_path):
    frame = pl.DataFrame(
        {
            "user_id": ["bot"] * 30_000 + ["u1", "u1"],
            "item_id": [f"i{n % 50}" for n in range(30_002)],
            "timestamp": [1_700_000_000 + n for n in range(30_002)],
        }
    )
    path = tmp_path / "log.parquet"
    frame.write_parquet(path)
    purchases = read(tmp_path, path.read_bytes(), "again.parquet")
    encoded = encode(purchases)
    assert encoded.histories.lengths.tolist() == [10_000, 2]
    assert (encoded.num_capped, encoded.num_capped_users) == (20_000, 1)
    assert encoded.histories.times[0] == (1_700_000_000 + 20_000) * 1_000_000
    assert encoded.histories.baskets[:2].tolist() == [0, 1]
    assert encode(purchases, max_history=1).histories.lengths.tolist() == [1, 1]
    with pytest.raises(ConfigError, match="max_history is 0"):
        encode(purchases, max_history=0)


def test_P39_an_item_column_that_is_an_order_id(tmp_path):
    purchases = read(tmp_path, HEADER + "".join(f"u{n % 20},o{n},2024-01-02\n" for n in range(200)))
    found = finding(purchases, "items-look-like-order-ids")
    assert found.severity == "error"
    assert found.found.startswith("200 different items in 200 rows (100.0 %)")


def test_P40_says_what_removed_all_rows(tmp_path):
    content = (
        PRICED
        + "u1,i1,2030-01-01,1,1\nu1,i1,2030-01-02,1,1\nu1,,2024-01-01,1,1\nu1,i1,2024-01-01,-1,1\n"
    )
    with pytest.raises(EmptyDataError) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert "4 rows were read, none is left" in message
    assert "2 because timestamp lies in the future" in message
    assert "1 because item_id empty" in message
    with pytest.raises(EmptyDataError, match="all 1 rows lack a category"):
        encode(
            read(tmp_path, "user_id,item_id,timestamp,category\nu1,i1,2024-01-02,\n"), "category"
        )


def test_unknown_options_are_refused(tmp_path):
    for told in (
        {"time": "later"},
        {"returns": "maybe"},
        {"time_zone": "Mars/Olympus"},
        {"encoding": "klingon"},
        {"delimiter": "::"},
        {"now": datetime(2024, 1, 1)},
        {"duplicates": True},
    ):
        with pytest.raises(ConfigError, match=next(iter(told))):
            options(**told)
    written(tmp_path, "")
