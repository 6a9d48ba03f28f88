"""Items by what a purchase says of them."""

import polars as pl

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN
from nextbuy.service.live.lookup import ItemLookup
from nextbuy.service.purchases import LivePurchase


def test_an_item_is_found_with_its_platform_without_one_and_not_with_another():
    catalog = Catalog(
        table=pl.DataFrame(
            {
                "item_id": ["tea", "milk", "tea", "bread"],
                "platform": ["north", "north", "south", None],
                "category": [None] * 4,
                "price": [1.0] * 4,
                "num_purchases": [4, 3, 2, 1],
            }
        )
    )
    asked = [
        ("tea", "south"), ("tea", None), ("milk", "south"), ("bread", None), ("rice", None),
        ("rice", "north"),
    ]  # fmt: skip
    purchases = [
        LivePurchase(user_id="u", item_id=item, timestamp=0, platform=platform)
        for item, platform in asked
    ]
    lookup = ItemLookup(catalog)
    expected = [3, 1, UNKNOWN, 4, UNKNOWN, UNKNOWN]
    assert lookup.indices_of(purchases).tolist() == expected
    assert [lookup.index_of(purchase) for purchase in purchases] == expected
