"""What every timing model can do, and what it says: an outlook.

An outlook is the distribution of each user's next purchase, seen from a moment. Days count from
that moment. It may have mass at infinity: the user has dropped out, and never buys again. Then
survival does not fall to 0, and quantiles beyond that mass are `inf`. A user without a purchase has
`nan` everywhere: nothing here knows when somebody buys who never did.

Legend: U users, H horizons, Q probabilities.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextbuy.data.histories import Histories, Int64
from nextbuy.errors import ConfigError
from nextbuy.timing.events import Float64

_MOST_STEPS: Final = 200
_CLOSE: Final = 1e-6
_SHORTEST_LOG_DAYS, _LONGEST_LOG_DAYS = -30.0, 600.0


class Outlook(ABC):
    """When each of U users buys next. Horizons are `[H]`, one set for all, or `[U, H]`."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, users: NDArray[np.integer]) -> "Outlook":
        """The outlook of some users, in the order given (positions may repeat)."""
        ...

    @abstractmethod
    def log_survival(self, days: Float64) -> Float64:
        """Log P(no purchase within `days`), [U, H]; at `inf`, that of dropping out before one."""
        ...

    @abstractmethod
    def log_density(self, days: Float64) -> Float64:
        """Log density of the next purchase at `days`, per day, [U, H]."""
        ...

    @abstractmethod
    def expected_purchases(self, days: ArrayLike) -> Float64:
        """Expected number of purchase events within `days`, [U, H]."""
        ...

    @abstractmethod
    def p_active(self) -> Float64:
        """P(the user has not dropped out), [U]; 1 in a model without dropout."""
        ...

    def survival(self, days: ArrayLike) -> Float64:
        """P(no purchase within `days`), [U, H]: 1 at 0 days, never rising."""
        return np.exp(np.minimum(self.log_survival(horizons(days)), 0.0))

    def probability_within(self, days: ArrayLike) -> Float64:
        """P(at least one purchase within `days`), [U, H]."""
        return np.asarray(-np.expm1(np.minimum(self.log_survival(horizons(days)), 0.0)))

    def days_to_next(self, probabilities: Sequence[float] = (0.1, 0.5, 0.9)) -> Float64:
        """Days by which the next purchase has happened with given probabilities, [U, Q].

        `inf` where the user drops out first with a greater probability than is left.

        Raises:
            ConfigError: If a probability is not strictly between 0 and 1.
        """
        asked = np.asarray(probabilities, dtype=np.float64)
        if asked.ndim != 1 or not ((asked > 0) & (asked < 1)).all():
            raise ConfigError(f"Quantiles lie strictly between 0 and 1; {asked} were asked for.")
        return _quantiles(self, asked)


class TimingModel(Protocol):
    """Fitted on histories, has an outlook for any history at any moment.

    Users need not have been there at fitting. Fitting again forgets what was fitted before.
    """

    name: ClassVar[str]

    def fit(self, train: Histories, as_of: int | Int64) -> Self:
        """Learn from the purchases before `as_of`, at which all observation ends (censoring).

        Raises:
            EmptyDataError: If nobody bought twice.
            TrainingError: If the likelihood has no maximum that can be found.
        """
        ...

    def outlook(self, histories: Histories, as_of: int | Int64) -> Outlook:
        """The outlook of each history at `as_of`: one moment for all, or one a user.

        Raises:
            NotFittedError: If `fit` or `load` has not been called.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            BundleError: If a key is unknown or missing, or a value out of its range.
        """
        ...


def log_likelihood(outlook: Outlook, days_U: Float64, observed_U: NDArray[np.bool_]) -> Float64:
    """What the truth was worth, [U]: log density per day of the next purchase, or, where none was
    observed until `days_U`, the log-probability of none until then (right-censoring)."""
    days_U1 = np.asarray(days_U, dtype=np.float64)[:, None]
    density_U, survival_U = outlook.log_density(days_U1)[:, 0], outlook.log_survival(days_U1)[:, 0]
    return np.where(observed_U, density_U, survival_U)


def horizons(days: ArrayLike) -> Float64:
    """Horizons as an array that broadcasts to [U, H].

    Raises:
        ConfigError: If one is negative or not a number.
    """
    array = np.atleast_1d(np.asarray(days, dtype=np.float64))
    if not (array >= 0).all():
        raise ConfigError(
            f"Horizons are days from 0 on; {array[~(array >= 0)][:3]} were asked for."
        )
    return array


def _quantiles(outlook: Outlook, probabilities_Q: Float64) -> Float64:
    """Newton's method on log survival by log days, inside a shrinking bracket; P pairs of user and
    probability, of which only those without an answer go on."""
    shape = (len(outlook), len(probabilities_Q))
    target_Q = np.log1p(-probabilities_Q)
    never_U1 = outlook.log_survival(np.array([np.inf]))
    answers_P = np.where(np.isnan(never_U1), np.nan, np.where(never_U1 >= target_Q, np.inf, 0.0))
    answers_P = np.broadcast_to(answers_P, shape).flatten()
    left_P = np.flatnonzero(answers_P == 0)
    target_P = np.broadcast_to(target_Q, shape).ravel()[left_P]
    asked = outlook.take(left_P // shape[1])
    low_P = np.full(len(left_P), _SHORTEST_LOG_DAYS)
    high_P = np.full(len(left_P), _LONGEST_LOG_DAYS)
    at_P = np.full(len(left_P), 3.0)  # about 20 days
    for _ in range(_MOST_STEPS):
        if not len(left_P):
            break
        next_P, low_P, high_P = _step(asked, at_P, target_P, low_P, high_P)
        # Newton's error is about the square of its step.
        done_P = (np.abs(next_P - at_P) < _CLOSE) | (high_P - low_P < _CLOSE**2)
        answers_P[left_P] = np.exp(next_P)
        going = np.flatnonzero(~done_P)
        if len(going) < len(left_P):
            left_P, target_P, asked = left_P[going], target_P[going], asked.take(going)
            next_P, low_P, high_P = next_P[going], low_P[going], high_P[going]
        at_P = next_P
    return answers_P.reshape(shape)


def _step(
    asked: Outlook, at_P: Float64, target_P: Float64, low_P: Float64, high_P: Float64
) -> tuple[Float64, Float64, Float64]:
    """The next log days to try, and the bracket."""
    days_P1 = np.exp(at_P)[:, None]
    survival_P = asked.log_survival(days_P1)[:, 0]
    excess_P = survival_P - target_P
    low_P, high_P = np.where(excess_P > 0, at_P, low_P), np.where(excess_P > 0, high_P, at_P)
    with np.errstate(all="ignore"):  # where the density is 0 the step is infinite, and not taken
        slope_P = np.exp(asked.log_density(days_P1)[:, 0] - survival_P + at_P)
        newton_P = np.clip(at_P + excess_P / slope_P, at_P - 8.0, at_P + 8.0)
    # Far from the answer half a huge bracket is too far: at most tenfold.
    halved_P = np.clip((low_P + high_P) / 2.0, at_P - 2.3, at_P + 2.3)
    inside_P = (newton_P > low_P) & (newton_P < high_P)
    return np.where(inside_P, newton_P, halved_P), low_P, high_P
