"""The best items of a large catalog for some states: exact, without holding all scores.

Items are scored a block at a time. Of each group of items only the highest score is compared with
the state's bound, the k-th best score so far; after some blocks hardly any group passes. What
passes waits in a pool, which is cut to the best k now and then, and that raises the bound. The
result is that of a stable sort of all scores: nothing is approximated.

Legend: M states, A states as they are asked, V items, D width, B items of a block, G items of a
group, X groups of a block, P excluded pairs, N survivors or marks, L marks of as many states, k
items that are wanted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor

from nextbuy.nn.score_keys import NONE, in_rows, keys_of, read_keys
from nextbuy.nn.top_k_on_cpu import bound_of_groups, keys_and_totals

_MOST_STATES: Final = 512
"""States that are asked at once; more would need more memory and save nothing."""

_FEWEST_ITEMS: Final = 2**14
_BLOCK_SCORES: Final = 2**20
_GROUP: Final = 32
_CONVERTED: Final = 2**18
"""Numbers of a table of 16 bits that a core converts at once: they stay in its cache."""

_SMALL: Final = 40.0
"""Exponentials of so high scores can be added up as they are: none is too large or too small."""


def top_items(
    states_MD: Tensor,
    table_VD: Tensor,
    k: int,
    *,
    bias_V: Tensor | None = None,
    excluded: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The k items of the highest score for each state, best first; of equal ones the lower item.

    Sums of products are rounded as the matrix product of the moment rounds them: asked alone, a
    state may have scores that differ in the last bits.

    Args:
        states_MD: Queries, single precision.
        table_VD: One row an item (at least one), of 32 or of 16 bits; sums are of 32 bits.
        k: At least 1; at most V are returned.
        bias_V: Added to the scores, single precision.
        excluded: States (0..M-1) and for each an item (0..V-1) that must not be returned, [P] each.

    Returns:
        Items 0..V-1 and their scores, [M, min(k, V)] each. A score of -inf means that an item
        cannot be had, as if it were excluded; places that stay empty have item -1 and score -inf.
        Scores must not be `nan`.
    """
    seen = _Seen(adds_up=False)
    return read_keys(_search(states_MD, table_VD, k, bias_V=bias_V, excluded=excluded, seen=seen))


def top_items_and_totals(
    states_MD: Tensor,
    table_VD: Tensor,
    k: int,
    *,
    bias_V: Tensor | None = None,
    excluded: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`top_items`, and what turns scores into probabilities, from one pass over the table.

    Returns:
        Items and scores as `top_items` has them, and the log of the sum of the exponentials of all
        scores that are not excluded, [M], double precision; -inf where all are.
    """
    if states_MD.device.type == "cpu" and table_VD.dtype == torch.float32 and len(states_MD) > 1:
        pairs = _by_item(excluded, states_MD.device)
        keys, log_totals = keys_and_totals(
            states_MD, table_VD, min(k, len(table_VD)), bias_V, pairs
        )
        return *read_keys(keys), log_totals
    seen = _Seen()
    keys = _search(states_MD, table_VD, k, bias_V=bias_V, excluded=excluded, seen=seen)
    items, scores = read_keys(keys)
    return items, scores, torch.cat(seen.log_totals)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Marks:
    """Scores that those of all items are held against.

    Attributes:
        owners: State of each mark, 0..M-1, ascending; [N].
        items: The item that has the score, 0..V-1; of equal scores lower items come first; [N].
        scores: Single precision, [N].
    """

    owners: Tensor
    items: Tensor
    scores: Tensor

    def of(self, start: int, end: int) -> "Marks":
        """Those of some neighbouring states, which are numbered from 0."""
        first, last = torch.searchsorted(
            self.owners, torch.tensor([start, end], device=self.owners.device)
        ).tolist()
        return Marks(
            owners=self.owners[first:last] - start,
            items=self.items[first:last],
            scores=self.scores[first:last],
        )


def top_items_totals_and_places(
    states_MD: Tensor,
    table_VD: Tensor,
    k: int,
    marks: Marks,
    *,
    bias_V: Tensor | None = None,
    excluded: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`top_items_and_totals`, and how many items come before each mark, from one pass.

    Returns:
        Beside the former, for each mark the number of items that are not excluded and have a higher
        score, or the same one and a lower number than the item of the mark; [N].
    """
    seen = _Seen(marks=marks)
    keys = _search(states_MD, table_VD, k, bias_V=bias_V, excluded=excluded, seen=seen)
    items, scores = read_keys(keys)
    return items, scores, torch.cat(seen.log_totals), torch.cat(seen.places)


@dataclass(slots=True, eq=False)
class _Seen:
    """What is taken down beside the best items, some states after others."""

    adds_up: bool = True
    marks: Marks | None = None
    log_totals: list[Tensor] = field(default_factory=list)
    places: list[Tensor] = field(default_factory=list)


def _search(
    states_MD: Tensor,
    table_VD: Tensor,
    k: int,
    *,
    bias_V: Tensor | None,
    excluded: tuple[Tensor, Tensor] | None,
    seen: _Seen,
) -> Tensor:
    """Keys of the best items, [M, k]; the rest is taken down in `seen`."""
    k = min(k, len(table_VD))
    nothing = torch.empty(0, dtype=torch.int64, device=states_MD.device)
    owners_P, items_P = _by_item(excluded, states_MD.device)
    found = [nothing.view(0, 1).expand(0, k)]
    seen.log_totals.append(nothing.double())
    seen.places.append(nothing)
    for start in range(0, len(states_MD), _MOST_STATES):
        part = states_MD[start : start + _MOST_STATES]
        ours = (owners_P >= start) & (owners_P < start + len(part))
        pairs = owners_P[ours] - start, items_P[ours]
        blocks = _with_highest(_score_blocks(part, table_VD, bias_V, pairs, k))
        if seen.marks is not None:
            marks = seen.marks.of(start, start + len(part))
            seen.places.append(torch.zeros_like(marks.owners))
            blocks = _counting(blocks, marks, len(part), seen.places[-1])
        if seen.adds_up:
            log_total_M = part.new_full((len(part),), -torch.inf, dtype=torch.float64)
            seen.log_totals.append(log_total_M)
            blocks = _adding_up(blocks, log_total_M)
        found.append(_best_keys(blocks, len(part), k, states_MD.device))
    return torch.cat(found)


def _by_item(excluded: tuple[Tensor, Tensor] | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """The pairs in the order of their items."""
    if excluded is None:
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        return nothing, nothing
    owners_P, items_P = excluded
    by_item = items_P.argsort()
    return owners_P[by_item], items_P[by_item]


_Block = tuple[int, Tensor, Tensor]
"""The first item of a block, the scores in groups [M, G, X], and the highest of each group."""


def _with_highest(blocks: Iterator[tuple[int, Tensor]]) -> Iterator[_Block]:
    for start, scores_MGX in blocks:
        yield start, scores_MGX, scores_MGX.amax(1)


def _counting(
    blocks: Iterator[_Block], marks: Marks, num_states: int, places_N: Tensor
) -> Iterator[_Block]:
    """The same blocks; what comes before a mark in them is added to its place."""
    layers = _layers(marks, num_states)
    for start, scores_MGX, highest_MX in blocks:
        scores_MB = scores_MGX.flatten(1)
        end = start + scores_MB.shape[1]
        for here in layers:
            items_L, scores_L = marks.items[here], marks.scores[here]
            is_whole = len(here) == num_states  # one mark a state: the scores need no copy
            rows_LB = scores_MB if is_whole else scores_MB[marks.owners[here]]
            # All items of the block are lower than the mark's: those of equal scores count, too.
            below_L = torch.nextafter(scores_L, torch.full_like(scores_L, -torch.inf))
            bound_L = torch.where(items_L >= end, below_L, scores_L)
            places_N[here] += _true_in_rows(rows_LB > bound_L[:, None])
            inside = ((items_L >= start) & (items_L < end)).nonzero()[:, 0]
            if len(inside):
                lower = torch.arange(start, end, device=items_L.device) < items_L[inside, None]
                equal = rows_LB[inside] == scores_L[inside, None]
                places_N[here[inside]] += _true_in_rows(equal & lower)
        yield start, scores_MGX, highest_MX


def _layers(marks: Marks, num_states: int) -> list[Tensor]:
    """Numbers of marks: the first of each state, the second of each that has two, ..."""
    counts_M = torch.bincount(marks.owners, minlength=num_states)
    firsts_M = counts_M.cumsum(0) - counts_M
    nth_N = torch.arange(len(marks.owners), device=marks.owners.device) - firsts_M[marks.owners]
    return [(nth_N == n).nonzero()[:, 0] for n in range(int(counts_M.max()) if num_states else 0)]


def _true_in_rows(marked_LB: Tensor) -> Tensor:
    """How many are true in each row, [L]. NumPy counts ten times as fast as torch."""
    if marked_LB.device.type != "cpu":
        return marked_LB.sum(1)
    return torch.tensor([np.count_nonzero(row) for row in marked_LB.numpy()], dtype=torch.int64)


def _adding_up(blocks: Iterator[_Block], log_total_M: Tensor) -> Iterator[_Block]:
    """The same blocks; each is added to the totals, and spoilt, when the next one is asked for."""
    for start, scores_MGX, highest_MX in blocks:
        yield start, scores_MGX, highest_MX
        highest_M = highest_MX.amax(1).clamp_min(torch.finfo(scores_MGX.dtype).min)
        if bool((highest_M.abs() > _SMALL).any()):
            scores_MGX.sub_(highest_M[:, None, None])
        else:
            highest_M = torch.zeros_like(highest_M)
        log_sum_M = scores_MGX.exp_().sum((1, 2)).double().log() + highest_M
        torch.logaddexp(log_total_M, log_sum_M, out=log_total_M)


def _best_keys(blocks: Iterator[_Block], num_states: int, k: int, device: torch.device) -> Tensor:
    """Keys of the best items of all blocks, [M, k], best first."""
    bound_M = torch.full((num_states,), -torch.inf, device=device)
    pool = [torch.full((num_states, k), NONE, device=device)]
    for start, scores_MGX, highest_MX in blocks:
        passes_MX = highest_MX > bound_M[:, None]
        if int(passes_MX.sum()) > 2 * k * num_states:
            bound_M = torch.maximum(bound_M, bound_of_groups(highest_MX, k))
            passes_MX = highest_MX > bound_M[:, None]
        owners, groups = passes_MX.nonzero(as_tuple=True)
        candidates = scores_MGX[owners, :, groups]
        rows, members = (candidates > bound_M[owners, None]).nonzero(as_tuple=True)
        items_N = start + members * highest_MX.shape[1] + groups[rows]
        keys_N = keys_of(candidates[rows, members], items_N)
        pool.append(in_rows(keys_N, owners[rows], num_states))
        if sum(keys.shape[1] for keys in pool) > 2 * k:
            pool = [torch.cat(pool, dim=1).topk(k).values]
            bound_M = torch.maximum(bound_M, read_keys(pool[0][:, -1])[1])
    return torch.cat(pool, dim=1).topk(k).values


def _score_blocks(
    states_MD: Tensor,
    table_VD: Tensor,
    bias_V: Tensor | None,
    excluded: tuple[Tensor, Tensor],
    k: int,
) -> Iterator[tuple[int, Tensor]]:
    """The first item of each block, and the scores of the block in groups, [M, G, X].

    Item g * X + x of a block is member g of group x: the maxima of groups are then those of whole
    vectors. The last block is filled up with -inf. Each block is written over the one before.
    """
    M, V = len(states_MD), len(table_VD)
    size = min(V, max(_FEWEST_ITEMS, _BLOCK_SCORES // M))
    num_members = min(_GROUP, max(1, size // (4 * k)))
    num_groups = -(-size // num_members)
    # One state is asked twice: only from two rows on torch's product uses all cores of a CPU.
    asked_AD = states_MD.expand(2, -1) if M == 1 and states_MD.device.type == "cpu" else states_MD
    buffer_AB = states_MD.new_full((len(asked_AD), num_members * num_groups), -torch.inf)
    buffer_MB = buffer_AB[:M]
    owners_P, items_P = excluded
    edges = torch.searchsorted(items_P, torch.arange(0, V + size, size, device=items_P.device))
    for number, start in enumerate(range(0, V, size)):
        end = min(start + size, V)
        scores_MB = buffer_MB[:, : end - start]
        _write_scores(asked_AD, table_VD[start:end], buffer_AB[:, : end - start])
        buffer_MB[:, end - start :] = -torch.inf
        if bias_V is not None:
            scores_MB += bias_V[start:end]
        here = slice(int(edges[number]), int(edges[number + 1]))
        scores_MB[owners_P[here], items_P[here] - start] = -torch.inf
        yield start, buffer_MB.view(M, num_members, num_groups)


def _write_scores(states_MD: Tensor, rows_BD: Tensor, scores_MB: Tensor) -> None:
    """Products of all states and some rows of the table, into `scores_MB`."""
    if rows_BD.dtype == states_MD.dtype:
        torch.mm(states_MD, rows_BD.t(), out=scores_MB)
        return
    size = max(1, _CONVERTED * torch.get_num_threads() // rows_BD.shape[1])
    buffer_CD = states_MD.new_empty(min(size, len(rows_BD)), rows_BD.shape[1])
    for start in range(0, len(rows_BD), size):
        piece_CD = rows_BD[start : start + size]
        converted_CD = buffer_CD[: len(piece_CD)].copy_(piece_CD)
        here = scores_MB[:, start : start + len(piece_CD)]
        torch.mm(states_MD, converted_CD.t(), out=here)
