"""Encoding against a plain twin, its independence of row order, and the values of small logs."""

import statistics
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy.data.encoding import encode
from nextbuy.data.fingerprint import fingerprint
from nextbuy.data.purchases import Purchases, RowCounts
from nextbuy.errors import ColumnError, ConfigError

START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = (
    "user_id",
    "item_id",
    "timestamp",
    "platform",
    "category",
    "price",
    "quantity",
    "basket_id",
)
TYPES = {
    "timestamp": pl.Datetime("us", "UTC"), "price": pl.Float64, "quantity": pl.Float64,
}  # fmt: skip


def log(rows, basket_kind="timestamp", columns=NAMES):
    """Purchases from tuples in the order of `columns`, days instead of timestamps."""
    place = columns.index("timestamp")
    rows = [(*row[:place], START + timedelta(days=row[place]), *row[place + 1 :]) for row in rows]
    schema = {name: TYPES.get(name, pl.String) for name in columns}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    counts = RowCounts(rows_in=len(rows), kept=len(rows))
    return Purchases(frame=frame, counts=counts, time_kind="dates", basket_kind=basket_kind)


ROW = st.tuples(
    st.sampled_from(["u", "U", "10", "9"]),
    st.sampled_from(["a", "b", "é", "007", "7"]),
    st.integers(0, 4) | st.floats(0, 4).map(lambda day: round(day, 3)),
    st.sampled_from([None, "Zomato", "KFC"]),
    st.sampled_from([None, "food", "fun"]),
    st.sampled_from([None, 1.0, 2.5, 0.1]),
    st.sampled_from([None, 1.0, 3.0]),
    st.sampled_from([None, "o1", "o2", "o3"]),
)
LOG = st.lists(ROW, min_size=1, max_size=25)


def micros(day):
    return (START + timedelta(days=day) - datetime.fromtimestamp(0, UTC)) // timedelta(
        microseconds=1
    )


def plain_baskets(rows, kind):
    """Per user the baskets in order: (time, rows)."""
    users = defaultdict(lambda: defaultdict(list))
    for row in rows:
        named = kind == "column" and row[7] is not None
        users[row[0]][(row[7], None) if named else (None, micros(row[2]))].append(row)
    for user in sorted(users, key=lambda name: name.encode()):
        keyed = [
            (min(micros(row[2]) for row in bought), (key[0] or "").encode(), bought)
            for key, bought in users[user].items()
        ]
        yield user, [(time, bought) for time, _, bought in sorted(keyed, key=lambda each: each[:2])]


def plain_encoding(rows, kind):
    """User, basket number, time, (item, platform), price, quantity of each row, in plain Python."""
    for user, baskets in plain_baskets(rows, kind):
        for number, (time, bought) in enumerate(baskets):
            lines = defaultdict(list)
            for row in bought:
                lines[row[1], row[3]].append(row)
            for thing in sorted(
                lines, key=lambda pair: (pair[0].encode(), (pair[1] or "").encode())
            ):
                same = lines[thing]
                units = [1.0 if row[6] is None else row[6] for row in same]
                priced = [
                    (row[5], n) for row, n in zip(same, units, strict=True) if row[5] is not None
                ]
                price = (
                    sum(p * n for p, n in priced) / sum(n for _, n in priced) if priced else None
                )
                alone = len(same) == 1
                yield user, number, time, thing, price, same[0][6] if alone else sum(units)


@settings(max_examples=150, deadline=None)
@given(rows=LOG, kind=st.sampled_from(["timestamp", "column"]))
def test_the_arrays_equal_a_plain_twin(rows, kind):
    encoded = encode(log(rows, kind))
    histories = encoded.histories
    expected = list(plain_encoding(rows, kind))
    users = [histories.user_ids[int(owner)] for owner in histories.owners]
    things = encoded.catalog.ids(histories.items).select("item_id", "platform").rows()
    assert list(zip(users, histories.baskets, histories.times, things, strict=True)) == [
        row[:4] for row in expected
    ]
    unknown = float("nan")
    np.testing.assert_allclose(
        histories.prices, [unknown if r[4] is None else r[4] for r in expected], rtol=1e-6
    )
    np.testing.assert_allclose(
        histories.quantities, [unknown if r[5] is None else r[5] for r in expected], rtol=1e-6
    )
    assert encoded.num_merged == len(rows) - len(expected)


@settings(max_examples=100, deadline=None)
@given(rows=LOG)
def test_the_catalog_equals_a_plain_twin(rows):
    table = encode(log(rows)).catalog.table
    counts = Counter(row[3] for row in plain_encoding(rows, "timestamp"))
    expected = []
    for (item, platform), count in counts.items():
        same = [row for row in rows if (row[1], row[3]) == (item, platform)]
        prices = [row[5] for row in same if row[5] is not None]
        kinds = Counter(row[4] for row in same if row[4] is not None)
        category = min(kinds, key=lambda kind: (-kinds[kind], kind)) if kinds else None
        expected.append(
            (item, platform, category, statistics.median(prices) if prices else None, count)
        )
    expected.sort(
        key=lambda row: (-row[4], row[0].encode(), row[1] is None, (row[1] or "").encode())
    )
    assert table.rows() == expected


@settings(max_examples=100, deadline=None)
@given(
    rows=LOG, seed=st.randoms(use_true_random=False), kind=st.sampled_from(["timestamp", "column"])
)
def test_any_order_of_the_rows_gives_the_same_bytes(rows, seed, kind):
    shuffled = seed.sample(rows, len(rows))
    one, two = encode(log(rows, kind)), encode(log(shuffled, kind))
    assert one.catalog.table.equals(two.catalog.table)
    assert one.histories.user_ids.equals(two.histories.user_ids)
    for name in ("items", "times", "baskets", "offsets", "prices", "quantities"):
        assert getattr(one.histories, name).tobytes() == getattr(two.histories, name).tobytes()
    assert fingerprint(log(rows)) == fingerprint(log(shuffled))


@settings(max_examples=60, deadline=None)
@given(rows=LOG, changed=st.data())
def test_another_multiset_of_rows_has_another_fingerprint(rows, changed):
    position = changed.draw(st.integers(0, len(rows) - 1))
    other = [*rows[:position], changed.draw(ROW), *rows[position + 1 :]]
    same = Counter((*row[:2], micros(row[2]), *row[3:]) for row in rows) == Counter(
        (*row[:2], micros(row[2]), *row[3:]) for row in other
    )
    assert (fingerprint(log(rows)) == fingerprint(log(other))) == same
    assert fingerprint(log(rows)) != fingerprint(log([*rows, rows[0]]))


def test_a_basket_counts_an_item_once_and_adds_quantities_and_money():
    columns = ("user_id", "item_id", "timestamp", "price", "quantity")
    rows = [("u", "a", 0, 10.0, 1.0), ("u", "a", 0, 4.0, 3.0), ("u", "b", 0, 1.0, 1.0)]
    encoded = encode(log(rows, columns=columns))
    assert encoded.histories.lengths.tolist() == [2]
    assert encoded.histories.quantities.tolist() == [4.0, 1.0]
    assert encoded.histories.prices.tolist() == [(10 * 1 + 4 * 3) / 4, 1.0]
    assert encoded.num_merged == 1


def test_without_quantities_repeats_in_a_basket_become_one():
    columns = ("user_id", "item_id", "timestamp")
    single = encode(log([("u", "a", 0), ("u", "b", 0)], columns=columns))
    assert single.histories.quantities is None
    double = encode(log([("u", "a", 0), ("u", "a", 0)], columns=columns))
    assert double.histories.quantities.tolist() == [2.0]


def test_without_baskets_each_row_is_its_own_in_row_order():
    columns = ("user_id", "item_id", "timestamp")
    rows = [("u", "b", 1), ("u", "a", 1), ("u", "b", 1), ("u", "c", 0)]
    encoded = encode(log(rows, "none", columns))
    bought = encoded.catalog.ids(encoded.histories.items)["item_id"].to_list()
    assert bought == ["c", "b", "a", "b"]
    assert encoded.histories.baskets.tolist() == [0, 1, 2, 3]


def test_a_basket_is_bought_when_its_first_row_is():
    columns = ("user_id", "item_id", "timestamp", "basket_id")
    rows = [
        ("u", "x", 2, "late"),
        ("u", "b", 3, "early"),
        ("u", "a", 1, "early"),
        ("v", "a", 9, "early"),
    ]
    encoded = encode(log(rows, "column", columns))
    assert encoded.histories.times.tolist() == [micros(1), micros(1), micros(2), micros(9)]
    assert encoded.histories.baskets.tolist() == [0, 0, 1, 0]


def test_levels_choose_what_an_item_is():
    nothing = (None, None, None)
    rows = [
        ("u", "a", 0, "Zomato", "food", *nothing),
        ("u", "b", 1, "Zomato", "food", *nothing),
        ("u", "c", 2, "PVR", None, *nothing),
    ]
    assert encode(log(rows)).catalog.table["item_id"].to_list() == ["a", "b", "c"]
    platforms = encode(log(rows), "platform").catalog
    assert platforms.table.select("item_id", "platform", "category", "num_purchases").rows() == [
        ("Zomato", "Zomato", "food", 2), ("PVR", "PVR", None, 1),
    ]  # fmt: skip
    assert platforms.level == "platform"
    categories = encode(log(rows), "category")
    assert categories.catalog.table["item_id"].to_list() == ["food"]
    assert categories.num_left_out == 1
    with pytest.raises(ConfigError, match="brand"):
        encode(log(rows), "brand")
    with pytest.raises(ColumnError, match="needs"):
        encode(log([("u", "a", 0)], columns=("user_id", "item_id", "timestamp")), "platform")


def test_every_row_is_accounted_for_when_histories_are_capped():
    columns = ("user_id", "item_id", "timestamp")
    rows = [("u", f"i{n}", n // 2) for n in range(9)] + [("u", "i8", 4), ("v", "i0", 0)]
    encoded = encode(log(rows, columns=columns), max_history=4)
    assert encoded.histories.lengths.tolist() == [4, 1]
    assert encoded.histories.baskets.tolist() == [0, 1, 1, 2, 0]
    assert len(rows) == encoded.histories.num_purchases + encoded.num_merged + encoded.num_capped
    assert sorted(encoded.catalog.table["item_id"]) == ["i0", "i5", "i6", "i7", "i8"]


@pytest.mark.parametrize("scale", [86_400 * 10**6, 10**6, 1])
def test_times_of_any_resolution_keep_their_order(scale):
    rng = np.random.default_rng(0)
    times = (rng.integers(0, 10**4, 500) * scale + 1_500_000_000_000_000 // scale * scale).tolist()
    users = [f"u{n}" for n in rng.integers(0, 300, 500)]
    frame = pl.DataFrame(
        {"user_id": users, "item_id": ["i"] * 500, "timestamp": times}
    ).with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    counts = RowCounts(rows_in=500, kept=500)
    purchases = Purchases(frame=frame, counts=counts, time_kind="dates", basket_kind="none")
    histories = encode(purchases).histories
    expected = sorted(zip(users, times, strict=True))
    assert [time for _, time in expected] == histories.times.tolist()
    assert [user for user, _ in expected] == [histories.user_ids[int(u)] for u in histories.owners]
