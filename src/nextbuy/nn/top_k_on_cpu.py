"""The best items of a large catalog and the totals of the softmax on the CPU: exact, and quicker
than what serves any device.

Scores are made item by item, `table states'`: for the few states that a service asks at once that
is a third faster than the other way around. A piece of them is added up, and the highest of each
group is found, while it lies in the cache of a core; the scores stay until the best groups are
known, and only these are looked at again.

Legend: M states, V items, D width, S items of a slab, C items of a piece, G items of a group, X
groups of a piece, Y of a slab, P excluded pairs, k items that are wanted.
"""

from typing import Final

import torch
from torch import Tensor

from nextbuy.nn.score_keys import NONE, in_rows, keys_of, read_keys

_MOST_STATES: Final = 512
"""States that are asked at once."""

_SLAB_SCORES: Final = 2**22
"""Scores that are held at once: 16 MB, which the allocator does not give back each time. To have
memory from the system costs more than to fill it."""

_PIECE_SCORES: Final = 2**17
_GROUP: Final = 64

_SMALL: Final = 40.0
"""Exponentials of so high scores can be added up as they are: none is too large or too small."""


def keys_and_totals(
    states_MD: Tensor,
    table_VD: Tensor,
    k: int,
    bias_V: Tensor | None,
    excluded: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """What `nextbuy.nn.top_k.top_items_and_totals` finds.

    Args:
        states_MD: Single precision, as are the table and the bias.
        table_VD: One row an item.
        k: At most V.
        bias_V: Added to the scores.
        excluded: States and for each an item, in the order of the items; [P] each.

    Returns:
        Keys of the best items, [M, k], and log totals, [M], double precision.
    """
    owners_P, items_P = excluded
    found = [(torch.empty(0, k, dtype=torch.int64), torch.empty(0, dtype=torch.float64))]
    for start in range(0, len(states_MD), _MOST_STATES):
        part = states_MD[start : start + _MOST_STATES]
        ours = (owners_P >= start) & (owners_P < start + len(part))
        pairs = owners_P[ours] - start, items_P[ours]
        found.append(_of_some(part, table_VD, k, bias_V, pairs))
    keys, totals = zip(*found, strict=True)
    return torch.cat(keys), torch.cat(totals)


def _of_some(
    states_MD: Tensor,
    table_VD: Tensor,
    k: int,
    bias_V: Tensor | None,
    excluded: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    num_states = len(states_MD)
    slab, piece, group = _sizes(num_states, len(table_VD), k)
    scores_SM = torch.empty(slab, num_states)
    bound_M = torch.full((num_states,), -torch.inf)
    pool, totals = torch.full((num_states, k), NONE), []
    for start in range(0, len(table_VD), slab):
        end = min(start + slab, len(table_VD))
        here = scores_SM[: -(-(end - start) // piece) * piece]
        highest, sums = _write_scores(
            states_MD, table_VD[start:end], None if bias_V is None else bias_V[start:end],
            _between(excluded, start, end), here, piece=piece, group=group,
        )  # fmt: skip
        totals.append(_log_totals(here, piece, highest, sums))
        pool = torch.cat([pool, _keys_above(here, highest, bound_M, start, k)], dim=1)
        pool = pool.topk(k).values
        bound_M = torch.maximum(bound_M, read_keys(pool[:, -1])[1])
    return pool, torch.stack(totals).logsumexp(0)


def _sizes(num_states: int, num_items: int, k: int) -> tuple[int, int, int]:
    """Items of a slab, of a piece and of a group; each is a whole number of the next."""
    group = min(_GROUP, max(1, num_items // (4 * k)))
    piece = max(1, min(_PIECE_SCORES // num_states, num_items) // group) * group
    slab = max(1, min(_SLAB_SCORES // num_states, num_items + piece - 1) // piece) * piece
    return slab, piece, group


def _between(excluded: tuple[Tensor, Tensor], start: int, end: int) -> tuple[Tensor, Tensor]:
    """Pairs of some items, counted from the first of them."""
    owners_P, items_P = excluded
    first, last = torch.searchsorted(items_P, torch.tensor([start, end])).tolist()
    return owners_P[first:last], items_P[first:last] - start


def _write_scores(
    states_MD: Tensor,
    table_SD: Tensor,
    bias_S: Tensor | None,
    excluded: tuple[Tensor, Tensor],
    scores_SM: Tensor,
    *,
    piece: int,
    group: int,
) -> tuple[Tensor, Tensor]:
    """Write the scores of a slab, whose last piece is filled up with -inf.

    Item g * X + x of a piece is member g of group x.

    Returns:
        The highest score of each group, [pieces, X, M], and the sums of the exponentials of each
        piece, [pieces, M].
    """
    num_pieces, num_states = len(scores_SM) // piece, len(states_MD)
    highest = torch.empty(num_pieces, piece // group, num_states)
    sums = torch.empty(num_pieces, num_states)
    powers_CM = torch.empty(piece, num_states)
    states_DM = states_MD.t().contiguous()
    owners_P, items_P = excluded
    edges = torch.searchsorted(items_P, torch.arange(0, len(scores_SM) + 1, piece)).tolist()
    for number in range(num_pieces):
        start, end = number * piece, min((number + 1) * piece, len(table_SD))
        scores_CM, count = scores_SM[start : start + piece], end - start
        torch.mm(table_SD[start:end], states_DM, out=scores_CM[:count])
        if bias_S is not None:
            scores_CM[:count] += bias_S[start:end, None]
        if count < piece:
            scores_CM[count:] = -torch.inf
        if edges[number] < edges[number + 1]:
            pairs = slice(edges[number], edges[number + 1])
            scores_CM[items_P[pairs] - start, owners_P[pairs]] = -torch.inf
        torch.amax(scores_CM.view(group, -1, num_states), 0, out=highest[number])
        torch.sum(torch.exp(scores_CM, out=powers_CM), 0, out=sums[number])
    return highest, sums


def _log_totals(scores_SM: Tensor, piece: int, highest: Tensor, sums: Tensor) -> Tensor:
    """Logs of the sums over a slab, [M]; where scores are large or very low, added up once more."""
    highest_M = highest.flatten(0, 1).amax(0)
    if bool((highest_M.abs() <= _SMALL).all()):
        return sums.double().sum(0).log()
    highest_M = highest_M.clamp_min(torch.finfo(torch.float32).min)
    above = [
        (part - highest_M).exp_().sum(0).double()
        for part in scores_SM.view(-1, piece, len(highest_M))
    ]
    return torch.stack(above).sum(0).log() + highest_M


def _keys_above(
    scores_SM: Tensor, highest: Tensor, bound_M: Tensor, first_item: int, k: int
) -> Tensor:
    """Keys of all items of a slab that may be among the k best and are above the bound, a row a
    state."""
    num_pieces, num_groups, num_states = highest.shape
    highest_MY = highest.view(-1, num_states).t().contiguous()
    bound_M = torch.maximum(bound_M, bound_of_groups(highest_MY, k))
    owners, groups = (highest_MY > bound_M[:, None]).nonzero(as_tuple=True)
    pieces, groups = groups // num_groups, groups % num_groups
    by_group = scores_SM.view(num_pieces, -1, num_groups, num_states)
    candidates = by_group[pieces, :, groups, owners]
    rows, members = (candidates > bound_M[owners, None]).nonzero(as_tuple=True)
    place = (pieces[rows] * by_group.shape[1] + members) * num_groups + groups[rows]
    return in_rows(keys_of(candidates[rows, members], first_item + place), owners[rows], num_states)


def bound_of_groups(highest_MX: Tensor, k: int) -> Tensor:
    """Just below what the k-th best score is at least: k groups have a score as high as this."""
    if highest_MX.shape[1] < k:
        return torch.full_like(highest_MX[:, 0], -torch.inf)
    kth_M = highest_MX.topk(k, sorted=False).values.amin(1)
    return torch.nextafter(kth_M, torch.full_like(kth_M, -torch.inf))
