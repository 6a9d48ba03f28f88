"""Rows that name one item of one basket become one row: quantities add up, money stays the same."""

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import Float32, jagged_rows


def merge_repeats(
    begins: NDArray[np.bool_], prices: Float32 | None, quantities: Float32 | None
) -> tuple[Float32 | None, Float32]:
    """Price and quantity of each run of rows.

    The quantity is the sum, a row without one counting as one unit; the price is the mean a unit,
    so that price times quantity is the money of the run. Sums go from small to large, so that they
    do not depend on the order of the rows.

    Args:
        begins: Where the runs begin, length N; the first is marked.
        prices: A unit, `nan` where unknown; or None.
        quantities: Units, `nan` where unknown; or None.

    Returns:
        One value a run; a run of one row keeps its own, or one unit if no quantities are known.
    """
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(begins)))
    merged = np.ones(len(starts), np.float32) if quantities is None else quantities[starts]
    merged_prices = None if prices is None else prices[starts]
    longer = np.flatnonzero(lengths > 1)
    rows = jagged_rows(starts[longer], lengths[longer])
    heads = np.cumsum(lengths[longer]) - lengths[longer]  # where the longer runs begin in `rows`
    units = np.ones(len(rows)) if quantities is None else _known_units(quantities[rows])
    price = np.full(len(rows), np.nan) if prices is None else prices[rows].astype(np.float64)
    order = np.lexsort((units, price, np.repeat(np.arange(len(longer)), lengths[longer])))
    price, units = price[order], units[order]
    merged[longer] = np.add.reduceat(units, heads)
    if merged_prices is not None:
        is_priced = ~np.isnan(price)
        money = np.add.reduceat(np.where(is_priced, price * units, 0.0), heads)
        priced_units = np.add.reduceat(np.where(is_priced, units, 0.0), heads)
        with np.errstate(divide="ignore", invalid="ignore"):
            merged_prices[longer] = np.where(priced_units != 0, money / priced_units, np.nan)
    return merged_prices, merged


def _known_units(quantities: Float32) -> NDArray[np.float64]:
    units = quantities.astype(np.float64)
    return np.where(np.isnan(units), 1.0, units)
