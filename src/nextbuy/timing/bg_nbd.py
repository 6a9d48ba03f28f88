"""BG/NBD: users buy at a constant rate and may drop out after each repeat purchase."""

from typing import ClassVar

from pydantic import Field

from nextbuy.timing import beta_geometric
from nextbuy.timing.dropout import DropoutModel
from nextbuy.timing.events import Float64
from nextbuy.timing.repeat_purchases import RepeatPurchases
from nextbuy.timing.stored import Stored


class BetaGeometricParameters(Stored):
    """rate ~ Gamma(r, alpha), alpha a time; P(drop out after a purchase) ~ Beta(a, b)."""

    r: float = Field(gt=0)
    alpha: float = Field(gt=0)
    a: float = Field(gt=0)
    b: float = Field(gt=0)


class BetaGeometric(DropoutModel[BetaGeometricParameters]):
    """What BG/NBD and MBG/NBD share; formulas in `beta_geometric`."""

    parameters_class = BetaGeometricParameters
    time_parameters: ClassVar[tuple[str, ...]] = ("alpha",)
    first: ClassVar[int]
    """1 if the first purchase is a chance to drop out, else 0."""

    @classmethod
    def mean_log_likelihood(
        cls, log_parameters: Float64, data: RepeatPurchases
    ) -> tuple[float, Float64]:
        """See `beta_geometric.mean_log_likelihood`."""
        return beta_geometric.mean_log_likelihood(log_parameters, data, cls.first)

    def log_likelihood(self, x: Float64, t_x: Float64, T: Float64) -> Float64:
        """See `beta_geometric.log_likelihood`."""
        return beta_geometric.log_likelihood(self._values(), x, t_x, T)

    def log_next(self, x: Float64, t_x: Float64, T: Float64) -> Float64:  # noqa: ARG002
        """See `beta_geometric.log_next`."""
        return beta_geometric.log_next(self._values(), x, T)

    def p_active(self, x: Float64, t_x: Float64, T: Float64) -> Float64:
        """See `beta_geometric.p_active`."""
        return beta_geometric.p_active(self._values(), x, t_x, T)

    def expected_purchases(self, x: Float64, t_x: Float64, T: Float64, time: Float64) -> Float64:
        """See `beta_geometric.expected_purchases`."""
        return beta_geometric.expected_purchases(self._values(), x, t_x, T, time)

    def _values(self) -> beta_geometric.Parameters:
        p = self.fitted()
        return beta_geometric.Parameters(r=p.r, alpha=p.alpha, a=p.a, b=p.b, first=self.first)


class BgNbd(BetaGeometric):
    """Fader, Hardie and Lee 2005: nobody drops out before the first repeat purchase.

    So a user who bought once is active for certain, however long ago that was.
    """

    name: ClassVar[str] = "bg-nbd"
    first: ClassVar[int] = 0
