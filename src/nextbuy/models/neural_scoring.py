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
from nextbuy.models.protocol import LARGE_CATALOG
from nextbuy.nn.network import Scorer, Sequences
from nextbuy.nn.own_items import OwnItems, PurchaseFacts, own_items, purchase_facts
from nextbuy.nn.placing import as_array, placed
from nextbuy.nn.top_k import top_items_and_totals
from nextbuy.splitting.cases import Cases
from nextbuy.training.batches import gap_buckets, has_baskets
from nextbuy.training.torch_engine import own_tensors

_SCORING_TOKENS: Final = 16_384
_FEW_TOKENS: Final = 2_048
_MOST_FILLED: Final = 0.25
"""Sequences are filled up to a greater length while they are few, and by so much of it."""

_MOST_CASES: Final = 1_024


def score_histories(
    network: Scorer,
    histories: Histories,
    as_of: Int64 | None,
    *,
    longest: int,
    num_items: int,
    temperature: float,
    groups: Int64 | None = None,
) -> Float32:
    """Log-probabilities after each history, [U, V + 1], in batches of like length.

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
        for rows, states_MR, own in asked(
            network, histories, as_of, longest=longest, groups=groups
        ):
            result[rows, 1:] = as_array(_scored(network, states_MR, own, temperature))
    return result


def asked(
    network: Scorer,
    histories: Histories,
    as_of: Int64 | None,
    *,
    longest: int,
    groups: Int64 | None,
    states_UR: Tensor | None = None,
) -> Iterator[tuple[Int64, Tensor, OwnItems | None]]:
    """Some users after others, their states [M, R], and their own items for a repeat head.

    The arguments are those of `score_histories`; states that are known need not be made.
    """
    last = _last_moments(histories)
    moments = last if as_of is None or last is None else as_of
    facts = purchase_facts(histories, groups) if network.has_repeats else None
    if states_UR is None:
        states_UR = states_of(network, histories, as_of, longest=longest)
    for start in range(0, len(histories), _MOST_CASES):
        rows = np.arange(start, min(start + _MOST_CASES, len(histories)))
        own = None if facts is None else _own_items(histories, facts, rows, moments)
        yield rows, states_UR[start : start + len(rows)], own


def states_of(
    network: Scorer, histories: Histories, as_of: Int64 | None, *, longest: int
) -> Tensor:
    """The state of each user, [U, R], in batches of like length."""
    days = days_of_waits(histories, as_of)
    items = histories.items
    if has_baskets(histories):
        canonical = np.lexsort((items, histories.baskets, histories.owners))
        items = items[canonical]
    lengths = np.minimum(histories.lengths, longest - 1)
    order = np.argsort(lengths, kind="stable")
    found = [torch.empty(0, network.output()[0].shape[1], device=network.device)]
    for start, end in _batches(lengths[order]):
        rows = order[start:end]
        asked = _sequences(histories, items, rows, lengths[rows])
        if days is not None:
            asked = replace(asked, days=torch.from_numpy(days[rows]))
        found.append(network.states(asked.to(network.device), None))
    return torch.cat(found)[placed(np.argsort(order), network.device)]


def _batches(lengths: Int64) -> Iterator[tuple[int, int]]:
    """Where batches of sequences begin and end; `lengths` ascend.

    Lengths that many have are batches of their own. Of others several go together, filled up to the
    longest, so that a few sequences of as many lengths are not as many batches.
    """
    start = 0
    while start < len(lengths):
        end = start + int(np.searchsorted(lengths[start:], lengths[start], side="right"))
        while end < len(lengths):
            longest = int(lengths[end])
            more = int(np.searchsorted(lengths[end:], longest, side="right"))
            tokens = (longest + 1) * (end - start)
            filled = tokens - int((lengths[start:end] + 1).sum())
            if tokens > _FEW_TOKENS or filled > _MOST_FILLED * tokens:
                break
            end += more
        size = max(1, _SCORING_TOKENS // int(lengths[end - 1] + 1))
        for first in range(start, end, size):
            yield first, min(first + size, end)
        start = end


def days_of_waits(histories: Histories, as_of: Int64 | None) -> Float32 | None:
    """Days from the last purchase to the question, `nan` for who never bought, [U]; None where time
    is only an order."""
    last = _last_moments(histories)
    if last is None:
        return None
    days = np.maximum((last if as_of is None else as_of) - last, 0) / DAY
    return np.where(histories.lengths > 0, days, np.nan).astype(np.float32)


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
    histories: Histories, items: NDArray[np.int32], rows: Int64, lengths: Int64
) -> Sequences:
    """The newest purchases of some users, `lengths` of each, as a network reads them, asked at the
    end. What fills up a shorter one lies behind its end, where no state that is asked looks."""
    length = int(lengths.max())
    is_cut = histories.lengths[rows] > lengths
    # Position 0 sees the purchase before the window, if there is one.
    places = np.arange(length + 1)
    flat = (histories.offsets[rows + 1] - lengths - 1)[:, None] + places
    seen = places <= lengths[:, None]
    seen[:, 0] = is_cut
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
    ends = np.arange(len(rows)) * (length + 1) + lengths
    return Sequences(
        items=torch.from_numpy(inputs.astype(np.int64)),
        marks=torch.from_numpy(opens.astype(np.int64)),
        states=torch.from_numpy(ends),
        gaps=None if gaps is None else torch.from_numpy(gaps),
    )


def _scored(network: Scorer, states_MR: Tensor, own: OwnItems | None, temperature: float) -> Tensor:
    """Log-probabilities of items 1..V, [M, V]."""
    weight_VR, bias_V = network.output()
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
    network: Scorer,
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
    owners, targets = owners[known], cases.target_items[known].astype(np.int64) - 1
    of_targets = _of_few_targets if num_items >= LARGE_CATALOG else _of_targets
    total = 0.0
    chunk = max(1, min(2**24 // (num_items + 1), _MOST_CASES))
    chunk = _MOST_CASES if num_items >= LARGE_CATALOG else chunk
    for start in range(0, len(cases), chunk):
        part = cases.take(np.arange(start, min(start + chunk, len(cases))))
        with torch.no_grad():
            for rows, states_MR, own in asked(
                network, part.histories, part.as_of, longest=longest, groups=groups
            ):
                first, last = start + int(rows[0]), start + int(rows[-1])
                mine = (owners >= first) & (owners <= last)
                found = of_targets(
                    network, states_MR, own,
                    temperature=temperature, owners=owners[mine] - first, targets=targets[mine],
                )  # fmt: skip
                total -= float(found.sum(dtype=np.float64))
    return total / len(targets) if len(targets) else float("nan")


def _of_targets(
    network: Scorer,
    states_MR: Tensor,
    own: OwnItems | None,
    *,
    temperature: float,
    owners: Int64,
    targets: Int64,
) -> NDArray[np.floating]:
    """Log-probabilities of targets (items 0..V-1 of states), from whole rows."""
    scores_MV = _scored(network, states_MR, own, temperature)
    found: NDArray[np.floating] = as_array(
        scores_MV[placed(owners, network.device), placed(targets, network.device)]
    )
    return found


def _of_few_targets(
    network: Scorer,
    states_MR: Tensor,
    own: OwnItems | None,
    *,
    temperature: float,
    owners: Int64,
    targets: Int64,
) -> NDArray[np.floating]:
    """The same, without holding whole rows."""
    weight_VR, bias_V = network.output()
    bias_V = bias_V / temperature
    _, _, log_total_M = top_items_and_totals(states_MR / temperature, weight_VR, 1, bias_V=bias_V)
    owners_N, targets_N = placed(owners, network.device), placed(targets, network.device)
    logits_N = (states_MR[owners_N] * weight_VR[targets_N]).sum(1) / temperature
    log_p_N = (logits_N + bias_V[targets_N]).double() - log_total_M[owners_N]
    there = None if own is None else own_tensors(own, network.device)
    repeats = None if there is None else network.repeats(states_MR, there)
    if own is not None and repeats is not None:
        pairs_N = placed(own.places_of(owners, targets + 1), network.device)
        log_own_N, log_rest_N = repeats.of_targets(pairs_N, owners_N)
        log_p_N = torch.logaddexp(log_own_N.double(), log_rest_N.double() + log_p_N)
    found: NDArray[np.floating] = as_array(log_p_N)
    return found
