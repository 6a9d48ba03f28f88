"""Ask a network about histories: what prediction and validation have in common.

Legend: B rows of a batch, L positions, M states that are asked, U users, V items, P pairs of a user
and an own item.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextbuy.data.histories import DAY, UNKNOWN, Float32, Histories, Int64
from nextbuy.nn.network import Network, Sequences
from nextbuy.nn.own_items import OwnItems, PurchaseFacts, own_items, purchase_facts
from nextbuy.nn.placing import as_array, placed
from nextbuy.splitting.cases import Cases
from nextbuy.training.batches import gap_buckets, has_baskets
from nextbuy.training.torch_engine import own_tensors

_SCORING_TOKENS: Final = 16_384
_MOST_CASES: Final = 1_024


def score_histories(
    network: Network,
    histories: Histories,
    as_of: Int64 | None,
    *,
    longest: int,
    num_items: int,
    temperature: float,
    groups: Int64 | None = None,
) -> Float32:
    """Log-probabilities after each history, [U, V + 1], in batches of equal length.

    Inside a basket purchases are put in the order of their index: a basket has no order of its own.

    Args:
        network: With its weights.
        histories: What is known of each user.
        as_of: When each is asked, UTC microseconds; None is right after the last purchase.
        longest: Purchases that a state looks back on, and one.
        num_items: V.
        temperature: Of the softmax over the catalog.
        groups: Group of each item, [V + 1], for networks with cadences of groups.
    """
    result = np.full((len(histories), num_items + 1), -np.inf, dtype=np.float32)
    with torch.no_grad():
        output = network.output()
        for rows, states_MR, own in asked(
            network, histories, as_of, longest=longest, groups=groups
        ):
            result[rows, 1:] = as_array(_scored(network, output, states_MR, own, temperature))
    return result


def asked(
    network: Network,
    histories: Histories,
    as_of: Int64 | None,
    *,
    longest: int,
    groups: Int64 | None,
) -> Iterator[tuple[Int64, Tensor, OwnItems | None]]:
    """Some users after others, their states [M, R], and their own items for a repeat head.

    The arguments are those of `score_histories`.
    """
    last = _last_moments(histories)
    moments = last if as_of is None or last is None else as_of
    facts = purchase_facts(histories, groups) if network.has_repeats else None
    states_UR = _states(network, histories, moments, last, longest)
    for start in range(0, len(histories), _MOST_CASES):
        rows = np.arange(start, min(start + _MOST_CASES, len(histories)))
        own = None if facts is None else _own_items(histories, facts, rows, moments)
        yield rows, states_UR[start : start + len(rows)], own


def _states(
    network: Network,
    histories: Histories,
    moments: Int64 | None,
    last: Int64 | None,
    longest: int,
) -> Tensor:
    """The state of each user, [U, R], in batches of equal length."""
    items = histories.items
    if has_baskets(histories):
        canonical = np.lexsort((items, histories.baskets, histories.owners))
        items = items[canonical]
    lengths = np.minimum(histories.lengths, longest - 1)
    order = np.argsort(lengths, kind="stable")
    sorted_lengths = lengths[order]
    found = []
    for length in np.unique(lengths):
        members = order[slice(*np.searchsorted(sorted_lengths, [length, length + 1]))]
        rows_in_batch = max(1, _SCORING_TOKENS // int(length + 1))
        for start in range(0, len(members), rows_in_batch):
            rows = members[start : start + rows_in_batch]
            asked = _sequences(histories, items, rows, int(length))
            if moments is not None and last is not None:
                has_bought = histories.lengths[rows] > 0
                days = np.maximum(moments[rows] - last[rows], 0) / DAY
                days = np.where(has_bought, days, np.nan).astype(np.float32)
                asked = replace(asked, days=torch.from_numpy(days))
            found.append(network.states(asked.to(network.device), None))
    if not found:
        return torch.empty(0, network.output()[0].shape[1], device=network.device)
    return torch.cat(found)[placed(np.argsort(order), network.device)]


def _last_moments(histories: Histories) -> Int64 | None:
    """When each user bought last, 0 if never; None where time is only an order."""
    if histories.time_kind != "dates":
        return None
    last = np.zeros(len(histories), dtype=np.int64)
    bought = np.flatnonzero(histories.lengths)
    last[bought] = histories.times[histories.offsets[bought + 1] - 1]
    return last


def _own_items(
    histories: Histories, facts: PurchaseFacts, rows: Int64, moments: Int64 | None
) -> OwnItems:
    has_bought = histories.lengths[rows] > 0
    baskets = np.zeros(len(rows), dtype=np.int64)
    ends = histories.offsets[rows + 1]
    baskets[has_bought] = histories.baskets[ends[has_bought] - 1] + 1
    return own_items(
        histories,
        facts,
        starts=histories.offsets[rows],
        ends=ends,
        baskets=baskets,
        moments=None if moments is None else moments[rows],
    )


def _sequences(
    histories: Histories, items: NDArray[np.int32], rows: Int64, length: int
) -> Sequences:
    """The newest `length` purchases of some users as a network reads them, asked at the end."""
    is_cut = histories.lengths[rows] > length
    # Position 0 sees the purchase before the window, if there is one.
    flat = histories.offsets[rows + 1, None] - length - 1 + np.arange(length + 1)
    seen = np.concatenate([is_cut[:, None], np.ones((len(rows), length), bool)], axis=1)
    flat = np.where(seen, flat, 0)
    inputs = np.where(seen, items[flat], 0) if len(items) else np.zeros_like(flat)
    opens = np.ones_like(inputs)  # so does the next purchase, at the last position
    if length:
        seen_baskets = np.where(seen, histories.baskets[flat], -1)
        opens[:, :-1] = np.diff(seen_baskets, axis=1) != 0
    gaps = None
    if histories.time_kind == "dates":
        gaps = np.zeros_like(flat)
        if length:
            between = gap_buckets(np.maximum(np.diff(histories.times[flat], axis=1), 0))
            gaps[:, 1:] = np.where(seen[:, :-1], between, 0)
    ends = np.arange(len(rows)) * (length + 1) + length
    return Sequences(
        items=torch.from_numpy(inputs.astype(np.int64)),
        marks=torch.from_numpy(opens.astype(np.int64)),
        states=torch.from_numpy(ends),
        gaps=None if gaps is None else torch.from_numpy(gaps),
    )


def _scored(
    network: Network,
    output: tuple[Tensor, Tensor],
    states_MR: Tensor,
    own: OwnItems | None,
    temperature: float,
) -> Tensor:
    """Log-probabilities of items 1..V, [M, V]; `output` is that of the network."""
    weight_VR, bias_V = output
    logits_MV = torch.addmm(bias_V, states_MR, weight_VR.t())
    scores_MV = torch.log_softmax(logits_MV.div_(temperature), dim=-1)
    there = None if own is None else own_tensors(own, network.device)
    repeats = None if there is None else network.repeats(states_MR, there)
    if there is not None and repeats is not None:
        scores_MV += repeats.log_rest[:, None]
        pairs = there.owners, there.items - 1
        scores_MV[pairs] = torch.logaddexp(scores_MV[pairs], repeats.log_own)
    return scores_MV


def validation_loss(
    network: Network,
    cases: Cases,
    *,
    longest: int,
    num_items: int,
    temperature: float,
    groups: Int64 | None = None,
) -> float:
    """Mean of -log p over the known targets, in nats; `nan` without any."""
    owners = np.repeat(np.arange(len(cases)), np.diff(cases.target_offsets))
    known = cases.target_items != UNKNOWN
    owners, targets = owners[known], cases.target_items[known]
    total = 0.0
    with torch.no_grad():
        output = network.output()
    chunk = max(1, min(2**24 // (num_items + 1), _MOST_CASES))
    for start in range(0, len(cases), chunk):
        part = cases.take(np.arange(start, min(start + chunk, len(cases))))
        with torch.no_grad():
            for rows, states_MR, own in asked(
                network, part.histories, part.as_of, longest=longest, groups=groups
            ):
                scores_MV = _scored(network, output, states_MR, own, temperature)
                first, last = start + int(rows[0]), start + int(rows[-1])
                mine = (owners >= first) & (owners <= last)
                places = owners[mine] - first, targets[mine].astype(np.int64) - 1
                pairs = tuple(placed(place, network.device) for place in places)
                total -= float(as_array(scores_MV[pairs]).sum(dtype=np.float64))
    return total / len(targets) if len(targets) else float("nan")
