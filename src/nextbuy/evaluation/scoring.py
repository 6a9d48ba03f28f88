"""Ask a model every case and keep what the metrics need, never a whole users x items table.

Legend: C cases, T targets, V items, k offers.
"""

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import (
    DAY,
    PADDING,
    UNKNOWN,
    Float32,
    Histories,
    Int32,
    Int64,
    jagged_rows,
    offsets_of,
)
from nextbuy.errors import TrainingError
from nextbuy.metrics.ranking import MISSED, case_of_target
from nextbuy.models.protocol import LARGE_CATALOG, FittedModel, RanksTargets, top_k
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Cases
from nextbuy.splitting.repeat import RepeatPolicy, apply_repeat_policy
from nextbuy.splitting.rules import CatalogRules, Rules

Float64 = NDArray[np.float64]

_CHUNK_BYTES: Final = 2**24  # what is larger gets new pages of memory each time
_MOST_CASES: Final = 1_024  # of one chunk: a network holds its activations, too


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CaseScores:
    """What a model said about each case, and how it stands to the truth.

    Attributes:
        target_items: Item index of each target, `UNKNOWN` where the catalog lacks it; length T.
        target_offsets: Case c has the targets `target_offsets[c]:target_offsets[c + 1]`.
        target_values: Money paid for each target, `nan` unknown; or None.
        ranks: Rank of each target in the whole catalog from 1, ties by item index; `MISSED` where
            the catalog lacks it or the policy excludes it.
        log_probabilities: Log p of each target; `nan` where the rank is `MISSED`.
        repeats: Whether the target is in the visible history; length T.
        excluded: Whether the catalog knows the target, but the repeat policy forbids to offer it.
        top_items: Best offers first, shape [C, min(k, V)]; `PADDING` where nothing may be offered.
        top_log_probabilities: Their log p, `-inf` where nothing may be offered.
        history_lengths: Visible purchases of each case.
        days_away: Days from the last visible purchase of each case to the question; `nan` for an
            empty history and where time is only an order.
        target_ages: Days from the first purchase of each target in any visible history to the
            question; `nan` where there is none.
        num_items: V.
    """

    target_items: Int32
    target_offsets: Int64
    target_values: Float32 | None
    ranks: Int64
    log_probabilities: Float32
    repeats: NDArray[np.bool_]
    excluded: NDArray[np.bool_]
    top_items: Int32
    top_log_probabilities: Float32
    history_lengths: Int64
    days_away: Float64
    target_ages: Float64
    num_items: int

    def __len__(self) -> int:
        return len(self.target_offsets) - 1

    def part(self, targets: NDArray[np.bool_]) -> "CaseScores":
        """Only the targets that are marked, length T; every case stays, some without targets."""
        marked = np.concatenate([[0], np.cumsum(targets, dtype=np.int64)])
        return self._with(
            np.flatnonzero(targets), np.diff(marked[self.target_offsets]), slice(None)
        )

    def take(self, cases: NDArray[np.integer]) -> "CaseScores":
        """Only some of the cases, in the order given."""
        lengths = np.diff(self.target_offsets)[cases]
        return self._with(jagged_rows(self.target_offsets[:-1][cases], lengths), lengths, cases)

    def _with(
        self, rows: Int64, lengths: Int64, cases: NDArray[np.integer] | slice
    ) -> "CaseScores":
        return CaseScores(
            target_items=self.target_items[rows],
            target_offsets=offsets_of(lengths),
            target_values=None if self.target_values is None else self.target_values[rows],
            ranks=self.ranks[rows],
            log_probabilities=self.log_probabilities[rows],
            repeats=self.repeats[rows],
            excluded=self.excluded[rows],
            top_items=self.top_items[cases],
            top_log_probabilities=self.top_log_probabilities[cases],
            history_lengths=self.history_lengths[cases],
            days_away=self.days_away[cases],
            target_ages=self.target_ages[rows],
            num_items=self.num_items,
        )


def score(
    model: FittedModel,
    cases: Cases,
    catalog: Catalog,
    *,
    repeat: RepeatPolicy = RepeatPolicy.ALLOW,
    rules: Rules | None = None,
    k: int = 20,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> CaseScores:
    """Ask the model every case, in chunks of similar history length.

    Args:
        model: Fitted on the same catalog.
        cases: Questions with answers.
        catalog: What can be offered; all of it is ranked, never a sample.
        repeat: Items that it forbids get no probability, and the rest is scaled up.
        rules: Of the shop; what they forbid is treated the same way.
        k: Offers to keep for each case.
        chunk: Cases at a time; by default as many as fit into 16 MiB of probabilities, and more
            where the catalog is large and the model ranks targets without whole rows.
        progress: Told about cases.

    Raises:
        TrainingError: If the model answers with `nan` or with another shape.
    """
    progress = progress or SilentProgress()
    num_items = len(catalog)
    scores = _empty_scores(cases, num_items, min(k, num_items))
    ranks = rules is None and num_items >= LARGE_CATALOG and isinstance(model, RanksTargets)
    if ranks:
        chunk = chunk or _MOST_CASES
    chunk = chunk or max(1, min(_CHUNK_BYTES // (4 * (num_items + 1)), _MOST_CASES))
    # Similar lengths together: a network pads to the longest of its batch.
    order = np.argsort(cases.histories.lengths, kind="stable")
    asked = _Asked(model, repeat, None if rules is None else rules.for_catalog(catalog))
    progress.start(f"scoring {model.name}", len(cases))
    for start in range(0, len(cases), chunk):
        chosen = order[start : start + chunk]
        (_rank_chunk if ranks else _score_chunk)(asked, cases, chosen, scores)
        progress.advance(len(chosen), {})
    progress.finish()
    return scores


def _empty_scores(cases: Cases, num_items: int, k: int) -> CaseScores:
    num_targets = len(cases.target_items)
    return CaseScores(
        target_items=cases.target_items,
        target_offsets=cases.target_offsets,
        target_values=cases.target_values,
        ranks=np.full(num_targets, MISSED, dtype=np.int64),
        log_probabilities=np.full(num_targets, np.nan, dtype=np.float32),
        repeats=np.zeros(num_targets, dtype=np.bool_),
        excluded=np.zeros(num_targets, dtype=np.bool_),
        top_items=np.zeros((len(cases), k), dtype=np.int32),
        top_log_probabilities=np.full((len(cases), k), -np.inf, dtype=np.float32),
        history_lengths=cases.histories.lengths,
        days_away=_days_away(cases),
        target_ages=_target_ages(cases, num_items),
        num_items=num_items,
    )


def _days_away(cases: Cases) -> Float64:
    histories, away = cases.histories, np.full(len(cases), np.nan)
    if cases.as_of is not None and histories.time_kind == "dates":
        bought = np.flatnonzero(histories.lengths)
        last = histories.times[histories.offsets[bought + 1] - 1]
        away[bought] = (cases.as_of[bought] - last) / DAY
    return away


def _target_ages(cases: Cases, num_items: int) -> Float64:
    histories, ages = cases.histories, np.full(len(cases.target_items), np.nan)
    if cases.as_of is None or histories.time_kind != "dates":
        return ages
    first = np.full(num_items + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, histories.items, histories.times)
    asked = cases.as_of[case_of_target(cases.target_offsets)]
    sold = (cases.target_items != UNKNOWN) & (first[cases.target_items] < asked)
    ages[sold] = (asked[sold] - first[cases.target_items[sold]]) / DAY
    return ages


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A model, and what may be offered."""

    model: FittedModel
    repeat: RepeatPolicy
    rules: CatalogRules | None


def _score_chunk(asked: _Asked, cases: Cases, chosen: Int64, scores: CaseScores) -> None:
    """Fill the rows of the chosen cases into `scores`."""
    part = cases.take(chosen)
    raw = asked.model.log_probabilities(part.histories, part.as_of)
    _refuse_broken(asked.model.name, raw, (len(part), scores.num_items + 1))
    allowed = apply_repeat_policy(raw, part.histories, part.as_of, asked.repeat)
    if asked.rules is not None:
        allowed = asked.rules.apply(allowed)
    top_items, top_values = top_k(allowed, scores.top_items.shape[1])
    scores.top_items[chosen] = np.where(np.isneginf(top_values), PADDING, top_items)
    scores.top_log_probabilities[chosen] = top_values
    rows = jagged_rows(cases.target_offsets[chosen], np.diff(part.target_offsets))
    owners = case_of_target(part.target_offsets)
    known = part.target_items != UNKNOWN
    scores.repeats[rows] = _in_history(part.histories, owners, part.target_items, len(raw[0]))
    found = allowed[owners, part.target_items]
    excluded = known & np.isneginf(found) & ~np.isneginf(raw[owners, part.target_items])
    scores.excluded[rows] = excluded
    ranked = known & ~excluded
    scores.log_probabilities[rows[ranked]] = found[ranked]
    scores.ranks[rows[ranked]] = ranks_of(allowed, owners[ranked], part.target_items[ranked])


def _rank_chunk(asked: _Asked, cases: Cases, chosen: Int64, scores: CaseScores) -> None:
    """`_score_chunk` for a model that ranks targets itself."""
    part = cases.take(chosen)
    assert isinstance(asked.model, RanksTargets)  # noqa: S101  (the caller looks)
    owners = case_of_target(part.target_offsets)
    known = np.flatnonzero(part.target_items != UNKNOWN)
    found = asked.model.rank(
        part.histories, part.as_of, scores.top_items.shape[1],
        blocked=asked.repeat.blocks(part.histories, part.as_of),
        owners=owners[known], targets=part.target_items[known],
    )  # fmt: skip
    broken = np.count_nonzero(np.isnan(found.log_probabilities), axis=1) > 0
    broken[owners[known][np.isnan(found.target_log_probabilities)]] = True
    _refuse_nan(asked.model.name, broken)
    scores.top_items[chosen] = found.items
    scores.top_log_probabilities[chosen] = found.log_probabilities
    rows = jagged_rows(cases.target_offsets[chosen], np.diff(part.target_offsets))
    width = scores.num_items + 1
    scores.repeats[rows] = _in_history(part.histories, owners, part.target_items, width)
    excluded = np.isneginf(found.target_log_probabilities)
    scores.excluded[rows[known]] = excluded
    ranked = rows[known[~excluded]]
    scores.log_probabilities[ranked] = found.target_log_probabilities[~excluded]
    scores.ranks[ranked] = found.target_ranks[~excluded]


def ranks_of(log_probabilities: Float32, rows: Int64, items: Int32) -> Int64:
    """Rank of an item in a row: 1 + items with more + items with as much and a lower index.

    Args:
        log_probabilities: Shape [rows, V + 1]; column 0 is padding and ranks nowhere.
        rows: Row of each question, length T.
        items: Item index of each question, 1..V.
    """
    ranks = np.empty(len(rows), dtype=np.int64)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))  # of runs of questions about one row
    for start, end in itertools.pairwise([*starts.tolist(), len(rows)]):
        row, asked = log_probabilities[rows[start], 1:], items[start:end] - 1
        own = row[asked][:, None]
        ranks[start:end] = 1 + np.count_nonzero(row > own, axis=1)
        equal = row == own
        for tied in np.flatnonzero(np.count_nonzero(equal, axis=1) > 1).tolist():
            ranks[start + tied] += np.count_nonzero(equal[tied, : asked[tied]])
    return ranks


def _in_history(histories: Histories, owners: Int64, items: Int32, width: int) -> NDArray[np.bool_]:
    bought = histories.owners * width + histories.items
    repeated: NDArray[np.bool_] = np.isin(owners * width + items, bought) & (items != UNKNOWN)
    return repeated


def _refuse_broken(name: str, log_probabilities: Float32, shape: tuple[int, int]) -> None:
    if log_probabilities.shape != shape:
        raise TrainingError(
            f"The model {name} gave log-probabilities of shape {log_probabilities.shape} for "
            f"{shape[0]} histories and {shape[1] - 1} items; {shape} is needed. "
            "Was it fitted on another catalog?"
        )
    _refuse_nan(name, np.count_nonzero(np.isnan(log_probabilities), axis=1) > 0)


def _refuse_nan(name: str, broken: NDArray[np.bool_]) -> None:
    """`broken` marks the histories for which a probability is nan."""
    if broken.any():
        raise TrainingError(
            f"The model {name} gave nan as probability for {int(broken.sum())} of {len(broken)} "
            "histories. It cannot be scored; fit it again with a lower learning rate."
        )
