"""Renewal: a purchase starts the wait for the next, and what has elapsed of it counts.

Buy-till-you-die models have purchases come at random, so that how regular a user is, and how long
ago the last purchase was, only says whether the user is still active. Here gaps have a distribution
of their own (log-normal, gamma, Weibull), the same for all users or each user's own, shrunk towards
that of all. With dropout a user leaves after each purchase, the first too, with a probability of
their own, Beta(dropout_a, dropout_b) over users: after n gaps that did end it is expected to be
d = dropout_a / (dropout_a + dropout_b + n), and the wait is endless with that probability,

    P(no purchase within s | elapsed e) = (d + (1 - d) S(e + s)) / (d + (1 - d) S(e)).

The open gap of every user is part of the likelihood (right-censoring).

Legend: U users, H horizons, J moments of a grid.
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

_FAMILIES: Final[dict[tuple[str, bool], type[Gap]]] = {
    ("log-normal", False): families.LogNormal,
    ("gamma", False): families.Gamma,
    ("weibull", False): families.Weibull,
    ("log-normal", True): families.OwnLogNormal,
    ("gamma", True): families.OwnGamma,
    ("weibull", True): families.OwnWeibull,
}
_STEP: Final = 1e-5
_GRID: Final = 40
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_POINTS, _WEIGHTS = (_POINTS + 1.0) / 2.0, _WEIGHTS / 2.0
_INSIDE: Final = np.concatenate([_POINTS**2, 1.0 + _POINTS])
"""Where we look inside the first two steps, in steps: the gaps of a user who buys often end there.
Closer together near 0, where a distribution that is narrow beside a step rises."""

_COUNTS: Final = (2.0 * _POINTS * _WEIGHTS, _WEIGHTS)
"""How much each counts in the mean over its step."""

_BLOCK: Final = 1_024


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
        renewal process, and the scale is integrated out. The renewal equation is solved on a grid
        of 40 steps to the longest horizon, the first two of them looked at more finely, so that a
        user who buys several times within a step is foretold right but for some percent. The
        dropout probability stays what it is expected to be now, and so does the spread of a
        log-normal.
        """
        asked = horizons(days)
        if not np.isfinite(asked).all():
            raise ConfigError("Expected purchases were asked forever. Give finite horizons.")
        longest = max(float(asked.max()), 1e-9) / self._unit
        grid_J = np.linspace(0.0, longest, _GRID + 1)
        places = asked / self._unit / longest * _GRID
        after_UH = np.empty((len(self), asked.shape[-1]))
        for start in range(0, len(self), _BLOCK):
            users = np.arange(start, min(start + _BLOCK, len(self)))
            mine = places[users] if places.ndim == 2 and len(places) == len(self) else places
            after_UH[users] = _after_the_first(
                self._gap.take(users), self._elapsed[users], self._dropout[users], grid_J, mine
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
    gap: Gap, elapsed: Float64, dropout: Float64, grid_J: Float64, places: Float64
) -> Float64:
    """Expected purchases but for the first of active users within horizons, [U, H].

    Given the scale, M(t) = G(t) + integral of M(t - u) dG(u) with G = (1 - d) F for a wait that
    just began; then the integral of M(t - u) over the first wait, given what has elapsed. M is
    taken for linear between the moments. Users lie side by side ([J, U]) and in blocks, so that
    the sums run through the cache.

    Args:
        gap: Of U users.
        elapsed: [U, 1].
        dropout: [U, 1].
        grid_J: Moments from 0 to the longest horizon.
        places: The horizons in steps of the grid, [H] or [U, H].
    """
    low = np.minimum(places.astype(np.int64), len(grid_J) - 2)
    wanted = np.union1d(low, low + (places > low))
    pairs = list(gap.given_scale(elapsed))
    log_w_UK = np.concatenate([log_weight for log_weight, _ in pairs], axis=1)
    w_UK = np.exp(log_w_UK - log_w_UK.max(axis=1, keepdims=True))
    w_UK /= w_UK.sum(axis=1, keepdims=True)
    on_grid_JU = np.zeros((len(grid_J), len(elapsed)))
    fine_J = np.concatenate([_INSIDE * grid_J[1], grid_J])
    for k, (_, one) in enumerate(pairs):
        first = _first_wait(one, elapsed, fine_J)
        later = (1.0 - dropout) * (1.0 - one.survival(fine_J[None]))
        renewals_JU = _renewals(np.ascontiguousarray(later.T))
        shares_JU = _shares(np.ascontiguousarray(first.T))
        for j in wanted[wanted > 0]:
            on_grid_JU[j] += w_UK[:, k] * _dot(shares_JU[:j], renewals_JU[j:0:-1])
    return _interpolated(on_grid_JU.T, places)


def _first_wait(gap: Gap, elapsed: Float64, grid_J: Float64) -> Float64:
    """P(the wait ends within each moment of the grid, given what has elapsed of it), [U, J]."""
    with np.errstate(invalid="ignore"):  # where nothing is left of the wait, it ends at once
        first = -np.expm1(gap.log_survival(elapsed + grid_J) - gap.log_survival(elapsed))
    return np.where(np.isnan(first) & ~np.isnan(elapsed), grid_J > 0, first)


def _renewals(fine_JU: Float64) -> Float64:
    """M on the grid, from G on the finer one. With shares g of G, M_j (1 - g_0) = G_j + sum over
    0 < m < j of g_m M_(j - m)."""
    later_JU, shares_JU = fine_JU[len(_INSIDE) :], _shares(fine_JU)
    rest_U = 1.0 - shares_JU[0]
    found_JU = np.zeros_like(later_JU)
    for j in range(1, len(later_JU)):
        found_JU[j] = (later_JU[j] + _dot(shares_JU[1:j], found_JU[j - 1 : 0 : -1])) / rest_U
    return found_JU


def _shares(fine_JU: Float64) -> Float64:
    """What of a distribution belongs to each point of the grid but the last.

    From its values F at `_INSIDE` the first two steps and on the grid. With I_m the mean of F over
    step m, share_0 = I_0 and share_m = I_m - I_(m - 1): then the integral of M(t_j - u) dF(u) is
    the sum of share_m M_(j - m) for every M that is 0 at 0 and linear between the points.
    """
    on_grid_JU = fine_JU[len(_INSIDE) :]
    means_JU = (on_grid_JU[1:] + on_grid_JU[:-1]) / 2.0
    for step, counts in enumerate(_COUNTS):
        means_JU[step] = counts @ fine_JU[step * len(counts) : (step + 1) * len(counts)]
    return np.diff(means_JU, axis=0, prepend=0.0)


def _interpolated(on_grid_UJ: Float64, places: Float64) -> Float64:
    """Values between the points of a grid, [U, H]; `places` of [H] or [U, H] count its steps."""
    num_users, num_points = on_grid_UJ.shape
    places_UH = np.broadcast_to(places, (num_users, places.shape[-1]))
    low_UH = np.minimum(places_UH.astype(np.int64), num_points - 2)
    below, above = (np.take_along_axis(on_grid_UJ, low_UH + k, axis=1) for k in (0, 1))
    return np.asarray(below + (places_UH - low_UH) * (above - below))


def _dot(left_JU: Float64, right_JU: Float64) -> Float64:
    return np.asarray(np.einsum("ju,ju->u", left_JU, right_JU))


def _with_gradient(function: Callable[[Float64], float], place: Float64) -> tuple[float, Float64]:
    """Value and central differences: incomplete beta functions have no simple derivative."""
    gradient = np.zeros(len(place))
    for number in range(len(place)):
        step = np.zeros(len(place))
        step[number] = _STEP
        gradient[number] = (function(place + step) - function(place - step)) / (2 * _STEP)
    return function(place), gradient
