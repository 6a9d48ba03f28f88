"""Does the order of a history carry information about the next purchase?

If it does not, training may show each history in a new order every epoch: the network then cannot
learn sequences by heart. The question is put to validation cases, with counts, before training.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import Histories
from nextbuy.seeding import generator
from nextbuy.splitting.cases import Cases

_BACK_OFF = 50.0
_MOST_PURCHASES = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTest:
    """Gain of knowing the order, in nats a case, with its standard error."""

    gain: float
    standard_error: float
    num_cases: int

    @property
    def order_matters(self) -> bool:
        """Whether the order is worth more than chance; yes when there are too few cases to tell."""
        return self.num_cases < 100 or self.gain > 2.0 * self.standard_error


def order_test(train: Histories, validation: Cases, *, num_items: int, seed: int) -> OrderTest:
    """Compare what the last purchase tells with what any purchase of the history tells.

    Two pair models are counted on the training histories: item after item in the true order, and
    item after item after shuffling each history. Each is asked for the validation targets, the
    first given the last purchase, the second given a purchase of the history drawn at random. Both
    back off to item frequency, p(j | i) = (n_ij + 50 p_j) / (n_i + 50). The gain is the mean
    difference of their log-probabilities.
    """
    rng = generator(seed, "order test")
    train = _thinned(train)
    lengths = validation.histories.lengths
    first_target = validation.target_offsets[:-1]
    usable = np.flatnonzero((lengths > 0) & (np.diff(validation.target_offsets) > 0))
    usable = usable[validation.target_items[first_target[usable]] > 0]
    if len(usable) < 2:
        return OrderTest(gain=0.0, standard_error=0.0, num_cases=len(usable))
    targets = validation.target_items[first_target[usable]]
    ends = validation.histories.offsets[usable + 1]
    last = validation.histories.items[ends - 1]
    other = validation.histories.items[ends - 1 - rng.integers(0, lengths[usable]).astype(np.int64)]
    shuffled = np.lexsort((rng.random(train.num_purchases), train.owners))
    in_order = _pair_scores(train, train.items, last, targets, num_items)
    at_random = _pair_scores(train, train.items[shuffled], other, targets, num_items)
    gains = in_order - at_random
    return OrderTest(
        gain=float(gains.mean()),
        standard_error=float(gains.std(ddof=1) / np.sqrt(len(gains))),
        num_cases=len(gains),
    )


def _thinned(train: Histories) -> Histories:
    """The histories of some users, evenly spread, with about `_MOST_PURCHASES` at most."""
    if train.num_purchases <= _MOST_PURCHASES:
        return train
    step = -(-train.num_purchases // _MOST_PURCHASES)
    return train.take(np.arange(0, len(train), step))


def _pair_scores(
    train: Histories,
    items: NDArray[np.int32],
    given: NDArray[np.int32],
    targets: NDArray[np.int32],
    num_items: int,
) -> NDArray[np.float64]:
    """Log p(target | given) with pairs counted in `items`, laid out as the training histories."""
    follows = np.ones(len(items), bool)
    follows[train.offsets[:-1][train.lengths > 0]] = False
    second = np.flatnonzero(follows)
    width = num_items + 1
    pairs, counts = np.unique(
        items[second - 1].astype(np.int64) * width + items[second], return_counts=True
    )
    asked = given.astype(np.int64) * width + targets
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    together = np.where(pairs[place] == asked, counts[place], 0) if len(pairs) else 0
    before = np.bincount(items[second - 1], minlength=width)[given]
    frequency = np.bincount(train.items, minlength=width)[targets] + 1.0
    popularity = frequency / (train.num_purchases + num_items)
    scores: NDArray[np.float64] = np.log((together + _BACK_OFF * popularity) / (before + _BACK_OFF))
    return scores
