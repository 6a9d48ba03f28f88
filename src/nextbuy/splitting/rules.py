"""Rules of the shop: what may be offered, how often of one kind, and what is pushed.

Evaluation and prediction apply the same ones, so that a score is about what would have been shown.
A cool-down after buying is the repeat policy's.

Legend: U users, V items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Float32
from nextbuy.errors import ConfigError
from nextbuy.splitting.repeat import scaled_to_one


class Rules(BaseModel):
    """Unknown keys are errors; nothing told is no rule. Ids that the catalog lacks mean nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: tuple[str, ...] | None = Field(
        default=None, description="item ids that may be offered, such as those in stock; None all"
    )
    exclude: tuple[str, ...] = Field(default=(), description="item ids that may not be offered")
    lowest_price: float | None = Field(default=None, ge=0, description="items of unknown price")
    highest_price: float | None = Field(default=None, ge=0, description="are left out by a band")
    per_category: int | None = Field(default=None, ge=1, description="offers of one category")
    per_platform: int | None = Field(default=None, ge=1, description="offers of one platform")
    boost_items: Mapping[str, float] = Field(
        default_factory=dict, description="factors on the probability of item ids, above 0"
    )
    boost_categories: Mapping[str, float] = Field(
        default_factory=dict, description="factors on the probability of categories, above 0"
    )

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        low, high = self.lowest_price, self.highest_price
        if low is not None and high is not None and low > high:
            raise ValueError(f"no price is at least {low} and at most {high}")
        for name, factor in (*self.boost_items.items(), *self.boost_categories.items()):
            if not 0 < factor < float("inf"):
                raise ValueError(f"the factor of {name!r} is {factor}; it has to be above 0")
        return self

    @classmethod
    def of(cls, values: Any) -> Self:
        """Rules from plain values, as they come from files.

        Raises:
            ConfigError: If a key is unknown or a value makes no sense.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            reasons = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
            )
            raise ConfigError(f"The rules cannot be followed. {reasons}") from error

    def for_catalog(self, catalog: Catalog) -> "CatalogRules":
        """The same rules by item index.

        Raises:
            ConfigError: If they leave nothing to offer.
        """
        table, V = catalog.table, len(catalog)
        ids = table[columns.ITEM]
        allowed = np.ones(V, dtype=np.bool_)
        if self.allow is not None:
            allowed &= ids.is_in(list(self.allow)).to_numpy()
        if self.exclude:
            allowed &= ~ids.is_in(list(self.exclude)).to_numpy()
        prices = catalog.prices[1:]
        with np.errstate(invalid="ignore"):  # an unknown price is in no band
            if self.lowest_price is not None:
                allowed &= prices >= self.lowest_price
            if self.highest_price is not None:
                allowed &= prices <= self.highest_price
        if V and not allowed.any():
            raise ConfigError(f"The rules leave none of the {V} items of the catalog to offer.")
        factors = np.ones(V)
        for column, boosts in ((ids, self.boost_items),
                               (table[columns.CATEGORY], self.boost_categories)):  # fmt: skip
            for name, factor in boosts.items():
                factors[(column == name).fill_null(False).to_numpy()] *= factor
        caps = [
            (most, _codes(catalog, column))
            for most, column in (
                (self.per_category, columns.CATEGORY), (self.per_platform, columns.PLATFORM),
            )
            if most is not None
        ]  # fmt: skip
        return CatalogRules(allowed=allowed, factors=np.log(factors).astype(np.float32), caps=caps)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CatalogRules:
    """Rules by item index.

    Attributes:
        allowed: Of items 1..V, length V.
        factors: Log of each item's factor, length V.
        caps: How many of a group may be offered, and the group of each item (-1 is none), length V.
    """

    allowed: NDArray[np.bool_]
    factors: Float32
    caps: list[tuple[int, NDArray[np.int64]]]

    def apply(self, log_probabilities: Float32) -> Float32:
        """The distribution given that the rules are followed.

        Of a group with a cap only the most probable items stay, so that no list, however long, has
        more of it.

        Args:
            log_probabilities: Shape [U, V + 1]; left as it is.

        Returns:
            The same shape; what may not be offered is `-inf`, the rest is scaled to sum to 1. A
            user who may be offered nothing has a row of `-inf` only.
        """
        ruled = log_probabilities.copy()
        items = ruled[:, 1:]
        items += self.factors
        items[:, ~self.allowed] = -np.inf
        for most, codes in self.caps:
            items[_beyond(items, codes, most)] = -np.inf
        return scaled_to_one(ruled)


def _codes(catalog: Catalog, column: str) -> NDArray[np.int64]:
    """A number for each group of a column, -1 where it is unknown."""
    values = catalog.table[column]
    codes = values.rank("dense").cast(int) - 1
    return codes.fill_null(-1).to_numpy().astype(np.int64)


def _beyond(items: Float32, codes: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Where an item has `most` items of its group before it in its row; ties by item index."""
    order = np.argsort(-items, axis=1, kind="stable")
    grouped = np.argsort(codes[order], axis=1, kind="stable")  # by group, best first inside
    columns_in_order = np.take_along_axis(order, grouped, axis=1)
    sorted_codes = codes[columns_in_order]
    places = np.broadcast_to(np.arange(items.shape[1]), items.shape)
    opens = np.ones_like(sorted_codes, dtype=np.bool_)
    opens[:, 1:] = sorted_codes[:, 1:] != sorted_codes[:, :-1]
    starts = np.maximum.accumulate(np.where(opens, places, 0), axis=1)
    late = (places - starts >= most) & (sorted_codes >= 0)
    result = np.zeros(items.shape, dtype=np.bool_)
    np.put_along_axis(result, columns_in_order, late, axis=1)
    return result
