"""Small logs for the tests of the splits."""

import polars as pl
from hypothesis import strategies as st

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories

DAY = 86_400_000_000


def catalog_of(num_items):
    """Items a, b, c, ...: index 1 is a."""
    ids = [chr(ord("a") + i) for i in range(num_items)]
    return Catalog(
        table=pl.DataFrame(
            {
                "item_id": ids,
                "platform": [None] * num_items,
                "category": [None] * num_items,
                "price": [None] * num_items,
                "num_purchases": [0] * num_items,
            },
            schema={
                "item_id": pl.String,
                "platform": pl.String,
                "category": pl.String,
                "price": pl.Float64,
                "num_purchases": pl.Int64,
            },
        )
    )


def log_of(*users):
    """Histories from one list of (day, items) baskets a user."""
    rows = [[(day, i, b) for b, (day, items) in enumerate(u) for i in items] for u in users]
    return Histories.from_lists(
        [[i for _, i, _ in row] for row in rows],
        times=[[int(day * DAY) for day, _, _ in row] for row in rows],
        baskets=[[b for _, _, b in row] for row in rows],
    )


def names(split, indices):
    """Ids of item indices of the split's catalog, `?` for unknown."""
    return [split.catalog.table["item_id"][int(i) - 1] if i > 0 else "?" for i in indices]


def bought(split, histories):
    """{user: ids in order}."""
    return {
        user: names(split, histories.items[histories.offsets[u] : histories.offsets[u + 1]])
        for u, user in enumerate(histories.user_ids)
    }


def asked(split, cases):
    """{user: (visible ids, set of target ids)}."""
    visible = bought(split, cases.histories)
    return {
        user: (
            visible[user],
            sorted(
                names(
                    split, cases.target_items[cases.target_offsets[c] : cases.target_offsets[c + 1]]
                )
            ),
        )
        for c, user in enumerate(cases.histories.user_ids)
    }


baskets = st.tuples(st.integers(0, 40), st.lists(st.integers(1, 5), min_size=1, max_size=3))
logs = st.lists(
    st.lists(baskets, max_size=6).map(lambda user: sorted(user, key=lambda b: b[0])),
    min_size=1,
    max_size=8,
)
