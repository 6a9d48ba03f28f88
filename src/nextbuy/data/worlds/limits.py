"""The limit: what the truth itself scores, in expectation, on given questions.

Legend: C cases, V items of the catalog. p_cj is the true probability that the answer of case c is
item j, given what is visible. A row sums to less than 1 where the catalog lacks items.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_K = 10


def expected_scores(chunks: Iterable[Float64]) -> dict[str, float]:
    """Expected scores of the truth as a model, over the draw of the answers.

    `loss` is the mean entropy of the next item, over answers that the catalog has: the lowest
    expected loss of any model. `accuracy` and `recall_weighted` are the mean of max_j p_cj, the
    rankings (`hit_rate@10`, `recall@10`, `ndcg@10`, `mrr@10`; one answer a case, so that recall is
    the hit rate) are those of the order by p: nothing scores higher in expectation.

    `precision`, `precision_weighted` and `recall` are those of the Bayes classifier, which says
    the most probable item, and one of them at random when several are. It has the best accuracy; a
    classifier made for macro precision can have a better macro precision, so these three are no
    upper bounds. (Already breaking ties by index is such a trick: on `world:uniform` it says a late
    platform only when few are left, and its macro precision is five times its accuracy.)
    With w_cj the probability that case c is told j, N_j = sum_c w_cj, TP_j = sum_c w_cj p_cj and
    S_j = sum_c p_cj: precision_j = TP_j / N_j, recall_j = TP_j / S_j. A macro mean is over the
    items that are told or are an answer, as in scikit-learn, and answers that the catalog lacks
    are one more item; an item is an answer with probability 1 - prod_c(1 - p_cj), and told
    likewise. The expectation of a ratio is taken as the ratio of the expectations, which counts of
    tens of cases make good.

    Args:
        chunks: p_cj of some cases each, shape [n, V + 1]; column 0 is padding and 0.

    Returns:
        The scores by name; `nan` without cases.
    """
    totals = _Totals()
    for chunk in chunks:
        totals.add(chunk)
    return totals.scores()


class _Totals:
    """Sums over chunks of cases."""

    def __init__(self) -> None:
        self.num_cases = 0
        self.known = self.entropy = self.best = self.log_all_known = 0.0
        self.by_rank = np.zeros(_K)
        self.confusion: Float64 | None = None  # rows: see `add`

    def add(self, p: Float64) -> None:
        known = p.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.entropy -= float(np.nansum(p * np.log(p / known[:, None])))
            self.log_all_known += float(np.log(np.minimum(known, 1.0)).sum())
        self.num_cases += len(p)
        self.known += float(known.sum())
        best = p[:, 1:].max(axis=1, keepdims=True)
        told = (p == best).astype(np.float64)
        told[:, 0] = 0.0
        told /= told.sum(axis=1, keepdims=True)
        self.best += float(best.sum())
        k = min(_K, p.shape[1] - 1)
        top = -np.sort(np.partition(-p[:, 1:], k - 1, axis=1)[:, :k], axis=1)
        self.by_rank[:k] += top.sum(axis=0)
        hits = told * p
        with np.errstate(divide="ignore"):
            log_untold = np.log1p(-told).sum(axis=0)
            log_absent = np.log1p(-np.minimum(p, 1.0)).sum(axis=0)
        rows = np.stack(
            [
                told.sum(axis=0),
                hits.sum(axis=0),
                (hits * (1 - p)).sum(axis=0),
                p.sum(axis=0),
                log_untold,
                log_absent,
            ]
        )
        self.confusion = rows if self.confusion is None else self.confusion + rows

    def scores(self) -> dict[str, float]:
        if self.confusion is None or self.num_cases == 0:
            return dict.fromkeys(_NAMES, float("nan"))
        num_told, hits, variance, answers, log_untold, log_absent = self.confusion[:, 1:]
        is_told, is_answer = -np.expm1(log_untold), -np.expm1(log_absent)
        num_labels = float(-np.expm1(log_untold + log_absent).sum()) - math.expm1(
            self.log_all_known
        )
        precision = np.divide(hits, num_told, out=np.zeros_like(hits), where=num_told > 0)
        recall = np.divide(hits, answers, out=np.zeros_like(hits), where=answers > 0)
        # E[S_j TP_j] = E[S_j] E[TP_j] + Var, because the answers of cases are independent.
        weighted = np.divide(
            answers * hits + variance, num_told, out=np.zeros_like(hits), where=num_told > 0
        )
        ranks = np.arange(1, _K + 1)
        by_rank = self.by_rank / self.num_cases
        values = (
            self.entropy / self.known if self.known > 0 else float("nan"),
            self.best / self.num_cases,
            float((is_told * precision).sum()) / num_labels,
            float((is_answer * recall).sum()) / num_labels,
            float(weighted.sum()) / self.num_cases,
            self.best / self.num_cases,
            float(by_rank.sum()),
            float(by_rank.sum()),
            float((by_rank / np.log2(ranks + 1)).sum()),
            float((by_rank / ranks).sum()),
        )
        return dict(zip(_NAMES, values, strict=True))


_NAMES = (
    "loss",
    "accuracy",
    "precision",
    "recall",
    "precision_weighted",
    "recall_weighted",
    f"hit_rate@{_K}",
    f"recall@{_K}",
    f"ndcg@{_K}",
    f"mrr@{_K}",
)
