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
from nextbuy.models.neural_scoring import asked
from nextbuy.nn.network import Network
from nextbuy.nn.own_items import OwnItems
from nextbuy.nn.placing import as_array, placed
from nextbuy.nn.top_k import top_items_and_totals
from nextbuy.splitting.repeat import Blocked
from nextbuy.training.torch_engine import own_tensors

Float64 = NDArray[np.float64]


def best_items(
    network: Network,
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
        output = network.output()
        num_items = len(output[1])
        k = min(k, num_items)
        items = np.full((len(histories), k), PADDING, dtype=np.int32)
        values = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for rows, states_MR, own in asked(
            network, histories, as_of, longest=longest, groups=groups
        ):
            ours = (blocked.users >= rows[0]) & (blocked.users <= rows[-1]) & (blocked.items > 0)
            pairs = (blocked.users[ours] - rows[0]) * num_items + blocked.items[ours] - 1
            listed = _listed(network, states_MR, own, np.unique(pairs), num_items)
            items[rows], values[rows] = _best(output, states_MR, listed, temperature, k)
    return items, values


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Listed:
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


def _listed(
    network: Network, states_MR: Tensor, own: OwnItems | None, blocked: Int64, num_items: int
) -> _Listed:
    """Own items of a network with a repeat head, and the pairs that are blocked."""
    repeats = None if own is None else network.repeats(states_MR, own_tensors(own, network.device))
    if own is None or repeats is None:
        own_pairs, log_own = np.empty(0, np.int64), np.empty(0)
        log_rest = np.zeros(len(states_MR))
    else:
        own_pairs = own.owners * num_items + own.items - 1
        log_own = as_array(repeats.log_own.double())
        log_rest = as_array(repeats.log_rest.double())
    pairs = np.union1d(own_pairs, blocked)
    all_log_own = np.full(len(pairs), -np.inf)
    all_log_own[np.searchsorted(pairs, own_pairs)] = log_own
    owners, items = np.divmod(pairs, num_items)
    return _Listed(
        owners=owners,
        items=items,
        is_blocked=np.isin(pairs, blocked),
        log_own=all_log_own,
        log_rest=log_rest,
    )


def _best(
    output: tuple[Tensor, Tensor], states_MR: Tensor, listed: _Listed, temperature: float, k: int
) -> tuple[Int32, Float32]:
    """Items 1..V (`PADDING` where there is none) and their log-probabilities, [M, k] each."""
    weight_VR, bias_V = output
    states_MR, bias_V = states_MR / temperature, bias_V / temperature
    owners_P, items_P = (placed(part, bias_V.device) for part in (listed.owners, listed.items))
    logits_P = (states_MR[owners_P] * weight_VR[items_P]).sum(1) + bias_V[items_P]
    found = top_items_and_totals(
        states_MR, weight_VR, k, bias_V=bias_V, excluded=(owners_P, items_P)
    )
    others_Mk, logits_Mk, log_others_M = (as_array(part) for part in found)
    of_listed = as_array(logits_P.double())
    log_total_M = np.logaddexp(log_others_M, _log_sums(of_listed, listed.owners, len(states_MR)))
    log_scale_M = listed.log_rest - log_total_M
    of_listed = np.logaddexp(of_listed + log_scale_M[listed.owners], listed.log_own)
    of_others = logits_Mk + log_scale_M[:, None]
    if listed.is_blocked.any():
        of_listed[listed.is_blocked] = -np.inf
        log_listed_M = _log_sums(of_listed, listed.owners, len(states_MR))
        log_allowed_M = np.logaddexp(log_others_M + log_scale_M, log_listed_M)
        log_allowed_M[np.isneginf(log_allowed_M)] = 0.0  # nothing may be offered
        of_listed -= log_allowed_M[listed.owners]
        of_others -= log_allowed_M[:, None]
    best_listed = _best_of_pairs(of_listed, listed, k, len(states_MR))
    items = np.concatenate([others_Mk, best_listed[0]], axis=1)
    values = np.concatenate([of_others, best_listed[1]], axis=1).astype(np.float32)
    order = np.lexsort((items, -values))[:, :k]
    items, values = (np.take_along_axis(part, order, axis=1) for part in (items, values))
    return np.where(np.isneginf(values), PADDING, items + 1).astype(np.int32), values


def _best_of_pairs(
    values: Float64, listed: _Listed, k: int, num_states: int
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
