"""What networks are told about items, from the catalog alone.

Legend: V items, A attributes.
"""

from typing import Final

import numpy as np
import polars as pl

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Int64

MOST_GROUPS: Final = 512
"""Items of a catalog have at most so many different cadences."""

_ATTRIBUTES: Final = (columns.PLATFORM, columns.CATEGORY)


def item_groups(catalog: Catalog) -> Int64:
    """Group of each item, [V + 1]: itself, its category or its platform, the finest that fits.

    At most `MOST_GROUPS` groups, numbered from 0 in the order of the catalog; without a category or
    a platform an item is of group 0, and so is padding.
    """
    if len(catalog) <= MOST_GROUPS:
        return np.maximum(np.arange(len(catalog) + 1) - 1, 0)
    for column in (columns.CATEGORY, columns.PLATFORM):
        names = catalog.table[column]
        if 1 < names.n_unique() <= MOST_GROUPS:
            known = names.drop_nulls().unique(maintain_order=True)
            codes = names.replace_strict(known, np.arange(len(known)), default=0)
            return np.append(0, codes.to_numpy()).astype(np.int64)
    return np.zeros(len(catalog) + 1, dtype=np.int64)


def item_codes(catalog: Catalog) -> Int64:
    """What items have in common, [A, V + 1]: their platform and their category, as numbers.

    An attribute is left out where all items have the same, or half of them one of their own.
    Numbers go from 1 in the order of the catalog; 0 is unknown, and padding.
    """
    found = []
    for column in _ATTRIBUTES:
        names = catalog.table[column]
        known = names.drop_nulls().unique(maintain_order=True)
        if 1 < len(known) <= len(catalog) // 2:
            codes = names.replace_strict(
                known, np.arange(1, len(known) + 1), default=0, return_dtype=pl.Int64
            )
            found.append(np.append(0, codes.to_numpy()))
    return np.array(found, dtype=np.int64).reshape(len(found), len(catalog) + 1)
