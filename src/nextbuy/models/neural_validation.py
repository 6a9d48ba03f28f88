"""What validation says of a network that is being trained: how likely the answers were, and where
they stood."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from nextbuy.data.histories import UNKNOWN, Int64
from nextbuy.metrics import ranking
from nextbuy.models.neural_ranks import ranked
from nextbuy.models.neural_scoring import validation_loss
from nextbuy.nn.network import Scorer
from nextbuy.splitting.cases import Cases
from nextbuy.splitting.repeat import RepeatPolicy

FEWEST_CASES: Final = 1_000
"""So many cases tell which temperature is best; fewer do not tell which ranking is."""

_LIST: Final = 10
_AT_ONCE: Final = 1_024


def lowest_loss(
    network: Scorer,
    cases: Cases,
    *,
    temperatures: Sequence[float],
    longest: int,
    num_items: int,
    groups: Int64 | None,
) -> tuple[float, float]:
    """The loss at the best of some temperatures, and that temperature, which some cases choose."""

    def loss_of(asked: Cases, temperature: float) -> float:
        return validation_loss(
            network, asked, longest=longest, num_items=num_items, temperature=temperature,
            groups=groups,
        )  # fmt: skip

    few = cases.thinned(FEWEST_CASES)
    losses = [(loss_of(few, t), t) for t in (temperatures if len(temperatures) > 1 else ())]
    if losses and len(few) == len(cases):
        return min(losses)
    chosen = min(losses)[1] if losses else temperatures[0]
    return loss_of(cases, chosen), chosen


def ndcg_of_new(network: Scorer, cases: Cases, *, longest: int, groups: Int64 | None) -> float:
    """Mean ndcg@10 over the cases, own items left out of the lists; an answer that is own, or that
    the catalog lacks, is missed."""
    found = []
    for start in range(0, len(cases), _AT_ONCE):
        part = cases.take(np.arange(start, min(start + _AT_ONCE, len(cases))))
        blocked = RepeatPolicy(kind="exclude").blocks(part.histories, part.as_of)
        owners = ranking.case_of_target(part.target_offsets)
        known = part.target_items != UNKNOWN
        stood = ranked(
            network, part.histories, part.as_of, _LIST, longest=longest, temperature=1.0,
            groups=groups, blocked=blocked, owners=owners[known],
            targets=part.target_items[known],
        )  # fmt: skip
        ranks = np.full(len(owners), ranking.MISSED)
        is_had = np.isfinite(stood.target_log_probabilities)
        ranks[known] = np.where(is_had, stood.target_ranks, ranking.MISSED)
        found.append(ranking.ndcg(ranks, part.target_offsets, _LIST))
    return ranking.mean(np.concatenate(found))
