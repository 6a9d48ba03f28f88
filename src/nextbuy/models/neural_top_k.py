"""The best items of a network for histories, without a row of the whole catalog for each user.

Own items, and what may not be offered, are listed: their probabilities are computed one by one. All
others are searched a block at a time, and the same pass adds up their share of the softmax,

    log p(i) = log(1 - r) + h e_i + b_i - Z,    Z = log of the sum of exp(h e_i + b_i) over both,

to which the repeat head adds r q_i for own items. The best of both make the answer.

Legend: U users, M states that are asked, R width of a state, P listed pairs of a state and an item,
k items that are wanted.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextbuy.data.histories import PADDING, Float32, Histories, Int32, Int64
from nextbuy.models.neural_scoring import asked, days_of_waits, states_of
from nextbuy.models.protocol import Searched
from nextbuy.nn.network import Scorer
from nextbuy.nn.own_items import OwnItems
from nextbuy.nn.placing import as_array, placed
from nextbuy.nn.top_k import top_items_and_totals
from nextbuy.splitting.repeat import Blocked
from nextbuy.training.torch_engine import own_tensors

Float64 = NDArray[np.float64]


def best_items(
    network: Scorer,
    histories: Histories,
    as_of: Int64 | None,
    k: int,
    *,
    longest: int,
    temperature: float,
    groups: Int64 | None,
    blocked: Blocked,
) -> tuple[Int32, Float32]:
    """The k most probable items of each user; see `FindsTopK.top_k`.

    The other arguments are those of `nextbuy.models.neural_scoring.score_histories`.
    """
    with torch.no_grad():
        num_items = len(network.output()[1])
        k = min(k, num_items)
        items = np.full((len(histories), k), PADDING, dtype=np.int32)
        values = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for rows, states_MR, own in asked(
            network, histories, as_of, longest=longest, groups=groups
        ):
            pairs = blocked_pairs(blocked, rows, num_items)
            listed = listed_items(network, states_MR, own, pairs)
            items[rows], values[rows] = _best(network, states_MR, listed, temperature, k)
    return items, values


class Searcher:
    """Asks a network in two steps, the first of which can be kept; see `SearchesApart`.

    What is searched leaves out all own items, since these are what the second step looks at.

    Args:
        network: With its weights.
        longest: As for `nextbuy.models.neural_scoring.score_histories`, as are the following.
        temperature: See there.
        groups: See there.
    """

    def __init__(
        self, network: Scorer, *, longest: int, temperature: float, groups: Int64 | None
    ) -> None:
        self._network, self._longest = network, longest
        self._temperature, self._groups = temperature, groups

    def wait_classes(self, histories: Histories, as_of: Int64 | None) -> Int64:
        """See `SearchesApart`."""
        days = days_of_waits(histories, as_of)
        if days is None:
            return np.zeros(len(histories), np.int64)
        placed_days = placed(days, self._network.device)
        found: Int64 = as_array(self._network.wait_classes(placed_days))
        return found

    def search(self, histories: Histories, as_of: Int64 | None, k: int) -> Searched:
        """See `SearchesApart`."""
        with torch.no_grad():
            states_UR = states_of(self._network, histories, as_of, longest=self._longest)
            num_items = len(self._network.output()[1])
            own = np.divmod(_own_pairs(histories, num_items), num_items)
            k = min(k, num_items)
            found = others_than(self._network, states_UR, own, self._temperature, k)
        return Searched(
            states=as_array(states_UR), items=found[0], logits=found[1], log_totals=found[2]
        )

    def top_k(
        self,
        searched: Searched,
        histories: Histories,
        as_of: Int64 | None,
        k: int,
        *,
        blocked: Blocked,
    ) -> tuple[Int32, Float32]:
        """See `SearchesApart`."""
        network = self._network
        with torch.no_grad():
            num_items = len(network.output()[1])
            all_own, parts = _own_pairs(histories, num_items), []
            for rows, states_MR, own in asked(
                network, histories, as_of, longest=self._longest, groups=self._groups,
                states_UR=placed(searched.states, network.device),
            ):  # fmt: skip
                edges = np.searchsorted(all_own, rows[[0, -1]] * num_items + [0, num_items])
                mine = all_own[slice(*edges)] - rows[0] * num_items
                pairs = blocked_pairs(blocked, rows, num_items)
                listed = listed_items(network, states_MR, own, pairs, more=mine)
                found = searched.take(rows)
                others = found.items[:, :k], found.logits[:, :k], found.log_totals
                parts.append(_with_listed(network, states_MR, listed, self._temperature, others))
        items, values = zip(*parts, strict=True)
        return np.concatenate(items), np.concatenate(values)


def _own_pairs(histories: Histories, num_items: int) -> Int64:
    """Users and their own items, as numbers of pairs, each once and ascending."""
    return np.unique(histories.owners * num_items + histories.items - 1)


def blocked_pairs(blocked: Blocked, rows: Int64, num_items: int) -> Int64:
    """The same of what may not be offered to some neighbouring users."""
    ours = (blocked.users >= rows[0]) & (blocked.users <= rows[-1]) & (blocked.items > 0)
    return np.unique((blocked.users[ours] - rows[0]) * num_items + blocked.items[ours] - 1)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Listed:
    """Items that are looked at one by one.

    Attributes:
        owners: State of each pair, ascending; [P].
        items: Item of each pair, 0..V-1; ascending for each state; [P].
        is_blocked: Whether the item may not be offered, [P].
        log_own: What the repeat head gives to it; -inf for items that are not own; [P].
        log_rest: What the repeat head leaves to the catalog, [M].
    """

    owners: Int64
    items: Int64
    is_blocked: NDArray[np.bool_]
    log_own: Float64
    log_rest: Float64


def listed_items(
    network: Scorer,
    states_MR: Tensor,
    own: OwnItems | None,
    blocked: Int64,
    *,
    more: Int64 | None = None,
) -> Listed:
    """Own items of a network with a repeat head, the pairs that are blocked, and some more."""
    num_items = len(network.output()[1])
    repeats = None if own is None else network.repeats(states_MR, own_tensors(own, network.device))
    if own is None or repeats is None:
        own_pairs, log_own = np.empty(0, np.int64), np.empty(0)
        log_rest = np.zeros(len(states_MR))
    else:
        own_pairs = own.owners * num_items + own.items - 1
        log_own = as_array(repeats.log_own.double())
        log_rest = as_array(repeats.log_rest.double())
    pairs = np.union1d(own_pairs, blocked)
    pairs = pairs if more is None else np.union1d(pairs, more)
    all_log_own = np.full(len(pairs), -np.inf)
    all_log_own[np.searchsorted(pairs, own_pairs)] = log_own
    owners, items = np.divmod(pairs, num_items)
    return Listed(
        owners=owners,
        items=items,
        is_blocked=np.isin(pairs, blocked),
        log_own=all_log_own,
        log_rest=log_rest,
    )


def _best(
    network: Scorer, states_MR: Tensor, listed: Listed, temperature: float, k: int
) -> tuple[Int32, Float32]:
    """Items 1..V (`PADDING` where there is none) and their log-probabilities, [M, k] each."""
    found = others_than(network, states_MR, (listed.owners, listed.items), temperature, k)
    return _with_listed(network, states_MR, listed, temperature, found)


Others = tuple[Int64, Float32, Float64]
"""Items 0..V-1, their scores, [M, k] each, and the log of the total of all, [M]."""


def others_than(
    network: Scorer, states_MR: Tensor, listed: tuple[Int64, Int64], temperature: float, k: int
) -> Others:
    """The best of the items that are not listed (pairs of a state and an item)."""
    weight_VR, bias_V = network.output()
    excluded = placed(listed[0], network.device), placed(listed[1], network.device)
    found = top_items_and_totals(
        states_MR / temperature, weight_VR, k, bias_V=bias_V / temperature, excluded=excluded
    )
    others_Mk, logits_Mk, log_others_M = (as_array(part) for part in found)
    return others_Mk, logits_Mk, log_others_M


def _with_listed(
    network: Scorer,
    states_MR: Tensor,
    listed: Listed,
    temperature: float,
    others: Others,
) -> tuple[Int32, Float32]:
    """The best of both; see `_best`."""
    logits_P = logits_of_listed(network, states_MR, listed, temperature)
    return best_of_both(listed, probable(listed, as_array(logits_P.double()), others), others[0])


def logits_of_listed(
    network: Scorer, states_MR: Tensor, listed: Listed, temperature: float
) -> Tensor:
    """Scores of the listed items, [P]."""
    weight_VR, bias_V = network.output()
    owners_P, items_P = (placed(part, network.device) for part in (listed.owners, listed.items))
    states_PR = states_MR[owners_P] / temperature
    return (states_PR * weight_VR[items_P]).sum(1) + bias_V[items_P] / temperature


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Probable:
    """Log-probabilities, given that nothing blocked is bought.

    Attributes:
        of_listed: [P]; -inf for what is blocked.
        of_others: Of the best others, [M, k].
        log_scale: What is added to the score of an item that is not listed, [M].
    """

    of_listed: Float64
    of_others: Float64
    log_scale: Float64


def probable(listed: Listed, logits_P: Float64, others: Others) -> Probable:
    """Scores of the listed items and of the best others as log-probabilities."""
    _, logits_Mk, log_others_M = others
    num_states = len(logits_Mk)
    log_total_M = np.logaddexp(log_others_M, _log_sums(logits_P, listed.owners, num_states))
    log_scale_M = listed.log_rest - log_total_M
    of_listed = np.logaddexp(logits_P + log_scale_M[listed.owners], listed.log_own)
    of_others = logits_Mk + log_scale_M[:, None]
    if listed.is_blocked.any():
        of_listed[listed.is_blocked] = -np.inf
        log_listed_M = _log_sums(of_listed, listed.owners, num_states)
        log_allowed_M = np.logaddexp(log_others_M + log_scale_M, log_listed_M)
        log_allowed_M[np.isneginf(log_allowed_M)] = 0.0  # nothing may be offered
        of_listed -= log_allowed_M[listed.owners]
        of_others -= log_allowed_M[:, None]
        log_scale_M = log_scale_M - log_allowed_M
    return Probable(of_listed=of_listed, of_others=of_others, log_scale=log_scale_M)


def best_of_both(listed: Listed, both: Probable, others_Mk: Int64) -> tuple[Int32, Float32]:
    """The k best of listed items and others; see `_best`."""
    num_states, k = others_Mk.shape
    best_listed = _best_of_pairs(both.of_listed, listed, k, num_states)
    items = np.concatenate([others_Mk, best_listed[0]], axis=1)
    values = np.concatenate([both.of_others, best_listed[1]], axis=1).astype(np.float32)
    order = np.lexsort((items, -values))[:, :k]
    items, values = (np.take_along_axis(part, order, axis=1) for part in (items, values))
    return np.where(np.isneginf(values), PADDING, items + 1).astype(np.int32), values


def _best_of_pairs(
    values: Float64, listed: Listed, k: int, num_states: int
) -> tuple[Int64, Float64]:
    """The k best listed items of each state and their values, [M, k] each; -inf fills up."""
    order = np.lexsort((listed.items, -values, listed.owners))
    counts = np.bincount(listed.owners, minlength=num_states)
    places = np.arange(len(order)) - (np.cumsum(counts) - counts)[listed.owners]
    order, places = order[places < k], places[places < k]
    items, best = np.zeros((num_states, k), np.int64), np.full((num_states, k), -np.inf)
    items[listed.owners[order], places] = listed.items[order]
    best[listed.owners[order], places] = values[order]
    return items, best


def _log_sums(values: Float64, owners: Int64, num_states: int) -> Float64:
    """Log of the sum of the exponentials for each state, -inf where there are none; [M]."""
    highest = np.full(num_states, np.finfo(np.float64).min)
    np.maximum.at(highest, owners, values)
    sums = np.bincount(owners, np.exp(values - highest[owners]), num_states)
    with np.errstate(divide="ignore"):
        found: Float64 = np.log(sums) + highest
    return found
