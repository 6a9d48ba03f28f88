"""A blend of timing models: the mixture of their outlooks.

Legend: U users, M members, H horizons. A 1 in a shape stands for what broadcasts.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy.special import logsumexp

from nextbuy.data.histories import Histories, Int64
from nextbuy.errors import BundleError, ConfigError, EmptyDataError, NotFittedError
from nextbuy.storage import check_name
from nextbuy.timing import stored
from nextbuy.timing.bg_nbd import BgNbd
from nextbuy.timing.events import Float64, events_before
from nextbuy.timing.mbg_nbd import MbgNbd
from nextbuy.timing.neural import NeuralTiming
from nextbuy.timing.pareto_nbd import ParetoNbd
from nextbuy.timing.protocol import Outlook, TimingModel, log_likelihood
from nextbuy.timing.renewal import Renewal
from nextbuy.timing.waits import Waits
from nextbuy.timing.week import Week, WeeklyOutlook

_log = logging.getLogger(__name__)

MODELS: Final[dict[str, Any]] = {
    m.name: m for m in (BgNbd, MbgNbd, NeuralTiming, ParetoNbd, Renewal)
}
"""Classes by the name under which they are stored."""

_MOST_ROUNDS: Final = 2000
_CLOSE: Final = 1e-10


class Member(stored.Stored):
    """One member: its model's name, and its share."""

    model: str
    weight: float = Field(ge=0, le=1)


class Members(stored.Stored):
    """By the name of the member, which is that of its folder; and the hours of the week."""

    members: dict[str, Member]
    week: Week | None = None


class TimingBlend:
    """S(t) = sum over members of w_m S_m(t); density and expectations likewise.

    The weights are those of highest likelihood of observed and censored waits on validation, by
    expectation-maximisation, and never do worse there than the best member alone. Where people buy
    at some hours of the week more than at others, t is the shop's time (`week`).

    Attributes:
        members: Fitted models by name.
        weights: By name, sum 1; None before `weigh`.
        week: None where hours do not count, and before `fit` or `weigh`.
    """

    name: ClassVar[str] = "timing-blend"

    def __init__(self, members: Mapping[str, TimingModel]) -> None:
        if not members:
            raise ConfigError("A blend of no models was asked for. Give at least one.")
        self.members = {check_name(name): model for name, model in members.items()}
        self.weights: dict[str, float] | None = None
        self.week: Week | None = None

    def fit(self, train: Histories, as_of: int | Int64) -> Self:
        """Fit the members. The weights, if any, stay, and so does whether hours count: that is
        chosen by `weigh`, before a refit on more data."""
        for model in self.members.values():
            model.fit(train, as_of)
        if self.weights is None or self.week is not None:
            self.week = Week.of(events_before(train, as_of))
        return self

    def weigh(self, histories: Histories, as_of: int | Int64, waits: Waits) -> Self:
        """Choose the weights, and whether the hours of the week count, on what came after `as_of`,
        which no member has seen.

        Raises:
            EmptyDataError: If no user bought before `as_of`.
        """
        known = np.flatnonzero(waits.known)
        if not len(known):
            raise EmptyDataError(f"None of {len(histories)} users bought before the validation.")
        asked = [each.outlook(histories, as_of).take(known) for each in self.members.values()]
        events = events_before(histories, as_of)
        best, counted = -np.inf, Week.of(events)
        for week in (None,) if counted is None else (None, counted):
            worth_MU = np.stack(
                [_worth(each, week, events.as_of[known], waits.take(known)) for each in asked]
            )
            weights_M = mixture_weights(worth_MU)
            reached = float(logsumexp(worth_MU, axis=0, b=weights_M[:, None]).mean())
            if reached > best:
                best, self.week = reached, week
                self.weights = dict(zip(self.members, weights_M.tolist(), strict=True))
        shares = ", ".join(f"{name} {share:.2f}" for name, share in self._weighed().items())
        _log.info("Timing is blended of %s.", shares)
        return self

    def outlook(self, histories: Histories, as_of: int | Int64) -> Outlook:
        """See `TimingModel.outlook`."""
        chosen = [(name, weight) for name, weight in self._weighed().items() if weight > 0]
        mixed = MixedOutlook(
            [_even(self.members[n].outlook(histories, as_of), self.week) for n, _ in chosen],
            np.array([weight for _, weight in chosen]),
        )
        return _weekly(mixed, self.week, events_before(histories, as_of).as_of)

    def _weighed(self) -> dict[str, float]:
        if self.weights is None:
            raise NotFittedError("The timing blend was asked before it was weighed. Call weigh.")
        return self.weights

    def save(self, folder: Path) -> None:
        """Each member in a folder of its own, beside the weights."""
        members = {
            name: Member(model=self.members[name].name, weight=weight)
            for name, weight in self._weighed().items()
        }
        stored.save(folder, self.name, blend=Members(members=members, week=self.week))
        for name in members:
            (folder / name).mkdir()
            self.members[name].save(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `TimingModel.load`."""
        read = stored.load(folder, cls.name, blend=Members)["blend"]
        found = read.members
        total = sum(member.weight for member in found.values())
        unknown = {member.model for member in found.values()} - MODELS.keys()
        if unknown or abs(total - 1.0) > 1e-6:
            raise BundleError(
                f"{folder / stored.FILE} blends {sorted(m.model for m in found.values())} with "
                f"weights that sum to {total}; known are {sorted(MODELS)}, and weights sum to 1."
            )
        blend = cls({name: MODELS[m.model].load(folder / name) for name, m in found.items()})
        blend.weights = {name: member.weight for name, member in found.items()}
        blend.week = read.week
        return blend


class MixedOutlook(Outlook):
    """A mixture of outlooks of the same users.

    Args:
        outlooks: M of them.
        weights: Of each, [M], or each user's own, [M, U].
    """

    def __init__(self, outlooks: Sequence[Outlook], weights: Float64) -> None:
        self._outlooks = list(outlooks)
        self._weights_MU1 = weights.reshape(len(self._outlooks), -1, 1)

    def __len__(self) -> int:
        return len(self._outlooks[0])

    def take(self, users: NDArray[np.integer]) -> "MixedOutlook":
        """See `Outlook.take`."""
        shared = self._weights_MU1.shape[1] == 1
        weights_MU1 = self._weights_MU1 if shared else self._weights_MU1[:, users]
        return MixedOutlook([outlook.take(users) for outlook in self._outlooks], weights_MU1)

    def log_survival(self, days: Float64) -> Float64:
        """See `Outlook.log_survival`."""
        return self._mixed([outlook.log_survival(days) for outlook in self._outlooks])

    def log_density(self, days: Float64) -> Float64:
        """See `Outlook.log_density`."""
        return self._mixed([outlook.log_density(days) for outlook in self._outlooks])

    def expected_purchases(self, days: ArrayLike) -> Float64:
        """See `Outlook.expected_purchases`."""
        parts = [outlook.expected_purchases(days) for outlook in self._outlooks]
        return np.asarray((self._weights_MU1 * np.stack(parts)).sum(axis=0))

    def p_active(self) -> Float64:
        """See `Outlook.p_active`."""
        parts = [outlook.p_active() for outlook in self._outlooks]
        return np.asarray((self._weights_MU1[..., 0] * np.stack(parts)).sum(axis=0))

    def _mixed(self, logs: Sequence[Float64]) -> Float64:
        with np.errstate(divide="ignore", invalid="ignore"):  # nan, who never bought, stays nan
            log_weights_MU1 = np.log(self._weights_MU1)
            mixed = logs[0] + log_weights_MU1[0]
            for log, log_weight in zip(logs[1:], log_weights_MU1[1:], strict=True):
                mixed = np.logaddexp(mixed, log + log_weight)
        return np.asarray(mixed)


def _even(outlook: Outlook, week: Week | None) -> Outlook:
    """A member's outlook in even time, if the blend counts the hours of the week: they are those of
    the log, whether a member knows them or not."""
    return outlook.even if week is not None and isinstance(outlook, WeeklyOutlook) else outlook


def _weekly(even: Outlook, week: Week | None, now_U: Int64) -> Outlook:
    return even if week is None else WeeklyOutlook(even, week, now_U)


def _worth(outlook: Outlook, week: Week | None, now_U: Int64, waits: Waits) -> Float64:
    """Log-likelihood of waits under a member that is asked with or without the hours, [U]."""
    asked = _weekly(_even(outlook, week), week, now_U)
    return log_likelihood(asked, waits.days, waits.observed)


def mixture_weights(logs_MU: Float64) -> Float64:
    """Weights of highest mean log sum_m w_m exp(logs_mu), [M], by expectation-maximisation.

    The problem is convex, so that the end does not depend on the start; what cannot be is that a
    single member does better, and where the climb has stopped short of one, it is taken.

    Raises:
        ConfigError: If a member holds something that happened for impossible for every weight.
    """
    members = len(logs_MU)
    best_U = logs_MU.max(axis=0)
    if not np.isfinite(best_U).all():
        raise ConfigError(
            f"{np.count_nonzero(~np.isfinite(best_U))} of {logs_MU.shape[1]} waits are impossible "
            "under every timing model. Add one that allows them."
        )
    shares_MU = np.exp(logs_MU - best_U)
    weights_M = np.full(members, 1.0 / members)
    before = -np.inf
    for _ in range(_MOST_ROUNDS):
        mixed_U = weights_M @ shares_MU
        now = float(np.log(mixed_U).mean())
        if now - before < _CLOSE:
            break
        before = now
        weights_M = weights_M * (shares_MU / mixed_U).mean(axis=1)
        weights_M /= weights_M.sum()
    reached = float((logsumexp(logs_MU, axis=0, b=weights_M[:, None])).mean())
    alone_M = logs_MU.mean(axis=1)
    if alone_M.max() >= reached:
        weights_M = np.eye(members)[int(alone_M.argmax())]
    return weights_M
