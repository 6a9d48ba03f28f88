"""The order of a log: by user, time and basket, the same for every order of its rows.

Legend: N rows. All keys are integers; strings were coded before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.coding import MISSING
from nextbuy.data.histories import Int32, Int64, jagged_rows

_UNITS: Final = (86_400_000_000, 1_000_000, 1_000)
_BLOCK: Final = 1 << 17


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SortedRows:
    """Rows in the order (user, time, last).

    Attributes:
        order: Where each row was before.
        users: User of each row, in the new order, as are the next two.
        times: When it was bought.
        last: What settled ties.
    """

    order: Int64
    users: Int32
    times: Int64
    last: Int64


def sort_rows(users: Int32, times: Int64, last: Int32 | Int64) -> SortedRows:
    """Sort by user, then time, then `last`; the order of rows that are equal in all is arbitrary.

    What fits into one 64-bit key is sorted by one fast sort and read off the sorted keys, which
    saves looking rows up all over memory. Ties that a shorter key leaves are settled afterwards.
    """
    if not len(users):
        nothing = np.zeros(0, np.int64)
        return SortedRows(order=nothing, users=users, times=times, last=nothing)
    unit, first = _coarsest_unit(times), int(times.min())
    time_bits = ((int(times.max()) - first) // unit).bit_length()
    last_bits = int(last.max()).bit_length()
    free = 63 - int(users.max()).bit_length() - time_bits
    if free < 0:
        order = np.lexsort((last, times, users))
        return SortedRows(
            order=order, users=users[order], times=times[order], last=last[order].astype(np.int64)
        )
    if free < last_bits:
        last_bits = 0
    key = np.empty(len(users), dtype=np.int64)
    for block in _blocks(len(users)):
        key[block] = (users[block].astype(np.int64) << time_bits) | (times[block] - first) // unit
        if last_bits:
            key[block] = (key[block] << last_bits) | last[block]
    order = np.argsort(key)
    key.sort()
    if not last_bits:
        order = _settle_ties(order, key, last)
    sorted_users, sorted_times = np.empty_like(users), np.empty_like(times)
    for block in _blocks(len(users)):
        sorted_users[block] = key[block] >> (time_bits + last_bits)
        ticks = (key[block] >> last_bits) & ((1 << time_bits) - 1)
        sorted_times[block] = ticks * unit + first
    if last_bits:
        key &= (1 << last_bits) - 1
    else:
        key = last[order].astype(np.int64)
    return SortedRows(order=order, users=sorted_users, times=sorted_times, last=key)


def gather_baskets(rows: SortedRows, baskets: Int32) -> tuple[SortedRows, NDArray[np.bool_]]:
    """Bring the rows of each basket together, at the time of its first row.

    Args:
        rows: Sorted, with the entry as `last`.
        baskets: Code of the basket of each row in its old order; rows with `MISSING` are one basket
            a timestamp.

    Returns:
        The rows by (user, time of the basket, basket, entry), and where baskets begin.
    """
    user, time, basket = rows.users, rows.times, baskets[rows.order]
    apart = np.where(basket == MISSING, time, np.int64(0))
    grouped = np.lexsort((rows.last, apart, basket, user))
    begins = first_of_runs(user[grouped], basket[grouped], apart[grouped])
    starts = np.flatnonzero(begins)
    heads = grouped[starts]
    lengths = np.diff(np.append(starts, len(grouped)))
    first_time = np.minimum.reduceat(time[grouped], starts)
    by_time = np.lexsort((apart[heads], basket[heads], first_time, user[heads]))
    places = grouped[jagged_rows(starts[by_time], lengths[by_time])]
    begins_now = np.zeros(len(grouped), dtype=bool)
    begins_now[np.cumsum(lengths[by_time]) - lengths[by_time]] = True
    moved = SortedRows(
        order=rows.order[places],
        users=user[places],
        times=np.repeat(first_time[by_time], lengths[by_time]),
        last=rows.last[places],
    )
    return moved, begins_now


def first_of_runs(*keys: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Where any of the keys differs from the row before; the first row always does."""
    begins = np.ones(len(keys[0]), dtype=bool)
    if len(begins):
        begins[1:] = keys[0][1:] != keys[0][:-1]
        for key in keys[1:]:
            begins[1:] |= key[1:] != key[:-1]
    return begins


def _coarsest_unit(times: Int64) -> int:
    """The largest unit that counts the times from the first exactly: days need few bits."""
    for unit in _UNITS:
        if all(not ((times[block] - times[0]) % unit).any() for block in _blocks(len(times))):
            return unit
    return 1


def _blocks(num_rows: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, num_rows, _BLOCK))


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
