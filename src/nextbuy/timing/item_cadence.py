"""Item cadence: each item's own clock, for each user who buys it.

The log of a gap between two purchases of an item by a user is normal around a mean of their own,
which is normal around the item's, that around its category's, and that around one for all. After a
purchase and n gaps a user is through with the item with probability k s / (k + n), where s is the
item's share, shrunk the same way on the log-odds scale (a Beta distribution of concentration k over
users). The open gap of every pair is part of the likelihood (right-censoring); without it, items
would seem due the sooner the shorter the log is.

Legend: V items, P pairs of a user and an own item.
"""

from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
from pydantic import Field
from scipy.special import expit

from nextbuy import columns, storage
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories, Int64
from nextbuy.errors import BundleError, EmptyDataError
from nextbuy.timing import stored
from nextbuy.timing.cadence_steps import Cadences, next_cadences
from nextbuy.timing.item_clocks import ItemClocks
from nextbuy.timing.item_gaps import Float64, ItemGaps, item_gaps
from nextbuy.timing.shrinkage import Shrunk

EARLY: Final = 0.1
"""Share of the gaps that are shorter than a cool-down of an item's own clock."""

_ARRAYS: Final = ("means", "uncertainties", "stops")
_WEIGHTS: Final = "items.safetensors"


class ItemCadenceConfig(stored.Stored):
    """Unknown keys are errors."""

    personal: bool = Field(
        default=True, description="a user's own gaps count; without, an item's clock is one for all"
    )
    most_steps: int = Field(default=60, ge=1)
    close: float = Field(default=5e-3, gt=0, description="change of a parameter that ends fitting")


class ItemCadenceParameters(stored.Stored):
    """What all items share; variances of log days.

    Attributes:
        gap_variance: Of the gaps of one user and item.
        pair_variance: Of users around an item; 0 if clocks are not personal.
        concentration: Of the shares of items that a user is through with; infinite, which is None,
            if clocks are not personal.
        num_gaps: That were learnt from.
        num_pairs: Users and items that were learnt from.
    """

    gap_variance: float = Field(gt=0)
    pair_variance: float = Field(ge=0)
    concentration: float | None = Field(gt=0)
    num_gaps: int = Field(ge=1)
    num_pairs: int = Field(ge=1)


class ItemCadence:
    """Fitted by empirical Bayes: steps of Newton's method on the likelihood of all gaps, complete
    and open."""

    name: ClassVar[str] = "item-cadence"

    def __init__(self, config: ItemCadenceConfig | None = None) -> None:
        self.config = config or ItemCadenceConfig()
        self.parameters: ItemCadenceParameters | None = None
        self._items: dict[str, Float64] = {}

    def fit(self, train: Histories, catalog: Catalog, as_of: int | Int64) -> Self:
        """Learn from the purchases before `as_of`, at which all observation ends (censoring).

        Args:
            train: With dates; items refer to `catalog`.
            catalog: Says the category of each item; items without one are a category of their own.
            as_of: UTC microseconds, one moment for all users or one a user.

        Raises:
            EmptyDataError: If nobody bought an item on two days.
            ConfigError: If time is only an order.
        """
        gaps = item_gaps(train, as_of)
        if not gaps.counts.any():
            raise EmptyDataError(
                f"None of {len(train)} users bought an item on two days ({len(gaps)} pairs of a "
                f"user and an item); {self.name} learns from the days between. Give a longer log, "
                "or a coarser level such as category."
            )
        cadences = self._fitted_to(gaps, _categories(catalog))
        self.parameters = ItemCadenceParameters(
            gap_variance=cadences.gap_variance,
            pair_variance=cadences.pair_variance,
            concentration=cadences.concentration if self.config.personal else None,
            num_gaps=int(gaps.counts.sum()),
            num_pairs=len(gaps),
        )
        self._items = {
            "means": cadences.means.items,
            "uncertainties": cadences.means.uncertainties,
            "stops": expit(cadences.stops.items),
        }
        return self

    def _fitted_to(self, gaps: ItemGaps, categories: Int64) -> Cadences:
        first = float(gaps.log_sums.sum() / gaps.counts.sum())
        cadences = Cadences(
            means=Shrunk.start(categories, first),
            stops=Shrunk.start(categories, 0.0),
            gap_variance=0.5,
            pair_variance=0.3 if self.config.personal else 0.0,
            concentration=4.0 if self.config.personal else np.inf,
        )
        for _ in range(self.config.most_steps):
            before = cadences
            cadences = next_cadences(cadences, gaps)
            if cadences.distance(before) < self.config.close:
                break
        return cadences

    def clocks(self, histories: Histories, as_of: int | Int64) -> ItemClocks:
        """The clocks of all own items of these users, from their purchases before `as_of`.

        Raises:
            NotFittedError: If `fit` or `load` has not been called.
            ConfigError: If time is only an order.
        """
        shared = stored.found(self.parameters, self.name)
        gaps = item_gaps(histories, as_of)
        mean_P, left_P, stop_P = (self._items[name][gaps.items] for name in _ARRAYS)
        if not self.config.personal:
            return ItemClocks(
                gaps=gaps, means=mean_P, sds=np.sqrt(left_P + shared.gap_variance), stops=stop_P
            )
        prior_P = shared.pair_variance + left_P
        precision_P = 1.0 / prior_P + gaps.counts / shared.gap_variance
        own_P = (mean_P / prior_P + gaps.log_sums / shared.gap_variance) / precision_P
        concentration = shared.concentration or np.inf
        return ItemClocks(
            gaps=gaps,
            means=own_P,
            sds=np.sqrt(shared.gap_variance + 1.0 / precision_P),
            stops=stop_P / (1.0 + gaps.counts / concentration),
        )

    def not_due(self, histories: Histories, as_of: Int64) -> tuple[Int64, Int64]:
        """Users and items, as pairs, of which not even the early end of the gap has been reached:
        what a cool-down by own clocks keeps back."""
        clocks = self.clocks(histories, as_of)
        early = clocks.gaps.elapsed < clocks.gap_days([EARLY])[:, 0]
        return clocks.gaps.owners[early], clocks.gaps.items[early].astype(np.int64)

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        found = stored.found(self.parameters, self.name)
        stored.save(folder, self.name, config=self.config, parameters=found)
        storage.write_arrays(folder / _WEIGHTS, self._items)

    @classmethod
    def load(cls, folder: Path, num_items: int) -> Self:
        """Read what `save` wrote, for a catalog of so many items.

        Raises:
            BundleError: If a key is unknown or missing, or a value out of its range.
        """
        config, parameters = stored.load_fitted(
            folder, cls.name, ItemCadenceConfig, ItemCadenceParameters
        )
        items = storage.read_arrays(folder / _WEIGHTS)
        fits = set(items) == set(_ARRAYS) and all(
            a.shape == (num_items + 1,) and a.dtype == np.float64 and np.isfinite(a).all()
            for a in items.values()
        )
        if not fits or items["uncertainties"].min() < 0 or items["stops"].min() < 0:
            found = {name: (str(a.dtype), a.shape) for name, a in items.items()}
            raise BundleError(
                f"{folder / _WEIGHTS} holds {found}; expected {', '.join(_ARRAYS)} of "
                f"{num_items + 1} finite float64 each, variances and shares not below 0."
            )
        model = cls(config)
        model.parameters, model._items = parameters, items
        return model


def _categories(catalog: Catalog) -> Int64:
    """A number for the category of each item index, length V + 1; 0 is padding and no category."""
    codes = catalog.table[columns.CATEGORY].rank("dense").cast(int).fill_null(0).to_numpy()
    return np.concatenate([[0], codes]).astype(np.int64)
