"""Where baskets begin, and how a question with its answer is cut out of a history.

Legend: U users, N purchases, C cases. Rows are positions in the flat arrays of the histories.
"""

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.catalog import Catalog, recount
from nextbuy.data.histories import Float32, Histories, Int32, Int64, offsets_of
from nextbuy.splitting.cases import Cases


def basket_starts(histories: Histories) -> Int64:
    """The first row of every basket of every user, ascending."""
    is_start = np.ones(len(histories.items), dtype=np.bool_)
    is_start[1:] = histories.baskets[1:] != histories.baskets[:-1]
    is_start[histories.offsets[:-1][histories.lengths > 0]] = True
    return np.flatnonzero(is_start)


def basket_ends(starts: Int64, rows: Int64, num_rows: int) -> Int64:
    """The row after the basket that each of `rows` lies in; `starts` is from `basket_starts`."""
    return np.append(starts, num_rows)[np.searchsorted(starts, rows, side="right")]


def first_rows_from(histories: Histories, moment: int) -> Int64:
    """Each user's first row at or after a moment, length U; the user's end where there is none."""
    low, high = histories.offsets[:-1].copy(), histories.offsets[1:].copy()
    last = max(0, len(histories.times) - 1)
    while (low < high).any():  # times ascend, so halving finds it in few looks at a mapped array
        middle = (low + high) // 2
        is_before = (low < high) & (histories.times[np.minimum(middle, last)] < moment)
        low, high = np.where(is_before, middle + 1, low), np.where(is_before, high, middle)
    return low


def train_rows(histories: Histories, ends: Int64, new_index: Int32) -> Histories:
    """What each user bought before a row of their own, `ends` of length U; without empty users."""
    users = np.flatnonzero(ends > histories.offsets[:-1])
    train = histories.heads(users, ends[users])
    return train.with_items(new_index[train.items])


def catalog_before(catalog: Catalog, histories: Histories, ends: Int64) -> tuple[Catalog, Int32]:
    """The catalog recounted from what each user bought before a row of their own (length U)."""
    return recount(catalog, histories.item_counts(len(catalog), ends))


def build_cases(
    histories: Histories,
    users: Int64,
    answer_starts: Int64,
    answer_ends: Int64,
    *,
    new_index: Int32,
    as_of: Int64 | None,
    until: int | None = None,
) -> Cases:
    """Cases whose history is what lies before a row, and whose answer starts at that row.

    Args:
        histories: The whole log.
        users: Position of each case's user, length C.
        answer_starts: First row of each answer; the user's rows before it are visible.
        answer_ends: The row after each answer; never another user's.
        new_index: From item index in `histories` to item index in the split's catalog, with
            `UNKNOWN` for items that it lacks. Every visible item must be in the catalog.
        as_of: When each case is asked, length C; None when time is only an order.
        until: End of the period in which answers count.
    """
    visible = histories.heads(users, answer_starts)
    items, values, lengths = _distinct_answers(histories, answer_starts, answer_ends, new_index)
    has_dates = histories.time_kind == "dates"
    return Cases(
        histories=visible.with_items(new_index[visible.items]),
        as_of=as_of,
        target_items=items,
        target_offsets=offsets_of(lengths),
        target_values=values,
        target_times=histories.times[answer_starts] if has_dates else None,
        until=until,
    )


def last_baskets(
    histories: Histories, users: Int64, answer_starts: Int64, answer_ends: Int64, new_index: Int32
) -> Cases:
    """Cases that are asked at the moment of their answer, or at none when time is only an order."""
    return build_cases(
        histories,
        users,
        answer_starts,
        answer_ends,
        new_index=new_index,
        as_of=histories.times[answer_starts] if histories.time_kind == "dates" else None,
    )


def _distinct_answers(
    histories: Histories, starts: Int64, ends: Int64, new_index: Int32
) -> tuple[Int32, Float32 | None, Int64]:
    """Items, money and number of items of each answer; an item counts once, its money adds up.

    Items that the catalog lacks stay apart, so that two of them are two misses.
    """
    lengths = ends - starts
    rows = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    case = np.repeat(np.arange(len(starts)), lengths)
    width = len(new_index)
    keys, inverse = np.unique(case * width + histories.items[rows], return_inverse=True)
    case, items = keys // width, new_index[keys % width]
    # The old indices know the whole log; an order by them would, too.
    order = np.lexsort((items, case))
    values = _values(histories, rows, inverse, len(keys))
    return (
        items[order].astype(np.int32),
        None if values is None else values[order],
        np.bincount(case, minlength=len(starts)).astype(np.int64),
    )


def _values(
    histories: Histories, rows: Int64, groups: NDArray[np.integer], num_groups: int
) -> Float32 | None:
    """Price times quantity, summed over rows of known price; `nan` where no price is known.

    A missing quantity is one unit.
    """
    if histories.prices is None:
        return None
    prices = histories.prices[rows].astype(np.float64)
    if histories.quantities is not None:
        quantities = histories.quantities[rows]
        prices = prices * np.where(np.isnan(quantities), 1.0, quantities)
    known = ~np.isnan(prices)
    sums = np.bincount(groups, weights=np.where(known, prices, 0.0), minlength=num_groups)
    counts = np.bincount(groups, weights=known, minlength=num_groups)
    return np.where(counts > 0, sums, np.nan).astype(np.float32)
