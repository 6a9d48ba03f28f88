"""Items of a catalog by what a purchase says of them, and back, by dictionaries made once."""

from collections.abc import Sequence

import numpy as np

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN, Int32
from nextbuy.service.purchases import LivePurchase


class ItemLookup:
    """Catalog index of what was bought.

    Where the catalog tells platforms apart, an item on another platform is another item, and one
    whose platform is not told is the most frequent of its id.

    Attributes:
        item_ids: Of the items 1..V, length V, as are the following.
        platforms: Or None.
        categories: Or None.
    """

    def __init__(self, catalog: Catalog) -> None:
        table = catalog.table
        self.item_ids: list[str] = table[columns.ITEM].to_list()
        self.platforms: list[str | None] = table[columns.PLATFORM].to_list()
        self.categories: list[str | None] = table[columns.CATEGORY].to_list()
        self._level = catalog.level
        self._tells_platforms = any(platform is not None for platform in self.platforms)
        indices = range(1, len(self.item_ids) + 1)
        pairs = zip(self.item_ids, self.platforms, strict=True)
        self._by_pair = dict(zip(pairs, indices, strict=True)) if self._tells_platforms else {}
        # The most frequent row of an id comes first, so it has to be written last.
        self._by_id = dict(zip(reversed(self.item_ids), reversed(indices), strict=True))

    def indices_of(self, purchases: Sequence[LivePurchase]) -> Int32:
        """Index of each; see `index_of`."""
        if self._level == "item" and self._tells_platforms:
            by_pair, by_id = self._by_pair.get, self._by_id.get
            found = [  # the usual case, without a call a purchase
                by_pair((p.item_id, p.platform), 0)
                or (by_id(p.item_id, UNKNOWN) if p.platform is None else UNKNOWN)
                for p in purchases
            ]
            return np.array(found, dtype=np.int32)
        return np.array([self.index_of(p) for p in purchases], dtype=np.int32)

    def index_of(self, purchase: LivePurchase) -> int:
        """Index 1..V of what was bought, at the level of the catalog; `UNKNOWN` if it has none."""
        name: str | None = purchase.item_id
        if self._level != "item":
            name = purchase.category if self._level == "category" else purchase.platform
        if name is None:
            return UNKNOWN
        if self._tells_platforms:
            found = self._by_pair.get((name, purchase.platform))
            if found is not None or purchase.platform is not None:
                return UNKNOWN if found is None else found
        return self._by_id.get(name, UNKNOWN)
