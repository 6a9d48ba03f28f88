"""Stored and live purchases make the history that one log of all of them would make."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy import Predictor
from nextbuy.data.encoding import encode
from nextbuy.data.options import ReadOptions
from nextbuy.data.sources import load_source
from nextbuy.service.live.joining import for_when
from nextbuy.service.live.loaded import LoadedBundle
from nextbuy.service.live.users import history_of
from tests.service.live.shops import LATE, bought, frame_of, full_log, moment, save

ITEMS = ("tea", "milk", "bread", "0042", LATE, "unheard of")


def with_baskets(log: pl.DataFrame) -> pl.DataFrame:
    """Two purchases of a user that follow each other are one basket, whatever their days."""
    return log.sort("user_id", "timestamp", "item_id").with_columns(
        basket_id=pl.format("b{}", pl.int_range(pl.len()).over("user_id") // 2)
    )


SHOPS = {
    "timestamp": (full_log(), ReadOptions()),
    "none": (full_log(), ReadOptions(baskets="none")),
    "column": (with_baskets(full_log()), ReadOptions()),
}


@pytest.fixture(scope="module", params=SHOPS)
def shop(request, tmp_path_factory):
    """The log, how it is read, and its bundle."""
    log, read = SHOPS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    save(folder, log, read)
    loaded = LoadedBundle("000001", Predictor.load(folder), "memory")
    assert loaded.reading.basket_kind == request.param
    assert loaded.unlisted is not None, "the catalog lacks an item of the log"
    return log, read, loaded


def rows_of(histories):
    """Rows that can be compared; a basket has no order of its own."""
    prices = np.nan_to_num(histories.prices, nan=-1.0).round(3).tolist()
    rows = zip(
        histories.baskets.tolist(), histories.times.tolist(), histories.items.tolist(), prices,
        strict=True,
    )  # fmt: skip
    return sorted(rows)


def events_of(histories):
    return set(zip(histories.baskets.tolist(), histories.times.tolist(), strict=True))


live_rows = st.lists(
    st.tuples(
        st.sampled_from(ITEMS),
        st.integers(0, 95),  # days: whole ones, as in the log, so that moments meet
        st.sampled_from([None, 1.0, 2.5]),
        st.sampled_from([None, None, "x", "y"]),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(rows=live_rows, user=st.sampled_from(["u0", "u1", "u2", "nobody"]))
def test_late_and_equal_timestamps_lie_where_one_log_has_them(shop, rows, user):
    log, _, loaded = shop
    kind = loaded.reading.basket_kind
    live = [
        bought(
            user, item, day + (0.25 + n / 100 if kind == "column" else 0), price=price,
            basket_id=None if basket is None or kind != "column" else f"new {basket}",
        )
        for n, (item, day, price, basket) in enumerate(rows)
    ]  # fmt: skip
    found = history_of(loaded.stored_rows(loaded.place_of(user)), live, loaded)
    mine = loaded.histories([user], [found.rows])
    whole = loaded.histories([user], [for_when(found.whole)])

    union = pl.concat([log.filter(pl.col("user_id") == user), frame_of(live)], how="diagonal")
    if union.is_empty():
        assert len(mine.items) == 0
        return
    options = ReadOptions(baskets=kind)
    twin, _ = loaded.predictor.encode_histories(union, options)
    assert rows_of(mine) == rows_of(twin)
    everything = encode(load_source(union, options=options).purchases).histories
    assert events_of(whole) == events_of(everything)
    unheard = {p.item_id for p in live} & {LATE, "unheard of"}
    assert set(found.ignored) == unheard


def test_what_is_sent_again_in_a_basket_counts_once(shop):
    *_, loaded = shop
    rows = [bought("x", "tea", 1, price=1.0), bought("x", "tea", 1, price=3.0)]
    found = history_of(loaded.stored_rows(None), rows, loaded).rows
    if loaded.reading.basket_kind == "none":
        assert found.prices.tolist() == [1.0, 3.0]
    else:
        assert found.prices.tolist() == [2.0]


def test_without_dates_what_is_new_follows_what_is_old(tmp_path):
    log = full_log().sort("timestamp").select("user_id", "item_id")
    log = log.with_columns(timestamp=pl.int_range(pl.len()).over("user_id"))
    save(tmp_path, log, ReadOptions(time="order"))
    loaded = LoadedBundle("000001", Predictor.load(tmp_path), "memory")
    stored = loaded.stored_rows(loaded.place_of("u1"))
    live = [bought("u1", "tea", 5), bought("u1", "milk", 3), bought("u1", "rice", 5)]
    found = history_of(stored, live, loaded).rows
    n = len(stored)
    names = [loaded.reading.lookup.item_ids[item - 1] for item in found.items[n:]]
    assert found.items[:n].tolist() == stored.items.tolist()
    assert [names[0], *sorted(names[1:])] == ["milk", "rice", "tea"]
    last_time, last_basket = int(stored.times[-1]), int(stored.baskets[-1])
    assert (found.times[n:] - last_time).tolist() == [1, 2, 2]
    assert (found.baskets[n:] - last_basket).tolist() == [1, 2, 2]


def test_only_the_newest_ten_thousand_are_kept(shop):
    *_, loaded = shop
    rows = [bought("x", "tea", n) for n in range(10_003)]
    found = history_of(loaded.stored_rows(None), rows, loaded).rows
    assert len(found) == 10_000
    assert int(found.times[0]) == moment(3)
    assert int(found.baskets[0]) == 0


@pytest.mark.parametrize(
    ("level", "expected"), [("category", ["drink"]), ("platform", ["web", "web"])]
)
def test_purchases_are_read_at_the_level_of_the_bundle(tmp_path, level, expected):
    save(tmp_path, full_log(), level=level)
    loaded = LoadedBundle("000001", Predictor.load(tmp_path), "memory")
    rows = [bought("x", "tea", 1), bought("x", "new soap", 2, platform="web")]
    found = history_of(loaded.stored_rows(None), rows, loaded)
    names = [loaded.reading.lookup.item_ids[item - 1] for item in found.rows.items]
    assert names == expected
    assert found.ignored == (("new soap",) if level == "category" else ())


def test_an_item_whose_platform_is_not_told_is_the_most_frequent_of_its_id(tmp_path):
    log = full_log().with_columns(
        platform=pl.when(pl.col("item_id") == "tea")
        .then(pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("app")).otherwise(pl.lit("web")))
        .otherwise(pl.col("platform"))
    )
    save(tmp_path, log)
    loaded = LoadedBundle("000001", Predictor.load(tmp_path), "memory")
    lookup = loaded.reading.lookup
    place = lookup.index_of(bought("x", "tea", 1, platform=None)) - 1
    assert (lookup.item_ids[place], lookup.platforms[place]) == ("tea", "web")
    assert lookup.index_of(bought("x", "tea", 1, platform="elsewhere")) == -1
