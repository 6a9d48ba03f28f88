"""Pareto/NBD: users buy at a constant rate and may drop out at any time."""

from typing import ClassVar

from pydantic import Field

from nextbuy.timing import pareto
from nextbuy.timing.dropout import DropoutModel
from nextbuy.timing.events import Float64
from nextbuy.timing.repeat_purchases import RepeatPurchases
from nextbuy.timing.stored import Stored


class ParetoNbdParameters(Stored):
    """rate of purchases ~ Gamma(r, alpha), of dropping out ~ Gamma(s, beta); two are times."""

    r: float = Field(gt=0)
    alpha: float = Field(gt=0)
    s: float = Field(gt=0)
    beta: float = Field(gt=0)


class ParetoNbd(DropoutModel[ParetoNbdParameters]):
    """Schmittlein, Morrison and Colombo 1987; formulas in `pareto`."""

    name: ClassVar[str] = "pareto-nbd"
    parameters_class = ParetoNbdParameters
    time_parameters: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    @staticmethod
    def mean_log_likelihood(
        log_parameters: Float64, data: RepeatPurchases
    ) -> tuple[float, Float64]:
        """See `pareto.mean_log_likelihood`."""
        return pareto.mean_log_likelihood(log_parameters, data)

    def log_likelihood(self, x: Float64, t_x: Float64, T: Float64) -> Float64:
        """See `pareto.log_likelihood`."""
        return pareto.log_likelihood(self._values(), x, t_x, T)

    def log_next(self, x: Float64, t_x: Float64, T: Float64) -> Float64:  # noqa: ARG002
        """See `pareto.log_next`."""
        return pareto.log_next(self._values(), x, T)

    def p_active(self, x: Float64, t_x: Float64, T: Float64) -> Float64:
        """See `pareto.p_active`."""
        return pareto.p_active(self._values(), x, t_x, T)

    def expected_purchases(self, x: Float64, t_x: Float64, T: Float64, time: Float64) -> Float64:
        """See `pareto.expected_purchases`."""
        return pareto.expected_purchases(self._values(), x, t_x, T, time)

    def _values(self) -> pareto.Parameters:
        p = self.fitted()
        return pareto.Parameters(r=p.r, alpha=p.alpha, s=p.s, beta=p.beta)
