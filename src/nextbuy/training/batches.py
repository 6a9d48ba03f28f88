"""Batches: every purchase of every history once an epoch, almost without padding.

Long histories are cut into windows. Windows of one length class go together, so that a batch is
(nearly) a rectangle; a batch holds about `tokens` positions. All of it is array arithmetic on
histories that may be memory-mapped; nothing loops over rows in Python.

A purchase is asked of the state before its basket, because that is what prediction will ask: of
the other purchases of the basket nothing is known then.

Legend: W windows, B windows of a batch, L positions, M states that are asked, N targets.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import DAY, Float32, Histories, Int32, Int64
from nextbuy.errors import TrainingError
from nextbuy.nn.own_items import OwnItems, PurchaseFacts, own_items
from nextbuy.nn.transformer import NUM_GAPS
from nextbuy.seeding import generator
from nextbuy.splitting.baskets import basket_starts

_HOUR: Final = DAY // 24
_BLOCK: Final = 1 << 22


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Batch:
    """One optimizer step's worth of examples.

    Attributes:
        inputs: Purchase before each position, [B, L]; 0 where there is none.
        marks: 1 where the position opens a new basket, [B, L].
        targets: Purchase at each position, [B, L]; 0 where the row has ended.
        openings: Position of its row at which the basket of each position begins, [B, L].
        gaps: Bucket of the time between the two purchases before each position, [B, L]; None where
            time is only an order.
        days: From the purchase before each position to the moment when the position is asked, which
            lies between it and the position's own and is drawn (see `Asking`), [B, L]; `nan` where
            there is none before. None where time is only an order.
        moments: These moments, UTC microseconds, [B, L]; or None.
        weights: How much the targets of a basket that is opened at a position count, [B, L]; None
            where each target counts once.
        own: Own items of the states of `questions()`, where they were asked for.
        asked: What `questions()` gives, where it is known already.
    """

    inputs: Int64
    marks: Int64
    targets: Int64
    openings: Int64
    gaps: Int64 | None = None
    days: Float32 | None = None
    moments: Int64 | None = None
    weights: Float32 | None = None
    own: OwnItems | None = None
    asked: "Questions | None" = None

    @property
    def num_targets(self) -> int:
        """Positions that have a target."""
        return int(np.count_nonzero(self.targets))

    def questions(self) -> "Questions":
        """What is asked of the network: each purchase, from the state before its basket."""
        if self.asked is not None:
            return self.asked
        rows_N, columns_N = np.nonzero(self.targets)
        asked_N = rows_N * self.targets.shape[1] + self.openings[rows_N, columns_N]
        states_M, owners_N = np.unique(asked_N, return_inverse=True)
        return Questions(
            states=states_M,
            owners=owners_N,
            targets=self.targets[rows_N, columns_N] - 1,
            weights=None if self.weights is None else self.weights.reshape(-1)[asked_N],
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Questions:
    """States that are asked and what they are asked for; a basket asks one state many times.

    Attributes:
        states: Places in the flattened grid [B * L] of the states that are asked, ascending; [M].
        owners: Which of these states each target is asked of, 0..M-1; [N].
        targets: Item rows, 0..V-1; [N].
        weights: How much each target counts, about 1 in the mean, [N]; None where all do alike.
    """

    states: Int64
    owners: Int64
    targets: Int64
    weights: Float32 | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Windows:
    """Pieces of histories: window w covers the purchases `starts[w] : starts[w] + lengths[w]`."""

    starts: Int64
    lengths: Int64
    opens_history: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """When training asks, and how much an answer counts, so that it is like a test.

    A test asks at one moment, about answers within a period from it on. A moment falls into a long
    wait rather than into a short one, and of a wait only the last `period` can be asked. Were a
    question drawn anywhere in each wait, and each to count once, the rest of a wait would be
    thought too short: of waits g of density f those asked after e days look like f(g) / g, and not
    like f(g), g > e. So the question is drawn from what can be asked, and counts by its length; by
    the square root of it, because by the length itself long waits would be about all that is learnt
    (docs/experiments.md).

    Attributes:
        period: Microseconds.
        mean: Of the square roots, which are divided by it.
    """

    period: float
    mean: float

    @classmethod
    def of(cls, histories: Histories, period_days: float) -> "Asking | None":
        """For these histories; None where nobody waits, or time is only an order."""
        if histories.time_kind != "dates" or histories.num_purchases < 2:
            return None
        opens = np.zeros(histories.num_purchases, dtype=bool)
        opens[basket_starts(histories)] = True
        opens[histories.offsets[:-1][histories.lengths > 0]] = False
        rows = np.flatnonzero(opens)
        asking = cls(period=period_days * DAY, mean=1.0)
        waits = histories.times[rows] - histories.times[rows - 1]
        mean = float(asking.weights(waits).mean()) if len(rows) else 0.0
        return replace(asking, mean=mean) if mean > 0 else None

    def weights(self, waits: Int64) -> Float32:
        """How much waits count, in the mean 1; those under an hour as much as an hour."""
        asked = np.minimum(np.maximum(waits, _HOUR), self.period)
        return (np.sqrt(asked) / self.mean).astype(np.float32)


def cut_into_windows(histories: Histories, longest: int) -> Windows:
    """Cut each history into consecutive windows of at most `longest` purchases, none left out.

    Windows begin where a basket does, so that every purchase is asked of the state before its
    basket; only a basket of more than `longest` purchases is cut itself. The newest window of a
    history is the fullest and the oldest takes the remainder, because prediction sees the newest
    `longest` purchases.

    Raises:
        TrainingError: If there is not a single purchase.
    """
    if histories.lengths.sum() == 0:
        raise TrainingError(
            f"No purchase to train on: {len(histories)} users, all with empty training histories. "
            "Use more data or a later cut-off."
        )
    firsts, ends = histories.offsets[:-1], histories.offsets[1:]
    found_starts, found_ends, found_opens = [], [], []
    while len(firsts):  # once for the newest window of each history, once for the one before ...
        more = ends > firsts
        firsts, ends = firsts[more], ends[more]
        reach = np.maximum(firsts, ends - longest)
        starts, longer = reach.copy(), np.flatnonzero(reach > firsts)
        opening = _basket_starts_from(histories.baskets, reach[longer], ends[longer])
        starts[longer] = np.where(opening < ends[longer], opening, reach[longer])
        found_starts.append(starts)
        found_ends.append(ends)
        found_opens.append(starts == firsts)
        ends = starts
    starts, ends = np.concatenate(found_starts), np.concatenate(found_ends)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]
    return Windows(
        starts=starts.astype(np.int64),
        lengths=(ends - starts).astype(np.int64),
        opens_history=np.concatenate(found_opens)[order],
    )


def _basket_starts_from(baskets: Int32, rows: Int64, ends: Int64) -> Int64:
    """The first begin of a basket at or after each row, or the end of its user.

    Halves the rows in between, so that only few of an array that may be mapped are looked at. Each
    row has one of the same user before it.
    """
    before, low, high = baskets[rows - 1], rows.copy(), ends.copy()
    while (low < high).any():
        middle = (low + high) // 2
        is_later = baskets[np.minimum(middle, ends - 1)] > before
        high = np.where(is_later, middle, high)
        low = np.where(is_later | (low >= high), low, middle + 1)
    return low


def has_baskets(histories: Histories) -> bool:
    """Whether any basket holds more than one purchase."""
    firsts = histories.offsets[:-1][histories.lengths > 0]
    for start in range(0, len(histories.baskets) - 1, _BLOCK):
        block = histories.baskets[start : start + _BLOCK + 1]
        same = block[1:] == block[:-1]  # of row start + 1 and the rows after it
        low, high = np.searchsorted(firsts, (start + 1, start + 1 + len(same)))
        same[firsts[low:high] - start - 1] = False
        if same.any():
            return True
    return False


def num_batches(windows: Windows, tokens: int) -> int:
    """Batches of one epoch; the same in every epoch."""
    return len(_cuts(np.sort(windows.lengths), tokens)) - 1


def epoch_batches(
    histories: Histories,
    windows: Windows,
    *,
    tokens: int,
    seed: int,
    epoch: int,
    start: int = 0,
    shuffle_histories: bool = False,
    facts: PurchaseFacts | None = None,
    period_days: float | None = None,
) -> Iterator[Batch]:
    """The batches of one epoch, from batch `start` on.

    Everything drawn depends on (seed, epoch, batch) only, so an epoch can be entered in its middle.
    Purchases inside a basket are put in random order: that order carries no information. With
    `shuffle_histories` whole windows are, for data whose order carries none either. With `facts`
    batches have own items. With `period_days` questions are drawn evenly from time: see `_times`.
    """
    asking = None if period_days is None else Asking.of(histories, period_days)
    order = generator(seed, "windows", epoch).permutation(len(windows))
    order = order[np.argsort(windows.lengths[order], kind="stable")]
    cuts = _cuts(windows.lengths[order], tokens)
    sequence = generator(seed, "batches", epoch).permutation(len(cuts) - 1)
    for number in range(start, len(sequence)):
        piece = int(sequence[number])
        members = order[cuts[piece] : cuts[piece + 1]]
        rng = generator(seed, "baskets", epoch, number)
        batch = _collate(
            histories, windows, members, rng, shuffle_histories=shuffle_histories, asking=asking
        )
        batch = replace(batch, asked=batch.questions())
        if facts is not None:
            found = _own_items(histories, facts, windows.starts[members], batch)
            batch = replace(batch, own=found)
        yield batch


def _cuts(sorted_lengths: Int64, tokens: int) -> list[int]:
    """Where to cut windows, sorted by length, so that rows times longest row is about `tokens`."""
    cuts, position, total = [0], 0, len(sorted_lengths)
    while position < total:
        shortest = int(sorted_lengths[position])
        end = min(total, position + max(1, tokens // shortest))
        longest = int(sorted_lengths[end - 1])
        end = min(end, position + max(1, tokens // longest))
        cuts.append(end)
        position = end
    return cuts


def _collate(
    histories: Histories,
    windows: Windows,
    members: Int64,
    rng: np.random.Generator,
    *,
    shuffle_histories: bool,
    asking: Asking | None,
) -> Batch:
    starts, lengths = windows.starts[members], windows.lengths[members]
    L = int(lengths.max())
    inside_BL = np.arange(L) < lengths[:, None]
    rows_BL = np.where(inside_BL, starts[:, None] + np.arange(L), starts[:, None])
    items_BL = np.where(inside_BL, histories.items[rows_BL], 0).astype(np.int64)
    baskets_BL = np.where(inside_BL, histories.baskets[rows_BL], np.iinfo(np.int32).max)
    opens = windows.opens_history[members]
    previous = np.where(opens, starts, starts - 1)
    before_basket = np.where(opens, -1, histories.baskets[previous])
    marks_BL = np.diff(baskets_BL, axis=1, prepend=before_basket[:, None]) != 0
    if shuffle_histories or not marks_BL[inside_BL].all():
        keys_BL = np.where(inside_BL, 0, L) if shuffle_histories else baskets_BL
        shuffled = np.argsort(keys_BL + rng.random(items_BL.shape), axis=1, kind="stable")
        items_BL = np.take_along_axis(items_BL, shuffled, axis=1)
    first_input = np.where(opens, 0, histories.items[previous])
    inputs_BL = np.concatenate([first_input[:, None], items_BL[:, :-1]], axis=1).astype(np.int64)
    gaps_BL, days_BL, moments_BL, weights_BL = _times(histories, rows_BL, opens, rng, asking)
    return Batch(
        inputs=inputs_BL,
        marks=(marks_BL & inside_BL).astype(np.int64),
        targets=items_BL,
        openings=np.maximum.accumulate(np.where(marks_BL, np.arange(L), 0), axis=1),
        gaps=gaps_BL,
        days=days_BL,
        moments=moments_BL,
        weights=weights_BL,
    )


def _own_items(
    histories: Histories,
    facts: PurchaseFacts,
    window_starts: Int64,
    batch: Batch,
) -> OwnItems:
    """Of the states that the batch asks."""
    states_M = batch.questions().states
    rows_M, columns_M = np.divmod(states_M, batch.targets.shape[1])
    ends = window_starts[rows_M] + columns_M
    users = np.searchsorted(histories.offsets, ends, side="right") - 1
    return own_items(
        histories,
        facts,
        starts=histories.offsets[users],
        ends=ends,
        baskets=histories.baskets[ends].astype(np.int64),
        moments=None if batch.moments is None else batch.moments.reshape(-1)[states_M],
    )


def _times(
    histories: Histories,
    rows_BL: Int64,
    opens: NDArray[np.bool_],
    rng: np.random.Generator,
    asking: Asking | None,
) -> tuple[Int64 | None, Float32 | None, Int64 | None, Float32 | None]:
    """`gaps`, `days`, `moments` and `weights` of a batch whose purchases are these rows."""
    if histories.time_kind != "dates":
        return None, None, None, None
    # The row before the window, twice: its own gap is not known here, nor is it of any use.
    first = np.where(opens, rows_BL[:, 0], rows_BL[:, 0] - 1)[:, None]
    times_BL = histories.times[np.concatenate([first, rows_BL], axis=1)]
    between_BL = np.maximum(np.diff(times_BL, axis=1), 0)
    gaps_BL = np.zeros_like(rows_BL)
    gaps_BL[:, 1:] = gap_buckets(between_BL[:, :-1])
    near_BL = between_BL if asking is None else np.minimum(between_BL, asking.period)
    waited_BL = (between_BL - rng.random(between_BL.shape) * near_BL).astype(np.int64)
    weights_BL = None
    if asking is not None:
        weights_BL = asking.weights(between_BL)
        weights_BL[opens, 0] = 1.0  # nobody waits for a first basket
    days_BL = (waited_BL / DAY).astype(np.float32)
    gaps_BL[opens, :2] = 0  # nothing lies before the first purchase
    days_BL[opens, 0] = np.nan
    return gaps_BL, days_BL, times_BL[:, :-1] + waited_BL, weights_BL


def gap_buckets(microseconds: NDArray[np.integer] | NDArray[np.float64]) -> Int64:
    """1 for less than a minute, then one more each time it doubles; 0 means that there is none."""
    minutes = np.asarray(microseconds, dtype=np.float64) / 60e6
    buckets: Int64 = np.minimum(1 + np.log2(1 + minutes), NUM_GAPS - 1).astype(np.int64)
    return buckets
