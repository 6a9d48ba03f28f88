"""Split at one moment for all users, so that nothing is learned from the future."""

from datetime import datetime
from typing import Final

import numpy as np

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import DAY, Histories, Int32, Int64
from nextbuy.data.times import microseconds_of
from nextbuy.errors import SplitError
from nextbuy.splitting.baskets import (
    basket_ends,
    basket_starts,
    build_cases,
    catalog_before,
    first_rows_from,
    train_rows,
)
from nextbuy.splitting.cases import Cases, Split

Moment = datetime | int
"""A datetime (UTC where it names no zone) or UTC microseconds."""

ENOUGH_CASES: Final = 100
"""The automatic cut-offs widen the periods until each has so many cases, if they can."""

_PERIOD_SHARES: Final = (0.10, 0.15, 0.20, 0.25, 0.30)
# One stray date stretches the span; these shares of the rows bound what it can do to the periods.
_LEAST_ROWS, _MOST_ROWS = 0.05, 0.25


def split_by_time(
    catalog: Catalog,
    histories: Histories,
    *,
    test_start: Moment | None = None,
    validation_start: Moment | None = None,
    test_days: float | None = None,
    include_new_users: bool = False,
) -> Split:
    """Learn before one moment, choose in the period after it, test in the period after that.

    A case is a user's first basket in its period, given everything before the period; a purchase
    exactly at a cut-off belongs to the later side, and a basket that a cut-off cuts through is
    visible up to it. The catalog is recounted from what lies before `test_start`.

    Args:
        catalog: Of the whole log.
        histories: Of the whole log; time must be dates.
        test_start: First moment of the test period.
        validation_start: First moment of the validation period; without it the validation period is
            as long as the test period, but leaves at least half of the rows to train on.
        test_days: Instead of `test_start`: days from `test_start` to the last purchase.
        include_new_users: Also ask about users with nothing before the cut-off. They are left out
            otherwise, and counted in the description.

    Without any cut-off the last 10 % of the span is the test period and the 10 % before it the
    validation period, more (up to 30 % each) if either has fewer than `ENOUGH_CASES` cases.

    Raises:
        SplitError: If time is only an order, or a side would be empty.
    """
    if histories.time_kind != "dates":
        raise SplitError(
            "A temporal split needs dates, but this log has only an order of purchases. "
            "Choose --split leave-last-out."
        )
    if histories.num_purchases == 0:
        raise SplitError("There are 0 purchases to split. Check the input with: nextbuy doctor")
    if test_start is not None and test_days is not None:
        raise SplitError("Both test_start and test_days were given; they say the same: give one.")
    validation, test, how = _cutoffs(histories, validation_start, test_start, test_days)
    return _split_at(catalog, histories, validation, test, how, include_new_users=include_new_users)


def split_after(catalog: Catalog, histories: Histories, moment: int) -> Split:
    """The automatic split, with both cut-offs moved on where the test would not begin later.

    Args:
        catalog: Of the whole log.
        histories: Of the whole log.
        moment: UTC microseconds; the first test purchase lies later.

    Raises:
        SplitError: As `split_by_time` does, so if nothing lies after the moment.
    """
    if histories.time_kind != "dates":
        return split_by_time(catalog, histories)  # which refuses
    test, validation = automatic_cutoffs(histories)
    moved = max(0, moment + 1 - test)
    return split_by_time(
        catalog, histories, test_start=test + moved, validation_start=validation + moved
    )


def split_since(catalog: Catalog, histories: Histories, moment: int) -> Split:
    """Learn up to a moment, choose on the older half of the purchases after it, test on the rest.

    For models that have learnt from all that lies before the moment already.

    Args:
        catalog: Of the whole log.
        histories: Of the whole log.
        moment: UTC microseconds; the first purchase to choose on lies later.

    Raises:
        SplitError: As `split_by_time` does, so if nothing lies after the moment.
    """
    later = histories.times[histories.times > moment]
    middle = int(np.median(later)) if len(later) else moment
    return split_by_time(
        catalog, histories, test_start=max(middle, moment + 2), validation_start=moment + 1
    )


def _cutoffs(
    histories: Histories,
    validation_start: Moment | None,
    test_start: Moment | None,
    test_days: float | None,
) -> tuple[int, int, str]:
    """Start of validation and of the test, and how they came about."""
    start, chosen = _microseconds(test_start), _microseconds(validation_start)
    last = int(histories.times.max())
    if test_days is not None:
        start = last - round(test_days * DAY)
    how = "as told"
    if start is None:
        first_test, first_validation = automatic_cutoffs(histories)
        start, how = first_test, "chosen automatically"
        chosen = first_validation if chosen is None else chosen
    if chosen is None:
        before = np.append(histories.times[histories.times < start], start - 1)
        chosen = max(start - max(last - start, 1), int(np.median(before)))
    return chosen, start, how


def _split_at(
    catalog: Catalog,
    histories: Histories,
    validation_start: int,
    test_start: int,
    how: str,
    *,
    include_new_users: bool,
) -> Split:
    _refuse_empty_sides(histories, validation_start, test_start)
    test_rows = first_rows_from(histories, test_start)
    known, new_index = catalog_before(catalog, histories, test_rows)
    end = int(histories.times.max()) + 1
    train = train_rows(histories, first_rows_from(histories, validation_start), new_index)
    before_test = train_rows(histories, test_rows, new_index)
    validation, validation_new = _cases_between(
        histories, validation_start, test_start, new_index, include_new_users=include_new_users
    )
    test, test_new = _cases_between(
        histories, test_start, end, new_index, include_new_users=include_new_users
    )
    for name, cases, new in (("validation", validation, validation_new), ("test", test, test_new)):
        if len(cases) == 0:
            raise SplitError(
                f"The {name} period from {_date(validation_start)} (validation) and "
                f"{_date(test_start)} (test) has no user with earlier purchases ({new} new users). "
                "Move the cut-offs, include new users, or choose --split leave-last-out."
            )
    fate = "asked about with an empty history" if include_new_users else "left out"
    description = (
        f"One moment for all users ({how}): trained on {train.num_purchases} purchases of "
        f"{len(train)} users before {_date(validation_start)}, chosen on the first baskets of "
        f"{len(validation)} users from then, tested on the first baskets of {len(test)} users from "
        f"{_date(test_start)} to {_date(end - 1)}. New users ({validation_new} in validation, "
        f"{test_new} in test) are {fate}. The catalog is what was bought before the test period."
    )
    return Split(
        name="temporal",
        description=description,
        catalog=known,
        train=train,
        validation=validation,
        test=test,
        before_test=before_test,
    )


def _cases_between(
    histories: Histories, start: int, end: int, new_index: Int32, *, include_new_users: bool
) -> tuple[Cases, int]:
    """The cases of the period [start, end), and how many of its users are new."""
    starts, ends = first_rows_from(histories, start), first_rows_from(histories, end)
    bought = starts < ends
    new = bought & (starts == histories.offsets[:-1])
    users = np.flatnonzero(bought if include_new_users else bought & ~new)
    basket_end = basket_ends(basket_starts(histories), starts[users], len(histories.items))
    cases = build_cases(
        histories,
        users,
        starts[users],
        np.minimum(basket_end, ends[users]),
        new_index=new_index,
        as_of=np.full(len(users), start, dtype=np.int64),
        until=end,
    )
    return cases, int(new.sum())


def automatic_cutoffs(histories: Histories) -> tuple[int, int]:
    """`test_start` and `validation_start` that leave enough to learn from and enough to ask.

    Each period is a share of the span, the smallest that gives `ENOUGH_CASES` cases in both, and
    holds between 5 % and 25 % of the rows. Cut-offs fall on midnight UTC if periods last days.
    Only times are looked at, never items.

    Raises:
        SplitError: If no cut-off leaves cases in both periods.
    """
    first, last = int(histories.times.min()), int(histories.times.max())
    best: tuple[int, int, int] = (0, 0, 0)
    bounds = {skip: _bounds(histories, skip) for skip in (1, 2)}
    for share in _PERIOD_SHARES:
        period = round((last - first) * share)
        test_start = _bounded(bounds[1], last - period, period)
        validation_start = _bounded(bounds[2], test_start - period, period)
        if not first < validation_start < test_start <= last:
            continue
        cases = min(
            _num_asked(histories, validation_start, test_start),
            _num_asked(histories, test_start, last + 1),
        )
        if cases > best[0]:
            best = (cases, test_start, validation_start)
        if cases >= ENOUGH_CASES:
            break
    if best[0] == 0:
        raise SplitError(
            f"No moment between {_date(first)} and {_date(last)} leaves purchases of the same users"
            f" before and after it ({histories.num_purchases} purchases of {len(histories)} users)."
            " Give --test-start yourself or choose --split leave-last-out."
        )
    return best[1], best[2]


def _bounds(histories: Histories, skip: int) -> tuple[int, int]:
    """The moments from which on lie `skip` times the most and the least rows of a period."""
    num_rows = len(histories.times)
    low, high = (int(num_rows * (1 - skip * share)) for share in (_MOST_ROWS, _LEAST_ROWS))
    high = min(high, num_rows - 1)
    ordered = np.partition(histories.times, (low, high))
    return int(ordered[low]), int(ordered[high])


def _bounded(bounds: tuple[int, int], moment: int, period: int) -> int:
    """The moment, moved between the bounds, and to midnight if periods last days."""
    moment = min(max(moment, bounds[0]), bounds[1])
    return moment - moment % DAY if period >= 2 * DAY else moment


def _num_asked(histories: Histories, start: int, end: int) -> int:
    starts = first_rows_from(histories, start)
    bought = starts < first_rows_from(histories, end)
    return int((bought & (starts > histories.offsets[:-1])).sum())


def _refuse_empty_sides(histories: Histories, validation_start: int, test_start: int) -> None:
    times: Int64 = histories.times
    before = int((times < validation_start).sum())
    between = int(((times >= validation_start) & (times < test_start)).sum())
    after = len(times) - before - between
    if validation_start >= test_start or 0 in (before, between, after):
        raise SplitError(
            f"Cut-offs {_date(validation_start)} (validation) and {_date(test_start)} (test) leave "
            f"{before} purchases to learn from, {max(between, 0)} for validation and {after} for "
            f"the test. Purchases run from {_date(int(times.min()))} to {_date(int(times.max()))}; "
            "choose cut-offs in between, validation before test."
        )


def _microseconds(moment: Moment | None) -> int | None:
    return microseconds_of(moment) if isinstance(moment, datetime) else moment


def _date(moment: int) -> str:
    return str(np.datetime64(moment, "us").astype("datetime64[s]")).replace("T", " ") + " UTC"
