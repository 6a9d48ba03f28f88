"""Histories from one catalog into another."""

import numpy as np

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import PADDING, UNKNOWN, Histories, Int32


def index_map(old: Catalog, new: Catalog) -> Int32:
    """Index in `new` of each index of `old`, length V + 1; `UNKNOWN` where `new` lacks the item."""
    found = new.indices(old.table[columns.ITEM], old.table[columns.PLATFORM])
    return np.concatenate([[PADDING], found]).astype(np.int32)


def in_catalog(histories: Histories, old: Catalog, new: Catalog) -> Histories:
    """The same histories under the indices of `new`, without purchases that it does not know."""
    items = index_map(old, new)[histories.items]
    return histories.with_items(items).keep(items != UNKNOWN)
