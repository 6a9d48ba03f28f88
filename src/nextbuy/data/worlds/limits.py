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
    With w_cj the probability that case c is told j, N_j = sum_c w_cj, TP_j = sum_c w_cj p_cj:
    precision_j = TP_j / N_j, and recall_j is the expected share of the answers j that were told,

        integral over y in [0, 1] of  sum_c w_cj p_cj prod_{d != c} (1 - p_dj y),

    because a hit is one of 1 + n answers j, n those of the other cases, and E[1 / (1 + n)] is the
    integral of E[(1 - y)^n]. A macro mean is over the items that are told or are an answer, as in
    scikit-learn, and answers that the catalog lacks are one more item; an item is an answer with
    probability 1 - prod_c(1 - p_cj), and told likewise. Expected ratios are taken as ratios of
    expectations only for the number of these items, and over random ties.

    Args:
        chunks: p_cj of some cases each, shape [n, V + 1]; column 0 is padding and 0.

    Returns:
        The scores by name; `nan` without cases.
    """
    totals = _Totals()
    for chunk in chunks:
        totals.add(chunk)
    return totals.scores()


def probabilities_of(chunks: Iterable[Float64], told: NDArray[np.integer]) -> Float64:
    """True probability of the item that a model told, length C.

    Args:
        chunks: As in `expected_scores`.
        told: Item index of each case, length C; 0 tells nothing.
    """
    found, start = np.zeros(len(told)), 0
    for chunk in chunks:
        end = start + len(chunk)
        found[start:end] = chunk[np.arange(len(chunk)), told[start:end]]
        start = end
    return found


class _Totals:
    """Sums over chunks of cases."""

    def __init__(self) -> None:
        self.num_cases = 0
        self.known = self.entropy = self.best = self.log_all_known = 0.0
        self.by_rank = np.zeros(_K)
        self.by_item: _ByItem | None = None

    def add(self, p: Float64) -> None:
        known = p.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.entropy -= float(np.nansum(p * np.log(p / known[:, None])))
            self.log_all_known += float(np.log(np.minimum(known, 1.0)).sum())
        self.num_cases += len(p)
        self.known += float(known.sum())
        best = p[:, 1:].max(axis=1, keepdims=True)
        self.best += float(best.sum())
        k = min(_K, p.shape[1] - 1)
        top = -np.sort(np.partition(-p[:, 1:], k - 1, axis=1)[:, :k], axis=1)
        self.by_rank[:k] += top.sum(axis=0)
        told = (p == best).astype(np.float64)
        told[:, 0] = 0.0
        told /= told.sum(axis=1, keepdims=True)
        if self.by_item is None:
            self.by_item = _ByItem(p.shape[1])
        self.by_item.add(p, told)

    def scores(self) -> dict[str, float]:
        if self.by_item is None or self.num_cases == 0:
            return dict.fromkeys(_NAMES, float("nan"))
        precision, recall, weighted, num_labels = self.by_item.sums()
        num_labels -= math.expm1(self.log_all_known)
        ranks = np.arange(1, _K + 1)
        by_rank = self.by_rank / self.num_cases
        values = (
            self.entropy / self.known if self.known > 0 else float("nan"),
            self.best / self.num_cases,
            precision / num_labels,
            recall / num_labels,
            weighted / self.num_cases,
            self.best / self.num_cases,
            float(by_rank.sum()),
            float(by_rank.sum()),
            float((by_rank / np.log2(ranks + 1)).sum()),
            float((by_rank / ranks).sum()),
        )
        return dict(zip(_NAMES, values, strict=True))


class _ByItem:
    """Sums over cases for each item, from which precision and recall are made."""

    def __init__(self, width: int) -> None:
        self.told, self.hits, self.variance, self.answers, self.log_untold = np.zeros((5, width))
        self.log_others = np.zeros((len(_Y), width))  # sum_c ln(1 - p_cj y)
        self.hit_terms = np.zeros((len(_Y), width))  # sum_c w_cj p_cj / (1 - p_cj y)

    def add(self, p: Float64, told: Float64) -> None:
        self.told += told.sum(axis=0)
        self.hits += (told * p).sum(axis=0)
        self.variance += (told * p * (1 - p)).sum(axis=0)
        self.answers += p.sum(axis=0)
        # A small p needs no logarithm of its own: ln(1 - py) = -py - (py)^2 / 2, to 3e-6.
        large = (p > _SMALL) | (told > 0)
        small = np.where(large, 0.0, p)
        first, second = small.sum(axis=0), (small**2).sum(axis=0)
        rows, items = np.nonzero(large)
        q, w, width = np.minimum(p[rows, items], 1.0), told[rows, items], p.shape[1]
        with np.errstate(divide="ignore"):
            self.log_untold += np.bincount(items, np.log1p(-w), width)
            for row, y in enumerate(_Y.tolist()):
                logs = np.bincount(items, np.log1p(-q * y), width)
                self.log_others[row] += logs - first * y - second * y**2 / 2
                if y < 1:
                    self.hit_terms[row] += np.bincount(items, w * q / (1 - q * y), width)

    def sums(self) -> tuple[float, float, float, float]:
        """Sums over items of precision, recall and precision times support; number of labels."""
        told = self.told > 0
        per_told = np.divide(1.0, self.told, out=np.zeros_like(self.told), where=told)
        precision = -np.expm1(self.log_untold) * self.hits * per_told
        recall = _Y_WEIGHTS @ (self.hit_terms * np.exp(self.log_others))
        often = self.answers > _OFTEN
        np.divide(self.hits, self.answers, out=recall, where=often)
        # E[S_j TP_j] = E[S_j] E[TP_j] + Var, because the answers of cases are independent.
        weighted = (self.answers * self.hits + self.variance) * per_told
        is_label = -np.expm1(self.log_untold + self.log_others[-1])[1:]
        return (
            float(precision.sum()),
            float(recall.sum()),
            float(weighted.sum()),
            float(is_label.sum()),
        )


def _nodes() -> tuple[Float64, Float64]:
    """Gauss-Legendre over y in [0, 1] in panels that shrink tenfold towards 0; then y = 1."""
    x, weight = np.polynomial.legendre.leggauss(5)
    ends = np.array([0.0, 1e-3, 1e-2, 1e-1, 1.0])
    widths = np.diff(ends)[:, None]
    y = (ends[:-1, None] + widths * (x + 1) / 2).ravel()
    return np.append(y, 1.0), np.append((widths * weight / 2).ravel(), 0.0)


_SMALL = 0.02
_OFTEN = 2_000
"""Expected answers from which the recall of an item is simply hits / answers."""

_Y, _Y_WEIGHTS = _nodes()

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
