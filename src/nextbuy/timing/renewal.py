"""Renewal: a purchase starts the wait for the next, and what has elapsed of it counts.

Buy-till-you-die models have purchases come at random, so that how regular a user is, and how long
ago the last purchase was, only says whether the user is still active. Here gaps have a distribution
of their own (log-normal, gamma, Weibull), the same for all users or each user's own, shrunk towards
that of all. With dropout a user leaves after each purchase, the first too, with a probability of
their own, Beta(dropout_a, dropout_b) over users: after n gaps that did end it is expected to be
d = dropout_a / (dropout_a + dropout_b + n), and the wait is endless with that probability,

    P(no purchase within s | elapsed e) = (d + (1 - d) S(e + s)) / (d + (1 - d) S(e)).

The open gap of every user is part of the likelihood (right-censoring).

Legend: U users, H horizons, F moments.
"""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy.special import betaln

from nextbuy.data.histories import Histories, Int64
from nextbuy.errors import BundleError, ConfigError, EmptyDataError
from nextbuy.timing import gap_families as families
from nextbuy.timing import stored
from nextbuy.timing.events import Events, Float64, events_before
from nextbuy.timing.gap_families import Gap, Gaps
from nextbuy.timing.maximum_likelihood import Maximum, maximize
from nextbuy.timing.protocol import Outlook, horizons
from nextbuy.timing.renewal_equation import STEPS, after_the_first, moments_asked

_FAMILIES: Final[dict[tuple[str, bool], type[Gap]]] = {
    ("log-normal", False): families.LogNormal,
    ("gamma", False): families.Gamma,
    ("weibull", False): families.Weibull,
    ("log-normal", True): families.OwnLogNormal,
    ("gamma", True): families.OwnGamma,
    ("weibull", True): families.OwnWeibull,
}
_STEP: Final = 1e-5
_BLOCK: Final = 2_048
_FAINT: Final = 1e-170  # a probability; what is left of less has to be taken by logarithms


class RenewalConfig(stored.Stored):
    """Unknown keys are errors."""

    distribution: Literal["log-normal", "gamma", "weibull"] = "log-normal"
    personal: bool = Field(default=True, description="each user has a scale of gaps of their own")
    dropout: bool = Field(default=True, description="users may never buy again")
    most_users: int = Field(default=50_000, ge=1, description="to fit on, evenly spread")


class RenewalParameters(stored.Stored):
    """Those of the family of gaps and of the dropout; times in `unit_days`."""

    unit_days: float = Field(gt=0)
    gap: dict[str, float]
    dropout_a: float | None = Field(default=None, gt=0)
    dropout_b: float | None = Field(default=None, gt=0)


class Renewal:
    """Fitted by maximum likelihood of complete and open gaps over the conjugate distributions."""

    name: ClassVar[str] = "renewal"

    def __init__(self, config: RenewalConfig | None = None) -> None:
        self.config = config or RenewalConfig()
        self.parameters: RenewalParameters | None = None
        self.maximum: Maximum | None = None

    @property
    def family(self) -> type[Gap]:
        """The distribution of gaps."""
        return _FAMILIES[self.config.distribution, self.config.personal]

    def fit(self, train: Histories, as_of: int | Int64) -> Self:
        """See `TimingModel.fit`."""
        moments = np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(train))
        buyers = np.flatnonzero(events_before(train, as_of).counts > 0)
        if len(buyers) > self.config.most_users:
            places = np.linspace(0, len(buyers) - 1, self.config.most_users)
            buyers = buyers[places.astype(np.int64)]
        events = events_before(train.take(buyers), moments[buyers])
        days, _ = events.gaps()
        if not len(days):
            raise EmptyDataError(
                f"None of {len(buyers)} users bought on two days; {self.name} learns from the "
                "gaps between purchases. Give a longer log."
            )
        unit = float(days.mean())
        gaps = gaps_of(events, unit)
        names = list(self.family.names) + ["dropout_a", "dropout_b"] * self.config.dropout
        first = np.log([*self.family.start, *[1.0, 4.0] * self.config.dropout])
        self.maximum = maximize(
            lambda place: _with_gradient(lambda p: self._mean_log_likelihood(p, gaps), place),
            [first, first + 0.7, first - 0.7],
            names,
            close=1e-7,
        )
        values = dict(zip(names, self.maximum.parameters, strict=True))
        dropout = {key: values.pop(key) for key in ("dropout_a", "dropout_b") if key in values}
        self.parameters = RenewalParameters(unit_days=unit, gap=values, **dropout)
        return self

    def outlook(self, histories: Histories, as_of: int | Int64) -> "RenewalOutlook":
        """See `TimingModel.outlook`."""
        parameters = self.fitted()
        gaps = gaps_of(events_before(histories, as_of), parameters.unit_days)
        gap = self.family.of(tuple(parameters.gap.values()), gaps)
        a, b = parameters.dropout_a or 0.0, parameters.dropout_b or 1.0
        dropout_U1 = (a / (a + b + gaps.counts))[:, None]
        return RenewalOutlook(gap, gaps.elapsed[:, None], dropout_U1, parameters.unit_days)

    def fitted(self) -> RenewalParameters:
        """The parameters; see `stored.found`."""
        return stored.found(self.parameters, self.name)

    def save(self, folder: Path) -> None:
        """See `TimingModel.save`."""
        stored.save(folder, self.name, config=self.config, parameters=self.fitted())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `TimingModel.load`."""
        config, found = stored.load_fitted(folder, cls.name, RenewalConfig, RenewalParameters)
        model = cls(config)
        names = set(model.family.names)
        both = (found.dropout_a is not None) and (found.dropout_b is not None)
        if set(found.gap) != names or both != model.config.dropout or min(found.gap.values()) <= 0:
            raise BundleError(
                f"{folder / stored.FILE} has gap parameters {found.gap}; expected positive "
                f"{sorted(names)}, and those of dropout only with dropout."
            )
        ordered = {key: found.gap[key] for key in model.family.names}
        model.parameters = found.model_copy(update={"gap": ordered})
        return model

    def _mean_log_likelihood(self, log_parameters: Float64, gaps: Gaps) -> float:
        values = tuple(float(v) for v in np.exp(log_parameters))
        gap_values, dropout = values[: len(self.family.names)], values[len(self.family.names) :]
        total_U = self.family.log_marginal(gap_values, gaps)
        open_U = self.family.of(gap_values, gaps).log_survival(gaps.elapsed[:, None])[:, 0]
        if dropout:
            (a, b), n_U = dropout, gaps.counts
            total_U = total_U + betaln(a, b + n_U) - betaln(a, b)
            open_U = _with_dropout(open_U, a / (a + b + n_U))
        return float((total_U + open_U).mean())


class RenewalOutlook(Outlook):
    """What is known of the next gap, and how much of it has elapsed."""

    def __init__(
        self, gap: Gap, elapsed_U1: Float64, dropout_U1: Float64, unit_days: float
    ) -> None:
        self._gap, self._elapsed, self._dropout = gap, elapsed_U1, dropout_U1
        self._unit = unit_days
        self._log_open = gap.log_survival(elapsed_U1)
        self._log_seen = _with_dropout(self._log_open, dropout_U1)

    def __len__(self) -> int:
        return len(self._elapsed)

    def take(self, users: NDArray[np.integer]) -> "RenewalOutlook":
        """See `Outlook.take`."""
        return RenewalOutlook(
            self._gap.take(users), self._elapsed[users], self._dropout[users], self._unit
        )

    def log_survival(self, days: Float64) -> Float64:
        """See `Outlook.log_survival`."""
        log_open = self._gap.log_survival(self._elapsed + days / self._unit)
        return _with_dropout(log_open, self._dropout) - self._log_seen

    def log_density(self, days: Float64) -> Float64:
        """See `Outlook.log_density`."""
        log_density = self._gap.log_density(self._elapsed + days / self._unit)
        return np.asarray(
            np.log1p(-self._dropout) + log_density - self._log_seen - np.log(self._unit)
        )

    def p_active(self) -> Float64:
        """See `Outlook.p_active`."""
        return np.exp(np.log1p(-self._dropout) + self._log_open - self._log_seen)[:, 0]

    def expected_purchases(self, days: ArrayLike) -> Float64:
        """See `Outlook.expected_purchases`.

        The first of them by its distribution; those after it, given the user's scale, are a
        renewal process (see `renewal_equation`), and the scale is integrated out. The dropout
        probability stays what it is expected to be now, and so does the spread of a log-normal.
        """
        asked = horizons(days)
        if not np.isfinite(asked).all():
            raise ConfigError("Expected purchases were asked forever. Give finite horizons.")
        longest = float(asked.max(initial=1e-9)) / self._unit
        places = asked / self._unit / longest * STEPS
        after_UH = np.empty((len(self), asked.shape[-1]))
        for start in range(0, len(self), _BLOCK):
            users = np.arange(start, min(start + _BLOCK, len(self)))
            mine = places[users] if places.ndim == 2 and len(places) == len(self) else places
            after_UH[users] = _after_the_first(
                self._gap.take(users), self._elapsed[users], self._dropout[users], longest, mine
            )
        return self.probability_within(days) + self.p_active()[:, None] * after_UH


def gaps_of(events: Events, unit_days: float) -> Gaps:
    """Complete and open gaps in a unit of time."""
    days_G, owners = events.gaps()
    return Gaps(
        complete=days_G / unit_days, owners=owners, elapsed=events.elapsed_days() / unit_days
    )


def _with_dropout(log_open: Float64, dropout: Float64) -> Float64:
    """Log of d + (1 - d) S."""
    with np.errstate(divide="ignore", invalid="ignore"):  # nan, who never bought, stays nan
        return np.asarray(np.logaddexp(np.log(dropout), np.log1p(-dropout) + log_open))


def _after_the_first(
    gap: Gap, elapsed: Float64, dropout: Float64, longest: float, places: Float64
) -> Float64:
    """Expected purchases but for the first of active users within horizons, [U, H].

    Given the scale, a renewal process; see `renewal_equation`. Users come in blocks, so that its
    sums run through the cache.

    Args:
        gap: Of U users.
        elapsed: [U, 1].
        dropout: [U, 1].
        longest: Horizon.
        places: The horizons in steps of the grid, [H] or [U, H].
    """
    pairs = list(gap.given_scale(elapsed))
    log_w_UK = np.concatenate([log_weight for log_weight, _ in pairs], axis=1)
    w_UK = np.exp(log_w_UK - log_w_UK.max(axis=1, keepdims=True))
    w_UK /= w_UK.sum(axis=1, keepdims=True)
    asked_F = moments_asked(longest)
    after_UH = np.zeros((len(elapsed), places.shape[-1]))
    for k, (_, one) in enumerate(pairs):
        first = _first_wait(one, elapsed, asked_F)
        later = (1.0 - dropout) * (1.0 - one.survival(asked_F[None]))
        after_UH += w_UK[:, k : k + 1] * after_the_first(first, later, places)
    return after_UH


def _first_wait(gap: Gap, elapsed: Float64, asked_F: Float64) -> Float64:
    """P(the wait ends within each moment, given what has elapsed of it), [U, F]."""
    seen = gap.survival(elapsed)
    faint = np.flatnonzero(seen[:, 0] < _FAINT)
    with np.errstate(invalid="ignore", divide="ignore"):
        first = 1.0 - np.minimum(gap.survival(elapsed + asked_F) / seen, 1.0)
        if len(faint):  # by logarithms; where nothing is left of the wait, it ends at once
            some, since = gap.take(faint), elapsed[faint]
            logs = some.log_survival(since + asked_F) - some.log_survival(since)
            first[faint] = -np.expm1(logs)
    return np.where(np.isnan(first) & ~np.isnan(elapsed), asked_F > 0, first)


def _with_gradient(function: Callable[[Float64], float], place: Float64) -> tuple[float, Float64]:
    """Value and central differences: incomplete beta functions have no simple derivative."""
    gradient = np.zeros(len(place))
    for number in range(len(place)):
        step = np.zeros(len(place))
        step[number] = _STEP
        gradient[number] = (function(place + step) - function(place - step)) / (2 * _STEP)
    return function(place), gradient
