"""The blend: a mixture of fitted models, with weights that validation chooses.

p(i | u) = sum over members m of w_m p_m(i | u). The weights maximise the likelihood of the
validation cases by expectation-maximisation, whose every step raises it. The likelihood of the
best member alone is reached by the weights (0, .., 1, .., 0), so the blend is never below it there.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import UNKNOWN, Float32, Histories, Int64
from nextbuy.models.protocol import FittedModel
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Cases

Float64 = NDArray[np.float64]

_CHUNK_BYTES: Final = 2**26
_NEGLIGIBLE: Final = 1e-3


def mixture_weights(likelihoods: Float64, case_weights: Float64, *, steps: int = 2_000) -> Float64:
    """Weights w >= 0 that sum to 1 and maximise sum_t c_t log sum_m w_m p_tm.

    Args:
        likelihoods: p_tm, shape [T, M]: what member m gave target t.
        case_weights: c_t, length T; those of the targets of a case sum to 1.
        steps: Most steps of expectation-maximisation.

    Returns:
        Length M. Members below a thousandth are left out and their weight given to the others; with
        no targets all weigh the same.
    """
    num_members = likelihoods.shape[1]
    weights = np.full(num_members, 1.0 / num_members)
    if len(likelihoods) == 0:
        return weights
    share = case_weights / case_weights.sum()
    before = -np.inf
    for _ in range(steps):
        joint = likelihoods * weights
        total = joint.sum(axis=1)
        score = float(share @ np.log(total))
        if score - before < 1e-9:
            break
        before = score
        weights = share @ (joint / total[:, None])
    kept: Float64 = np.where(weights >= _NEGLIGIBLE, weights, 0.0)
    kept /= kept.sum()
    return kept


def target_likelihoods(
    models: Sequence[FittedModel], cases: Cases, *, progress: Progress | None = None
) -> tuple[Float64, Float64]:
    """What each model gives each known target, [T, M], and the weight of each target, [T].

    A case counts once, however many targets it has.
    """
    progress = progress or SilentProgress()
    owners = np.repeat(np.arange(len(cases)), np.diff(cases.target_offsets))
    known = cases.target_items != UNKNOWN
    owners, targets = owners[known], cases.target_items[known]
    found = np.zeros((len(targets), len(models)))
    order = np.argsort(cases.histories.lengths, kind="stable")
    place_of = np.empty(len(order), dtype=np.int64)
    place_of[order] = np.arange(len(order))
    for member, model in enumerate(models):
        progress.start(f"weighing {model.name}", len(cases))
        step = 1
        start = 0
        while start < len(order):
            rows = order[start : start + step]
            part = cases.take(rows)
            log_p = model.log_probabilities(part.histories, part.as_of)
            mine = np.flatnonzero((place_of[owners] >= start) & (place_of[owners] < start + step))
            found[mine, member] = np.exp(
                log_p[place_of[owners[mine]] - start, targets[mine]].astype(np.float64)
            )
            progress.advance(len(rows), {})
            start += len(rows)
            step = max(1, min(1_024, _CHUNK_BYTES // (4 * log_p.shape[1])))
        progress.finish()
    weights = 1.0 / np.bincount(owners, minlength=max(1, len(cases)))[owners]
    return np.maximum(found, 1e-30), weights


BLEND: Final = "blend"
"""The name of the blend among the models of a predictor."""


class Blend:
    """A mixture of fitted models; it asks its members and keeps nothing of its own but weights.

    A predictor stores the weights beside the members, so `save` and `load` have nothing to do.
    """

    name: ClassVar[str] = BLEND

    def __init__(self, members: Mapping[str, FittedModel], weights: Mapping[str, float]) -> None:
        """Members and their weights, which sum to 1; members without weight are not asked."""
        self.weights = dict(weights)
        self._members = {n: members[n] for n, weight in weights.items() if weight > 0}

    @classmethod
    def of(
        cls, members: Mapping[str, FittedModel], validation: Cases, progress: Progress | None = None
    ) -> "Blend":
        """Weights that maximise the likelihood of the validation cases."""
        found, case_weights = target_likelihoods(
            list(members.values()), validation, progress=progress
        )
        weights = mixture_weights(found, case_weights)
        return cls(members, dict(zip(members, weights.tolist(), strict=True)))

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """Log of the mixture; see `Model.log_probabilities`."""
        total: Float32 | None = None
        for name, model in self._members.items():
            p = np.exp(model.log_probabilities(histories, as_of))
            p *= np.float32(self.weights[name])
            total = p if total is None else np.add(total, p, out=total)
        assert total is not None, "weights sum to 1"  # noqa: S101
        with np.errstate(divide="ignore"):  # padding has probability 0
            mixed: Float32 = np.log(total, out=total)
        return mixed

    def in_words(self) -> str:
        """`62 % tifu-knn, 30 % lstm-rnn, 8 % popularity`: the largest first."""
        shown = sorted(self.weights.items(), key=lambda pair: -pair[1])
        return ", ".join(f"{100 * weight:.0f} % {name}" for name, weight in shown if weight > 0)
