"""The order of a log: by user, time and basket, the same for every order of its rows.

Legend: N rows. All keys are integers; strings were coded before.
"""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextbuy.data.coding import MISSING
from nextbuy.data.histories import Int32, Int64, jagged_rows

_UNITS: Final = (86_400_000_000, 1_000_000, 1_000)
_KEY_BITS: Final = 62


def sort_rows(users: Int32, times: Int64, last: Int32 | Int64) -> Int64:
    """Positions of the rows in the order (user, time, last)."""
    if not len(users):
        return np.zeros(0, np.int64)
    ticks = _coarsest(times)
    user_bits, time_bits = _bits(users), _bits(ticks)
    if user_bits + time_bits > _KEY_BITS:
        return np.lexsort((last, times, users))
    key = (users.astype(np.int64) << time_bits) | ticks
    order: Int64 = pl.Series(key).arg_sort().to_numpy().astype(np.int64)
    return _settle_ties(order, key[order], last)


def start_baskets_together(
    order: Int64, users: Int32, baskets: Int32, times: Int64
) -> tuple[Int64, Int64, NDArray[np.bool_]]:
    """Bring the rows of each basket together, at the time of its first row.

    Args:
        order: The rows in the order (user, time, last).
        users: User of each row, as are the next two.
        baskets: Code of its basket; rows with `MISSING` are one basket a timestamp.
        times: When it was bought.

    Returns:
        The new order, the time of each row in it, and where in it baskets begin.
    """
    user, basket, time = users[order], baskets[order], times[order]
    apart = np.where(basket == MISSING, time, np.int64(0))
    grouped = np.lexsort((np.arange(len(order)), apart, basket, user))
    begins = first_of_runs(user[grouped], basket[grouped], apart[grouped])
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(order)))
    first_time = time[grouped[starts]]
    by_time = np.lexsort((apart[grouped[starts]], basket[grouped[starts]], first_time,
                          user[grouped[starts]]))  # fmt: skip
    rows = jagged_rows(starts[by_time], lengths[by_time])
    begins_now = np.zeros(len(order), dtype=bool)
    if len(order):
        begins_now[np.concatenate([[0], np.cumsum(lengths[by_time])[:-1]])] = True
    return order[grouped[rows]], np.repeat(first_time[by_time], lengths[by_time]), begins_now


def first_of_runs(*keys: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Where any of the keys differs from the row before; the first row always does."""
    begins = np.ones(len(keys[0]), dtype=bool)
    if len(begins):
        begins[1:] = keys[0][1:] != keys[0][:-1]
        for key in keys[1:]:
            begins[1:] |= key[1:] != key[:-1]
    return begins


def _coarsest(times: Int64) -> Int64:
    """Times from zero in the largest unit that is exact: days and seconds need few bits."""
    for unit in _UNITS:
        if times[0] % unit == 0 and not (times % unit).any():
            return _from_zero(times // unit)
    return _from_zero(times)


def _from_zero(times: Int64) -> Int64:
    moved: Int64 = times - times.min()
    return moved


def _bits(values: Int32 | Int64) -> int:
    return int(values.max()).bit_length()


def _settle_ties(order: Int64, sorted_key: Int64, last: Int32 | Int64) -> Int64:
    """Sort the rows of equal keys by `last`; the others stay."""
    is_tie = sorted_key[1:] == sorted_key[:-1]
    if not is_tie.any():
        return order
    in_run = np.zeros(len(order), dtype=bool)
    in_run[1:] |= is_tie
    in_run[:-1] |= is_tie
    positions = np.flatnonzero(in_run)
    rows = order[positions]
    order[positions] = rows[np.lexsort((last[rows], sorted_key[positions]))]
    return order
