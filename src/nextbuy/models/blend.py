"""The blend: a mixture of fitted models, weighed apart for what returns and for what is new.

A user's own items are those of the history. With R_m the probability that member m gives to all of
them together and p_m its distribution,

    p(i | u) = R(u) sum_m a_m p_m(i | u) / R_m(u)                if i is an own item
    p(i | u) = (1 - R(u)) sum_m b_m p_m(i | u) / (1 - R_m(u))    if it is new
    R(u)     = sum_m c_m R_m(u).

Counting knows best which of their items people buy again, neighbours and networks what new ones
they try; one weight for both would pay for the one with the other. The likelihood of a purchase is
the product of two factors, own or new, and which; so a, b and c are each found by
expectation-maximisation on the validation targets, whose every step raises the likelihood.

Among what is new, likelihood alone would choose members that are never far off over members that
are often right: most targets are far down every list, and their logarithms weigh most. b therefore
maximises

    sum over new targets of log(e + sum_m b_m p_m),

with e the mean over members of the probability of their tenth new offer: a target counts as far as
it could come into a list of ten. From there it goes towards the weights of the highest likelihood,
in tenths, until the blend's likelihood is at least that of its best member.

Legend: C cases, T targets, M members, V items, P pairs of a user and an own item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from nextbuy.data.histories import UNKNOWN, Float32, Histories, Int64
from nextbuy.models.protocol import FittedModel
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Cases

Float64 = NDArray[np.float64]

BLEND: Final = "blend"
"""The name of the blend among the models of a predictor."""

_CHUNK_BYTES: Final = 2**24
_NEGLIGIBLE: Final = 1e-3
_LIST: Final = 10
_LEAST: Final = 1e-30


class BlendWeights(BaseModel):
    """What each member weighs, by its name; each of the first three sums to 1.

    Attributes:
        repeat: a, which own item is bought again.
        explore: b, which new item is bought.
        choice: c, whether the next purchase is an own item.
        repeat_share: Share of the validation targets that were own items.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repeat: Mapping[str, float]
    explore: Mapping[str, float]
    choice: Mapping[str, float]
    repeat_share: float

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        for part in (self.repeat, self.explore, self.choice):
            values = list(part.values())
            if set(part) != set(self.choice) or min(values, default=-1.0) < 0:
                raise ValueError(f"weights {dict(part)} are not those of {sorted(self.choice)}")
            if abs(sum(values) - 1.0) > 1e-6:
                raise ValueError(f"weights {dict(part)} sum to {sum(values)}, not to 1")
        if not 0 <= self.repeat_share <= 1:
            raise ValueError(f"a share of {self.repeat_share} is none")
        return self

    def overall(self) -> dict[str, float]:
        """One weight a member: those of the parts by how often each part was asked for."""
        share = self.repeat_share
        return {n: share * self.repeat[n] + (1 - share) * self.explore[n] for n in self.choice}

    @property
    def asked(self) -> list[str]:
        """The members that weigh anything anywhere."""
        parts = (self.repeat, self.explore, self.choice)
        return [name for name in self.choice if any(part[name] > 0 for part in parts)]

    def in_words(self) -> str:
        """`bought again: 62 % tifu-knn, 38 % ease; new: 100 % markov`: the largest first."""
        return f"bought again: {_in_words(self.repeat)}; new: {_in_words(self.explore)}"


class Blend:
    """The mixture of the module; it asks its members and keeps nothing of its own but weights.

    A predictor stores the weights beside the members, so `save` and `load` have nothing to do.
    """

    name: ClassVar[str] = BLEND

    def __init__(self, members: Mapping[str, FittedModel], weights: BlendWeights) -> None:
        """Members without any weight are not asked."""
        self.weights = weights
        self._members = {name: members[name] for name in weights.asked}

    @classmethod
    def of(
        cls, members: Mapping[str, FittedModel], validation: Cases, progress: Progress | None = None
    ) -> "Blend":
        """Weights from the likelihood of the validation targets; see the module."""
        found = target_likelihoods(list(members.values()), validation, progress=progress)
        return cls(members, blend_weights(list(members), found))

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """Log of the mixture; see `Model.log_probabilities`."""
        pairs: _OwnItems | None = None
        weights = self.weights
        for name, model in self._members.items():
            p = np.exp(model.log_probabilities(histories, as_of))
            if pairs is None:
                pairs = _OwnItems.of(histories, p.shape[1])
                new, own, repeated = np.zeros_like(p), np.zeros(len(pairs.users)), np.zeros(len(p))
            mine, mass, rest = pairs.split(p)
            repeated += weights.choice[name] * mass
            own += weights.repeat[name] * _ratio(mine, mass[pairs.users])
            p *= _ratio(np.full(len(p), weights.explore[name]), rest)[:, None].astype(np.float32)
            new += p
        assert pairs is not None, "weights sum to 1"  # noqa: S101
        total_own, total_new = pairs.sums(own), new.sum(axis=1, dtype=np.float64)
        repeated[total_new == 0] = 1.0  # who has bought all there is
        repeated[total_own == 0] = 0.0  # who has bought nothing
        new *= _ratio(1.0 - repeated, total_new)[:, None].astype(np.float32)
        new[pairs.users, pairs.items] = own * _ratio(repeated, total_own)[pairs.users]
        np.log(np.maximum(new, _LEAST, out=new), out=new)  # a network may round to 0
        new[:, 0] = -np.inf
        return new

    def in_words(self) -> str:
        """What it leans on; see `BlendWeights.in_words`."""
        return self.weights.in_words()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _OwnItems:
    """The distinct items of each history, as pairs; both arrays have length P."""

    users: Int64
    items: Int64
    num_users: int

    @classmethod
    def of(cls, histories: Histories, width: int) -> "_OwnItems":
        pairs = np.unique(histories.owners * width + histories.items)
        users, items = np.divmod(pairs, width)
        return cls(users=users, items=items, num_users=len(histories))

    def sums(self, values: Float64) -> Float64:
        """Sum over each user's own items."""
        return np.bincount(self.users, values, self.num_users).astype(np.float64)

    def split(self, table: Float32) -> tuple[Float64, Float64, Float64]:
        """Take the own items out of a table of probabilities, shape [U, V + 1], leaving zeros.

        Returns:
            Their probabilities, length P, the sum of them and of the rest for each user.
        """
        mine = table[self.users, self.items].astype(np.float64)
        table[self.users, self.items] = 0.0
        return mine, self.sums(mine), table.sum(axis=1, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TargetLikelihoods:
    """What members gave to what was bought; targets that the catalog lacks are left out.

    Attributes:
        which: Probability of each target by each member among the own items if it is one, among
            the new ones if not: p_m / R_m or p_m / (1 - R_m); shape [T, M].
        whether: Probability that an own item is bought if it is one, that a new one is if not: R_m
            or 1 - R_m; shape [T, M].
        bars: What the tenth offer among the new items has, by each member; 0 where there are not so
            many, and for own targets; shape [T, M].
        is_own: Whether the target is an own item, length T.
    """

    which: Float64
    whether: Float64
    bars: Float64
    is_own: NDArray[np.bool_]


def target_likelihoods(
    models: Sequence[FittedModel], cases: Cases, *, progress: Progress | None = None
) -> TargetLikelihoods:
    """Ask every member every case."""
    progress = progress or SilentProgress()
    owners = np.repeat(np.arange(len(cases)), np.diff(cases.target_offsets))
    known = cases.target_items != UNKNOWN
    owners, targets = owners[known], cases.target_items[known].astype(np.int64)
    which, whether, bars = np.zeros((3, len(targets), len(models)))
    is_own = np.zeros(len(targets), dtype=np.bool_)
    order = np.argsort(cases.histories.lengths, kind="stable")
    place_of = np.empty(len(order), dtype=np.int64)
    place_of[order] = np.arange(len(order))
    for member, model in enumerate(models):
        progress.start(f"weighing {model.name}", len(cases))
        step, start = 1, 0
        while start < len(order):
            rows = order[start : start + step]
            part = cases.take(rows)
            table = np.exp(model.log_probabilities(part.histories, part.as_of))
            mine = np.flatnonzero((place_of[owners] >= start) & (place_of[owners] < start + step))
            row = place_of[owners[mine]] - start
            likelihood = table[row, targets[mine]].astype(np.float64)
            pairs = _OwnItems.of(part.histories, table.shape[1])
            keys = pairs.users * table.shape[1] + pairs.items
            is_own[mine] = np.isin(row * table.shape[1] + targets[mine], keys)
            _, mass, rest = pairs.split(table)
            whether[mine, member] = np.where(is_own[mine], mass[row], rest[row])
            which[mine, member] = _ratio(likelihood, whether[mine, member])
            tenth = np.where(is_own[mine], 0.0, _tenth_of_rows(table)[row])
            bars[mine, member] = _ratio(tenth, whether[mine, member])
            progress.advance(len(rows), {})
            start += len(rows)
            step = max(1, min(1_024, _CHUNK_BYTES // (4 * table.shape[1])))
        progress.finish()
    return TargetLikelihoods(
        which=np.maximum(which, _LEAST), whether=np.maximum(whether, _LEAST), bars=bars,
        is_own=is_own,
    )  # fmt: skip


def blend_weights(names: Sequence[str], found: TargetLikelihoods) -> BlendWeights:
    """a, b and c of the module; a part without targets takes the weights of the other."""
    own = found.is_own
    bars = found.bars.mean(axis=1)
    choice = mixture_weights(found.whether)
    repeat = mixture_weights(found.which[own])
    likely = mixture_weights(found.which[~own])
    ranked = mixture_weights(found.which[~own], bars=bars[~own])
    explore = ranked
    best = max(np.log(found.which * found.whether).sum(axis=0).tolist(), default=0.0)
    for tenths in range(11):
        explore = (tenths * likely + (10 - tenths) * ranked) / 10
        which = np.where(own, found.which @ repeat, found.which @ explore)
        if np.log(which * (found.whether @ choice)).sum() >= best:
            break
    repeat = repeat if own.any() else explore
    explore = explore if not own.all() else repeat
    return BlendWeights(
        repeat=dict(zip(names, repeat.tolist(), strict=True)),
        explore=dict(zip(names, explore.tolist(), strict=True)),
        choice=dict(zip(names, choice.tolist(), strict=True)),
        repeat_share=float(own.mean()) if len(own) else 0.0,
    )


def mixture_weights(
    likelihoods: Float64,
    *,
    bars: Float64 | None = None,
    steps: int = 2_000,
) -> Float64:
    """Weights w >= 0 that sum to 1 and maximise sum_t log(e_t + sum_m w_m p_tm).

    Args:
        likelihoods: p_tm, shape [T, M]: what member m gave target t.
        bars: e_t, length T; None is 0.
        steps: Most steps of expectation-maximisation.

    Returns:
        Length M. Members below a thousandth are left out and their weight given to the others; with
        no targets all weigh the same.
    """
    num_members = likelihoods.shape[1]
    weights = np.full(num_members, 1.0 / num_members)
    if len(likelihoods) == 0:
        return weights
    before = -np.inf
    for _ in range(steps):
        joint = likelihoods * weights
        total = joint.sum(axis=1) + (0.0 if bars is None else bars)
        score = float(np.log(total).mean())
        if score - before < 1e-9:
            break
        before = score
        weights = (joint / total[:, None]).mean(axis=0)
        weights /= weights.sum()
    kept: Float64 = np.where(weights >= _NEGLIGIBLE, weights, 0.0)
    kept /= kept.sum()
    return kept


def _tenth_of_rows(table: Float32) -> Float64:
    """The tenth largest of each row, 0 where there are fewer items."""
    place = table.shape[1] - _LIST
    if place < 1:
        return np.zeros(len(table))
    return np.partition(table, place, axis=1)[:, place].astype(np.float64)


def _ratio(value: Float64, of: Float64) -> Float64:
    """value / of; 0 where `of` is 0."""
    return np.divide(value, of, out=np.zeros_like(value), where=of > 0)


def _in_words(weights: Mapping[str, float]) -> str:
    shown = sorted(weights.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{100 * weight:.0f} % {name}" for name, weight in shown if weight >= 0.005)
