"""What the next purchase of a user is worth: three estimates and their blend.

- `gamma-gamma`: see there.
- `personal-mean`: the mean value of the user's purchase events, drawn towards that of all.
- `item-prices`: expected items of the next basket, times what the next item is expected to cost,
  sum_i P(next item is i) w_i. It needs a model of items and is asked only where it has a weight.

Legend: U users, M members, V items, N purchases (rows).
"""

import logging
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Final, Self

import numpy as np
from pydantic import Field

from nextbuy import storage
from nextbuy.data.histories import Float32, Histories, Int64
from nextbuy.errors import BundleError
from nextbuy.timing import stored
from nextbuy.timing.basket_size import BasketSize
from nextbuy.timing.events import (
    Float64,
    events_before,
    value_of_each_event,
    value_of_each_purchase,
)
from nextbuy.timing.gamma_gamma import GammaGamma
from nextbuy.timing.shrunk_mean import ShrunkMean, Totals

GAMMA_GAMMA: Final = GammaGamma.name
PERSONAL_MEAN: Final = "personal-mean"
ITEM_PRICES: Final = "item-prices"
NAME: Final = "amounts"
BLEND_FOLDER: Final = "blend"

_ARRAYS: Final = "item_values.safetensors"
_STEPS: Final = 20
_WORTH: Final = 0.01
"""Share of the error that `item-prices` must take away. It asks a model of items for a whole row of
the catalog of each user, which makes a forecast many times slower."""

_PURCHASES_OF_ALL: Final = 5.0
"""Purchases of an item that its price times the usual quantity counts for."""

_log = logging.getLogger(__name__)


class _Facts(stored.Stored):
    value: ShrunkMean
    sizes: BasketSize
    weights: dict[str, float] = Field(min_length=1)


class Amounts:
    """Fitted estimates of the value of a purchase event, and their weights.

    Attributes:
        gamma_gamma: Fitted.
        value: The mean of a user's values, drawn towards that of all.
        sizes: Of baskets.
        item_values: w, what a purchase of each item index costs, [V + 1]; None if not known.
        weights: By name of the member, sum 1; `gamma-gamma` alone before `weighed`.
    """

    def __init__(
        self,
        gamma_gamma: GammaGamma,
        value: ShrunkMean,
        sizes: BasketSize,
        *,
        item_values: Float32 | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.gamma_gamma, self.value, self.sizes = gamma_gamma, value, sizes
        self.item_values = item_values
        self.weights = dict(weights or {GAMMA_GAMMA: 1.0})

    @classmethod
    def fitted(cls, train: Histories, as_of: int | Int64) -> Self:
        """Fitted on the purchases before `as_of`.

        Raises:
            DataError: If the purchases have no prices.
            EmptyDataError: If no price is known and above 0.
            TrainingError: If Gamma-Gamma cannot be fitted.
        """
        return cls(
            GammaGamma().fit(train, as_of),
            ShrunkMean.of(_values_seen(train, as_of)),
            BasketSize.fitted(train, as_of),
        )

    @property
    def asks_items(self) -> bool:
        """Whether the blend listens to `item-prices`."""
        return self.weights.get(ITEM_PRICES, 0.0) > 0

    def estimates(
        self, histories: Histories, as_of: int | Int64, next_item_U: Float64 | None = None
    ) -> dict[str, Float64]:
        """Value of each user's next purchase event by each member that can tell, [U] each.

        Args:
            histories: With dates and prices.
            as_of: UTC microseconds, one for all users or one a user.
            next_item_U: sum_i P(next item is i) w_i of each user; without it `item-prices` is left
                out.
        """
        found = {
            GAMMA_GAMMA: self.gamma_gamma.expected_spend(histories, as_of),
            PERSONAL_MEAN: self.value.expected(_values_seen(histories, as_of)),
        }
        if next_item_U is not None:
            found[ITEM_PRICES] = self.sizes.expected_items(histories, as_of) * next_item_U
        return found

    def expected_value(
        self, histories: Histories, as_of: int | Int64, next_item_U: Float64 | None = None
    ) -> Float64:
        """Value of each user's next purchase event by the blend, [U]; see `estimates`.

        A member that cannot tell leaves its weight to the others.
        """
        return self.blended(self.estimates(histories, as_of, next_item_U))

    def blended(self, estimates: Mapping[str, Float64]) -> Float64:
        """The weighed mean of estimates, [U]."""
        chosen = {name: w for name, w in self.weights.items() if w > 0 and name in estimates}
        return mixed(estimates, chosen or {GAMMA_GAMMA: 1.0})

    def weigh(self, estimates: Mapping[str, Float64], came_U: Float64) -> None:
        """Choose the weights on what came after the moment that the estimates are of; see
        `blend_weights`. `item-prices` must be worth its price."""
        cheap = {name: each for name, each in estimates.items() if name != ITEM_PRICES}
        self.weights = blend_weights(cheap, came_U)
        if ITEM_PRICES in estimates:
            weights = blend_weights(estimates, came_U)
            before = deviance(mixed(estimates, self.weights), came_U)
            after = deviance(mixed(estimates, weights), came_U)
            if after < (1.0 - _WORTH) * before:
                self.weights = weights
        shares = ", ".join(f"{name} {share:.2f}" for name, share in self.weights.items())
        _log.info("Amounts are blended of %s.", shares)

    def save(self, folder: Path) -> None:
        """Write into an existing folder; `gamma-gamma` lies there as in older bundles."""
        self.gamma_gamma.save(folder)
        blend = folder / BLEND_FOLDER
        blend.mkdir()
        facts = _Facts(value=self.value, sizes=self.sizes, weights=self.weights)
        stored.save(blend, NAME, blend=facts)
        if self.item_values is not None:
            storage.write_arrays(blend / _ARRAYS, {"values": self.item_values})

    @classmethod
    def load(cls, folder: Path, num_items: int) -> Self:
        """Read what `save` wrote, for a catalog of so many items.

        Raises:
            BundleError: If a part is missing or not what it says.
        """
        blend = folder / BLEND_FOLDER
        found = stored.load(blend, NAME, blend=_Facts)["blend"]
        unknown = found.weights.keys() - {GAMMA_GAMMA, PERSONAL_MEAN, ITEM_PRICES}
        weights = np.array(list(found.weights.values()))
        if unknown or (weights < 0).any() or abs(weights.sum() - 1.0) > 1e-6:
            raise BundleError(
                f"{blend / stored.FILE} has the weights {found.weights}; weights of known members "
                "that sum to 1 were expected."
            )
        arrays = blend / _ARRAYS
        return cls(
            GammaGamma.load(folder), found.value, found.sizes,
            item_values=_item_values(arrays, num_items) if arrays.exists() else None,
            weights=found.weights,
        )  # fmt: skip


def mixed(estimates: Mapping[str, Float64], weights: Mapping[str, float]) -> Float64:
    """Weighed mean of the estimates that have a weight, [U]; the weights need not sum to 1."""
    total = sum(weights.values())
    parts = [weight / total * estimates[name] for name, weight in weights.items() if weight > 0]
    return np.asarray(np.sum(parts, axis=0))


def blend_weights(estimates: Mapping[str, Float64], came_U: Float64) -> dict[str, float]:
    """Weights, in twentieths, of the smallest deviance; so none above that of the best member.

    Of equal ones the first: members are tried in their order, the first with most weight first.
    """
    names = list(estimates)
    best, chosen = np.inf, tuple(np.eye(len(names), dtype=int)[0] * _STEPS)
    for first in product(range(_STEPS, -1, -1), repeat=len(names) - 1):
        if sum(first) > _STEPS:
            continue
        steps = (*first, _STEPS - sum(first))
        weights = {name: step / _STEPS for name, step in zip(names, steps, strict=True)}
        error = deviance(mixed(estimates, weights), came_U)
        if error < best:
            best, chosen = error, steps
    return {name: int(step) / _STEPS for name, step in zip(names, chosen, strict=True)}


def deviance(said_U: Float64, came_U: Float64) -> float:
    """Mean of came / said - 1 - log(came / said): 0 where all is right, `inf` where a value is not
    told.

    Half the deviance of a gamma distribution. Like the squared error it is smallest for the mean,
    but an error counts by its ratio, so that a few orders of a hundred times the usual size do not
    decide alone.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_U = came_U / said_U
        error = float((ratio_U - 1.0 - np.log(ratio_U)).mean())
    return error if np.isfinite(error) else np.inf


def item_values(known: Histories, as_of: int | Int64, num_items: int) -> Float32:
    """w: what a purchase of each item costs, price times quantity, [V + 1].

    The mean over its purchases before `as_of`, drawn towards its mean price times the quantity that
    is usual of all items; of an item without any, what a purchase costs on average. The catalog has
    prices, too, but those of the whole log: on validation they would know the test.

    Args:
        known: With prices, in a catalog of so many items.
        as_of: UTC microseconds.
        num_items: V.

    Raises:
        DataError: If there are no prices.
    """
    values_N = value_of_each_purchase(known)
    seen_N = known.times < np.repeat(np.broadcast_to(as_of, len(known)), known.lengths)
    with np.errstate(invalid="ignore"):
        seen_N &= values_N >= 0  # known, and no return
    items_N, values_N = known.items[seen_N], values_N[seen_N]
    prices_N = np.zeros(0) if known.prices is None else known.prices[seen_N].astype(np.float64)
    counts_V, sums_V, prices_V = (
        np.bincount(items_N, weights, minlength=num_items + 1).astype(np.float64)
        for weights in (None, values_N, prices_N)
    )
    units = sums_V.sum() / prices_V.sum() if prices_V.any() else 1.0
    usual = sums_V.sum() / max(counts_V.sum(), 1.0)
    mean_V = np.divide(prices_V, counts_V, out=np.zeros_like(prices_V), where=counts_V > 0) * units
    shrunk_V = (sums_V + _PURCHASES_OF_ALL * mean_V) / (counts_V + _PURCHASES_OF_ALL)
    shrunk_V[counts_V == 0] = usual
    shrunk_V[0] = 0.0  # padding
    return shrunk_V.astype(np.float32)


def _values_seen(histories: Histories, as_of: int | Int64) -> Totals:
    """Known values above 0 of each user's events, as for Gamma-Gamma."""
    events = events_before(histories, as_of)
    value_E = value_of_each_event(histories, events)
    with np.errstate(invalid="ignore"):
        value_E[~(value_E > 0)] = np.nan
    return Totals.of(value_E, events.owners, len(events))


def _item_values(path: Path, num_items: int) -> Float32:
    arrays = storage.read_arrays(path)
    values = arrays.get("values")
    if values is None or len(arrays) > 1 or values.dtype != np.float32:
        raise BundleError(f"{path} holds {sorted(arrays)}; expected values, one number an item.")
    if values.shape != (num_items + 1,) or not np.isfinite(values).all() or (values < 0).any():
        raise BundleError(
            f"{path} has values of shape {values.shape}, or some that are negative or not finite; "
            f"the catalog has {num_items} items."
        )
    return values
