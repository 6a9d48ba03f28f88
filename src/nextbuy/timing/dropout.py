"""What the buy-till-you-die models share: fitting, outlook and storage.

They all follow from one function, L(x, t_x, T), the likelihood of a history: to have seen nothing
for another s is to have seen the same history until T + s, so that

    P(no purchase within s | x, t_x, T) = L(x, t_x, T + s) / L(x, t_x, T)

and the density of the next purchase is -dL(x, t_x, T + s)/ds / L(x, t_x, T).

Legend: U users, H horizons.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from nextbuy.data.histories import Histories, Int64
from nextbuy.errors import EmptyDataError
from nextbuy.timing import stored
from nextbuy.timing.events import Float64
from nextbuy.timing.maximum_likelihood import Maximum, maximize
from nextbuy.timing.protocol import Outlook, horizons
from nextbuy.timing.repeat_purchases import RepeatPurchases, repeat_purchases

P = TypeVar("P", bound=stored.Stored)


class DropoutConfig(stored.Stored):
    """Unknown keys are errors."""

    days_per_unit: float = Field(default=7.0, gt=0, description="papers count weeks")


class DropoutModel(ABC, Generic[P]):
    """A model of purchases at a constant rate until the user drops out.

    Attributes:
        parameters: In the unit of time of the config; None before `fit`.
        maximum: How the last fit ended, in scaled parameters; None after `load`.
    """

    name: ClassVar[str]
    parameters_class: type[P]
    time_parameters: ClassVar[tuple[str, ...]]
    """Those that are times; the others are pure numbers."""

    def __init__(self, config: DropoutConfig | None = None) -> None:
        self.config = config or DropoutConfig()
        self.parameters: P | None = None
        self.maximum: Maximum | None = None

    @staticmethod
    @abstractmethod
    def mean_log_likelihood(
        log_parameters: Float64, data: RepeatPurchases
    ) -> tuple[float, Float64]:
        """Weighted mean of log L over collapsed data, and its gradient by log-parameter."""

    @abstractmethod
    def log_likelihood(self, x: Float64, t_x: Float64, T: Float64) -> Float64:
        """Log L(x, t_x, T) in the config's unit of time; T may be infinite."""

    @abstractmethod
    def log_next(self, x: Float64, t_x: Float64, T: Float64) -> Float64:
        """Log -dL/dT, per unit of time."""

    @abstractmethod
    def p_active(self, x: Float64, t_x: Float64, T: Float64) -> Float64:
        """P(not dropped out at T | x, t_x, T)."""

    @abstractmethod
    def expected_purchases(self, x: Float64, t_x: Float64, T: Float64, time: Float64) -> Float64:
        """Expected purchases in (T, T + time] given x, t_x and T."""

    def fit(self, train: Histories, as_of: int | Int64) -> Self:
        """Maximum likelihood; see `TimingModel.fit`."""
        return self.fit_counts(
            repeat_purchases(train, as_of, days_per_unit=self.config.days_per_unit)
        )

    def fit_counts(self, data: RepeatPurchases) -> Self:
        """Maximum likelihood of counts that are at hand, in the config's unit of time.

        The unit is scaled to the mean age, so that the climb is the same in days and weeks.
        """
        rows = data.collapsed()
        if not (rows.repeats > 0).any():
            raise EmptyDataError(
                f"None of {rows.weights.sum():.0f} users bought on two days; {self.name} learns "
                "from repeat purchases. Give a longer log."
            )
        total = rows.weights.sum()
        scale = float(rows.weights @ rows.age / total)
        scaled = RepeatPurchases(
            repeats=rows.repeats, last=rows.last / scale, age=rows.age / scale,
            weights=rows.weights,
        )  # fmt: skip
        names = list(self.parameters_class.model_fields)
        mean_repeats = float(rows.weights @ rows.repeats / total)
        self.maximum = maximize(
            lambda place: self.mean_log_likelihood(place, scaled),
            [self.start(mean_repeats), np.zeros(4), np.array([-1.0, -2.0, 1.0, 1.0])],
            names,
        )
        values = dict(zip(names, self.maximum.parameters, strict=True))
        for name in self.time_parameters:
            values[name] *= scale
        self.parameters = self.parameters_class.model_validate(values)
        return self

    @staticmethod
    def start(mean_repeats: float) -> Float64:
        """Log-parameters that expect about the mean number of repeats in a time of 1."""
        rate = max(mean_repeats, 1e-3)
        return np.log([1.0, 1.0 / rate, 1.0, 2.0])

    def outlook(self, histories: Histories, as_of: int | Int64) -> "DropoutOutlook":
        """See `TimingModel.outlook`."""
        counts = repeat_purchases(histories, as_of, days_per_unit=self.config.days_per_unit)
        return self.outlook_of(counts)

    def outlook_of(self, counts: RepeatPurchases) -> "DropoutOutlook":
        """The outlook of counts that are at hand, in the config's unit of time."""
        self.fitted()
        return DropoutOutlook(self, counts)

    def fitted(self) -> P:
        """The parameters; see `stored.found`."""
        return stored.found(self.parameters, self.name)

    def save(self, folder: Path) -> None:
        """See `TimingModel.save`."""
        stored.save(folder, self.name, config=self.config, parameters=self.fitted())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `TimingModel.load`."""
        config, parameters = stored.load_fitted(
            folder, cls.name, DropoutConfig, cls.parameters_class
        )
        model = cls(config)
        model.parameters = parameters
        return model


class DropoutOutlook(Outlook):
    """What a fitted model says about users with given counts."""

    def __init__(
        self, model: DropoutModel[P], counts: RepeatPurchases, log_seen: Float64 | None = None
    ) -> None:
        self._model = model
        self._counts = counts
        self._x, self._t_x, self._T = (
            v[:, None] for v in (counts.repeats, counts.last, counts.age)
        )
        self._log_seen = (
            model.log_likelihood(self._x, self._t_x, self._T) if log_seen is None else log_seen
        )

    def __len__(self) -> int:
        return len(self._x)

    def take(self, users: NDArray[np.integer]) -> "DropoutOutlook":
        """See `Outlook.take`."""
        return DropoutOutlook(self._model, self._counts.take(users), self._log_seen[users])

    def log_survival(self, days: Float64) -> Float64:
        """See `Outlook.log_survival`."""
        later = self._T + days / self._model.config.days_per_unit
        return self._model.log_likelihood(self._x, self._t_x, later) - self._log_seen

    def log_density(self, days: Float64) -> Float64:
        """See `Outlook.log_density`."""
        unit = self._model.config.days_per_unit
        log_next = self._model.log_next(self._x, self._t_x, self._T + days / unit)
        return np.asarray(log_next - self._log_seen - np.log(unit))

    def expected_purchases(self, days: ArrayLike) -> Float64:
        """See `Outlook.expected_purchases`."""
        time = horizons(days) / self._model.config.days_per_unit
        return self._model.expected_purchases(self._x, self._t_x, self._T, time)

    def p_active(self) -> Float64:
        """See `Outlook.p_active`."""
        return self._model.p_active(self._x, self._t_x, self._T)[:, 0]
