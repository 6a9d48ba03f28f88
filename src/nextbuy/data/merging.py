"""Rows that name one item of one basket become one row: quantities add up, money stays the same."""

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import Float32


def merge_repeats(
    begins: NDArray[np.bool_], prices: Float32 | None, quantities: Float32 | None
) -> tuple[Float32 | None, Float32]:
    """Price and quantity of each run of rows.

    The quantity is the sum, a row without one counting as one unit; the price is the mean a unit,
    so that price times quantity is the money of the run. Sums go from small to large, so that they
    do not depend on the order of the rows.

    Args:
        begins: Where the runs begin, length N.
        prices: A unit, `nan` where unknown; or None.
        quantities: Units, `nan` where unknown; or None.

    Returns:
        One value a run; a run of one row keeps its own.
    """
    starts = np.flatnonzero(begins)
    run = np.cumsum(begins) - 1
    lengths = np.diff(np.append(starts, len(begins)))
    none = np.full(len(begins), np.nan, dtype=np.float64)
    price = none if prices is None else prices.astype(np.float64)
    given = none if quantities is None else quantities.astype(np.float64)
    units = np.where(np.isnan(given), 1.0, given)
    order = np.lexsort((units, price, run))
    price, units = price[order], units[order]
    is_known = ~np.isnan(price)
    total_units = np.add.reduceat(units, starts)
    priced_units = np.add.reduceat(np.where(is_known, units, 0.0), starts)
    money = np.add.reduceat(np.where(is_known, price * units, 0.0), starts)
    num_priced = np.add.reduceat(is_known.astype(np.int64), starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where((num_priced > 0) & (priced_units != 0), money / priced_units, np.nan)
    is_single = lengths == 1
    merged_quantity = total_units if quantities is None else np.where(
        is_single, given[starts], total_units)  # fmt: skip
    if prices is None:
        return None, merged_quantity.astype(np.float32)
    merged_price = np.where(is_single, prices[starts].astype(np.float64), mean)
    return merged_price.astype(np.float32), merged_quantity.astype(np.float32)
