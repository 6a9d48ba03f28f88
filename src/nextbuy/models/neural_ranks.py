"""Where targets stand among all items of a large catalog, without a row of all for each user.

Targets are listed beside own and blocked items (see `nextbuy.models.neural_top_k`), and what is not
listed is ordered by its score alone. So the rank of a target is one more than the others that come
before its score, which are counted in the pass that finds the best, and the listed items that are
more probable.

A target that the repeat head speaks for is more probable than its score says: it stands as high as
another item would with the score that makes it as probable. That score is known only after the
pass. Such targets are mostly among the best items, which then tell; for the rest there is a second
pass.

Legend: U users, M states that are asked, R width of a state, P listed pairs, T targets, k items
that are wanted.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextbuy.data.histories import PADDING, Histories, Int32, Int64
from nextbuy.models.neural_scoring import asked
from nextbuy.models.neural_top_k import (
    Listed,
    Others,
    Probable,
    best_of_both,
    blocked_pairs,
    listed_items,
    logits_of_listed,
    probable,
)
from nextbuy.models.protocol import Ranked
from nextbuy.nn.network import Scorer
from nextbuy.nn.placing import as_array, placed
from nextbuy.nn.top_k import Marks, top_items_totals_and_places
from nextbuy.splitting.repeat import Blocked


def ranked(
    network: Scorer,
    histories: Histories,
    as_of: Int64 | None,
    k: int,
    *,
    longest: int,
    temperature: float,
    groups: Int64 | None,
    blocked: Blocked,
    owners: Int64,
    targets: Int32,
) -> Ranked:
    """The best items of each user, and the ranks of targets; see `RanksTargets.rank`.

    The other arguments are those of `nextbuy.models.neural_scoring.score_histories`.
    """
    num_items = len(network.output()[1])
    k = min(k, num_items)
    found = Ranked(
        items=np.full((len(histories), k), PADDING, dtype=np.int32),
        log_probabilities=np.full((len(histories), k), -np.inf, dtype=np.float32),
        target_log_probabilities=np.full(len(targets), -np.inf, dtype=np.float32),
        target_ranks=np.zeros(len(targets), dtype=np.int64),
    )
    with torch.no_grad():
        for rows, states_MR, own in asked(
            network, histories, as_of, longest=longest, groups=groups
        ):
            mine = slice(*np.searchsorted(owners, [rows[0], rows[-1] + 1]))
            pairs = (owners[mine] - rows[0]) * num_items + targets[mine] - 1
            barred = blocked_pairs(blocked, rows, num_items)
            listed = listed_items(network, states_MR, own, barred, more=np.unique(pairs))
            places = np.searchsorted(listed.owners * num_items + listed.items, pairs)
            here = _Asked(network, states_MR, listed, temperature, k).ranked(places)
            found.items[rows], found.log_probabilities[rows] = here.items, here.log_probabilities
            found.target_log_probabilities[mine] = here.target_log_probabilities
            found.target_ranks[mine] = here.target_ranks
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """Some states, [M, R], and what is listed for them."""

    network: Scorer
    states: Tensor
    listed: Listed
    temperature: float
    k: int

    def ranked(self, places_T: Int64) -> Ranked:
        """For targets at these places among the listed items."""
        listed = self.listed
        logits_P = logits_of_listed(self.network, self.states, listed, self.temperature)
        scores_T = logits_P[placed(places_T, self.network.device)]
        others, before_T = self._others(places_T, scores_T, np.arange(len(self.states)))
        both = probable(listed, as_array(logits_P.double()), others)
        is_own = np.isfinite(listed.log_own[places_T]) & ~listed.is_blocked[places_T]
        own = np.flatnonzero(is_own)
        before_T[own] = self._before_own(places_T[own], both, others)
        items, values = best_of_both(listed, both, others[0])
        return Ranked(
            items=items,
            log_probabilities=values,
            target_log_probabilities=both.of_listed[places_T].astype(np.float32),
            target_ranks=1 + before_T + _places_in_list(both.of_listed, listed)[places_T],
        )

    def _others(self, places_T: Int64, scores_T: Tensor, asked: Int64) -> tuple[Others, Int64]:
        """The best of the others for some states, and how many come before scores of theirs, which
        are held to be those of these listed items."""
        listed, device = self.listed, self.network.device
        weight_VR, bias_V = self.network.output()
        is_asked = np.zeros(len(self.states), np.bool_)
        is_asked[asked] = True
        renumbered = np.cumsum(is_asked) - 1
        mine = is_asked[listed.owners]
        excluded = renumbered[listed.owners[mine]], listed.items[mine]
        order = np.argsort(listed.owners[places_T], kind="stable")
        marked = places_T[order]
        marks = Marks(
            owners=placed(renumbered[listed.owners[marked]], device),
            items=placed(listed.items[marked], device),
            scores=scores_T[placed(order, device)],
        )
        found = top_items_totals_and_places(
            self.states[placed(asked, device)] / self.temperature,
            weight_VR, self.k, marks, bias_V=bias_V / self.temperature,
            excluded=(placed(excluded[0], device), placed(excluded[1], device)),
        )  # fmt: skip
        items, logits, log_totals, before = (as_array(part) for part in found)
        in_order = np.empty(len(order), np.int64)
        in_order[order] = before
        return (items, logits, log_totals), in_order

    def _before_own(self, places_T: Int64, both: Probable, others: Others) -> Int64:
        """How many others come before targets that the repeat head speaks for."""
        items_Mk, logits_Mk, _ = others
        owners_T, items_T = self.listed.owners[places_T], self.listed.items[places_T]
        scores_T = (both.of_listed[places_T] - both.log_scale[owners_T]).astype(np.float32)
        theirs_Tk = logits_Mk[owners_T]
        is_before = (theirs_Tk > scores_T[:, None]) | (
            (theirs_Tk == scores_T[:, None]) & (items_Mk[owners_T] < items_T[:, None])
        )
        before_T: Int64 = np.count_nonzero(is_before, axis=1)
        deep = np.flatnonzero(is_before.all(axis=1))
        if len(deep):
            scores = placed(scores_T[deep], self.network.device)
            _, before_T[deep] = self._others(places_T[deep], scores, np.unique(owners_T[deep]))
        return before_T


def _places_in_list(of_listed: NDArray[np.float64], listed: Listed) -> Int64:
    """How many listed items of the same state come before each, [P]."""
    order = np.lexsort((listed.items, -of_listed, listed.owners))
    firsts = np.searchsorted(listed.owners, listed.owners)
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order)) - firsts[order]
    return places
