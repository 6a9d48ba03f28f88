"""Gamma-Gamma: what a user spends on a purchase, from what they spent before.

Legend: U users, E purchase events, N purchases (rows).
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field
from scipy.special import digamma, gammaln

from nextbuy.data.histories import Histories, Int64
from nextbuy.errors import EmptyDataError
from nextbuy.timing import stored
from nextbuy.timing.events import Float64, events_before, value_of_each_event
from nextbuy.timing.maximum_likelihood import Maximum, maximize

_log = logging.getLogger(__name__)


class GammaGammaConfig(stored.Stored):
    """Unknown keys are errors."""

    first_purchase: bool = Field(default=True, description="it counts; the paper leaves it out")


class GammaGammaParameters(stored.Stored):
    """value ~ Gamma(p, rate), the user's rate ~ Gamma(q, gamma), gamma in money."""

    p: float = Field(gt=0)
    q: float = Field(gt=0)
    gamma: float = Field(gt=0)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Spend:
    """What users spent.

    Attributes:
        counts: x, purchase events of known value above 0, of each user.
        mean: z, their mean value; 0 where there is none.
    """

    counts: Float64
    mean: Float64


class GammaGamma:
    """Fader and Hardie 2013, "The gamma-gamma model of monetary value".

    A user's values are Gamma(p, v) with v ~ Gamma(q, gamma) over users, whatever the timing. The
    mean z of x values has (equation 1a)

        f(z) = Gamma(p x + q) / (Gamma(p x) Gamma(q))
               gamma^q z^(p x - 1) x^(p x) / (gamma + x z)^(p x + q)

    and the next value is expected to be p (gamma + x z) / (p x + q - 1) (equation 5): the user's
    mean, shrunk towards that of all.
    """

    name: ClassVar[str] = "gamma-gamma"

    def __init__(self, config: GammaGammaConfig | None = None) -> None:
        self.config = config or GammaGammaConfig()
        self.parameters: GammaGammaParameters | None = None
        self.maximum: Maximum | None = None

    def fit(self, train: Histories, as_of: int | Int64) -> Self:
        """Maximum likelihood on the purchases before `as_of`.

        Raises:
            DataError: If the purchases have no prices.
            EmptyDataError: If no price is known and above 0.
            TrainingError: If the likelihood has no maximum that can be found.
        """
        return self.fit_spend(spend_before(train, as_of, first_purchase=self.config.first_purchase))

    def fit_spend(self, spend: Spend) -> Self:
        """Maximum likelihood of spend that is at hand. Money is scaled to the mean value."""
        bought = spend.counts > 0
        if not bought.any():
            raise EmptyDataError("No purchase has a known value above 0; amounts need prices.")
        x, z = spend.counts[bought], spend.mean[bought]
        scale = float(z.mean())
        order = np.lexsort((z, x))  # so that the order of the users changes nothing
        x, z = x[order], z[order] / scale
        self.maximum = maximize(
            lambda place: mean_log_likelihood(place, x, z),
            [np.log([4.0, 3.0, 1.0]), np.zeros(3), np.log([1.0, 5.0, 5.0])],
            ["p", "q", "gamma"],
        )
        p, q, gamma = self.maximum.parameters
        if q <= 1:
            _log.warning(
                "The value of a purchase has no finite mean over users (q = %.3g): what a user "
                "without a known value spends is answered as infinite. Look for outliers.", q,
            )  # fmt: skip
        self.parameters = GammaGammaParameters(p=p, q=q, gamma=gamma * scale)
        return self

    def expected_spend(self, histories: Histories, as_of: int | Int64) -> Float64:
        """Expected value of each user's next purchase event, [U]; of a user without a known value
        the mean over users, `inf` if that is not finite."""
        first = self.config.first_purchase
        return self.expected_spend_of(spend_before(histories, as_of, first_purchase=first))

    def expected_spend_of(self, spend: Spend) -> Float64:
        """Of spend that is at hand, [U]."""
        m = self.fitted()
        above, below = m.p * (m.gamma + spend.counts * spend.mean), m.p * spend.counts + m.q - 1.0
        return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.inf)

    def fitted(self) -> GammaGammaParameters:
        """The parameters; see `stored.found`."""
        return stored.found(self.parameters, self.name)

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        stored.save(folder, self.name, config=self.config, parameters=self.fitted())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            BundleError: If a key is unknown or missing, or a value out of its range.
        """
        config, parameters = stored.load_fitted(
            folder, cls.name, GammaGammaConfig, GammaGammaParameters
        )
        model = cls(config)
        model.parameters = parameters
        return model


def mean_log_likelihood(log_parameters: Float64, x: Float64, z: Float64) -> tuple[float, Float64]:
    """Mean log f(z) over users, and its gradient by log p, log q and log gamma."""
    p, q, gamma = (float(v) for v in np.exp(log_parameters))
    all_values, log_total = p * x, np.log(gamma + x * z)
    value = (
        gammaln(all_values + q) - gammaln(all_values) - gammaln(q) + q * np.log(gamma)
        + (all_values - 1.0) * np.log(z) + all_values * np.log(x) - (all_values + q) * log_total
    )  # fmt: skip
    both = digamma(all_values + q)
    slopes = (
        p * x * (both - digamma(all_values) + np.log(z * x) - log_total),
        q * (both - digamma(q) + np.log(gamma) - log_total),
        q - gamma * (all_values + q) / (gamma + x * z),
    )
    return float(value.mean()), np.array([slope.mean() for slope in slopes])


def spend_before(histories: Histories, as_of: int | Int64, *, first_purchase: bool = True) -> Spend:
    """How much users spent on purchase events before `as_of`.

    The value of an event is the sum of price times quantity over its rows; a quantity that is not
    known is 1. An event with a price that is not known, or a value of 0 or less, is left out.

    Args:
        histories: Purchases with dates and prices.
        as_of: UTC microseconds: one moment for all users, or one a user.
        first_purchase: Whether each user's first event counts.

    Raises:
        DataError: If there are no prices.
    """
    events = events_before(histories, as_of)
    owners_E, value_E = events.owners, value_of_each_event(histories, events)
    with np.errstate(invalid="ignore"):
        counts_E = value_E > 0
    if not first_purchase:
        counts_E[events.offsets[:-1][events.counts > 0]] = False
    x_U = np.bincount(owners_E[counts_E], minlength=len(events)).astype(np.float64)
    total_U = np.bincount(owners_E[counts_E], weights=value_E[counts_E], minlength=len(events))
    return Spend(counts=x_U, mean=total_U / np.maximum(x_U, 1.0))
