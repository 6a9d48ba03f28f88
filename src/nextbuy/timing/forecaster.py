"""When each customer buys next, how often, and for how much: the table of a forecast.

Legend: U users, H horizons.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from nextbuy import columns
from nextbuy.data.histories import Histories, Int64
from nextbuy.errors import ConfigError
from nextbuy.threads import in_threads
from nextbuy.timing.amounts import BLEND_FOLDER, Amounts
from nextbuy.timing.basket_size import BasketSize
from nextbuy.timing.blend import TimingBlend
from nextbuy.timing.events import Float64
from nextbuy.timing.gamma_gamma import GammaGamma
from nextbuy.timing.lifetime import lifetime_value
from nextbuy.timing.unlisted import FILE, Unlisted

HORIZONS: Final = (7, 30, 90)
"""Days within which the probability of a purchase is told."""

QUANTILES: Final = (0.1, 0.5, 0.9)
LONGEST: Final = 3_650
"""Days; beyond ten years a log of purchases says nothing."""

_MOST_DISCOUNT: Final = 10.0
_CHUNK: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastOptions:
    """How far a forecast looks.

    Attributes:
        horizon_days: Whole days over which purchases and spend are expected.
        lifetime_days: Whole days over which the lifetime value is counted. A year by default: a
            log is seldom much longer, and what was never seen to come true should be asked for.
        discount: Of the lifetime value, a year; 0.1 says that 110 in a year are worth 100 today.

    Raises:
        ConfigError: If one is out of its range.
    """

    horizon_days: int = 90
    lifetime_days: int = 365
    discount: float = 0.1

    def __post_init__(self) -> None:
        for name, days in (("horizon", self.horizon_days), ("lifetime", self.lifetime_days)):
            if not 1 <= days <= LONGEST:
                raise ConfigError(f"The {name} is {days} days; it goes from 1 to {LONGEST} days.")
        if not 0 <= self.discount <= _MOST_DISCOUNT:
            raise ConfigError(
                f"The discount is {self.discount} a year; it goes from 0 to {_MOST_DISCOUNT:g}, "
                "such as 0.1 for 10 %."
            )


class Forecaster:
    """A weighed blend of timing models, the size of baskets, and what a purchase is worth.

    Attributes:
        blend: Fitted and weighed.
        amounts: Fitted; None where the log has no prices. Of an older bundle Gamma-Gamma alone.
        sizes: Of baskets; None of an older bundle.
        unlisted: Purchases that the stored histories lack, or None.
    """

    def __init__(
        self,
        blend: TimingBlend,
        amounts: Amounts | GammaGamma | None,
        sizes: BasketSize | None,
        unlisted: Unlisted | None = None,
    ) -> None:
        self.blend = blend
        self.amounts = amounts
        self.sizes = sizes
        self.unlisted = unlisted

    def whole(self, histories: Histories) -> Histories:
        """The stored histories, all users in their order, with every purchase of the log."""
        return histories if self.unlisted is None else self.unlisted.added_to(histories)

    def table(
        self,
        histories: Histories,
        as_of: int | Int64,
        options: ForecastOptions | None = None,
        *,
        next_item: Float64 | None = None,
    ) -> pl.DataFrame:
        """One row a user, in their order; in chunks, a thread a core, so that memory stays bounded.

        Only purchases before `as_of` count. A user without one has null everywhere: nothing here
        knows when somebody buys who never did.

        Args:
            histories: With dates.
            as_of: UTC microseconds from which days count, one for all, or one a user.
            options: How far to look; H and L are its `horizon_days` and `lifetime_days`.
            next_item: What each user's next item is expected to cost, for `amounts` that ask for
                it; see `Amounts.estimates`.

        Returns:
            `user_id`; `days_to_next_p10`, `_p50` and `_p90`, days by which the next purchase has
            happened with that probability, infinite where the user rather never buys again;
            `p_buy_7d`, `p_buy_30d`, `p_buy_90d`; `p_active`, that the user will ever buy again;
            `expected_items_next_basket`, `expected_units_next_basket` (null without quantities)
            and `expected_value_next_basket` (money), all baskets of its day taken together;
            `expected_purchases_Hd` (days with a purchase); `expected_spend_Hd` and, discounted,
            `lifetime_value_Ld` (see `lifetime.lifetime_value`), null where nothing is known of
            prices; `as_of`.

        Raises:
            ConfigError: If time is only an order.
        """
        if histories.time_kind != "dates":
            raise ConfigError(
                "A forecast was asked of purchases whose time is only an order. It needs dates: "
                "give a time column with dates."
            )
        moments_U = np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(histories))
        rows = partial(self._rows, histories, moments_U, next_item, options or ForecastOptions())
        starts = range(0, max(len(histories), 1), _CHUNK)
        num_threads = torch.get_num_threads()
        try:  # a thread a core is enough: torch would start as many again in each
            return pl.concat(in_threads(rows, starts, prepare=lambda: torch.set_num_threads(1)))
        finally:
            torch.set_num_threads(num_threads)

    def _rows(
        self,
        everybody: Histories,
        as_of: Int64,
        next_item: Float64 | None,
        options: ForecastOptions,
        start: int,
    ) -> pl.DataFrame:
        """Of one chunk; the first has no rows where there are no users."""
        users = np.arange(start, min(start + _CHUNK, len(everybody)))
        histories, as_of = everybody.take(users), as_of[users]
        outlook = self.blend.outlook(histories, as_of)
        horizon_days, lifetime_days = options.horizon_days, options.lifetime_days
        days_UQ = outlook.days_to_next(QUANTILES)
        within_UH = outlook.probability_within(np.array(HORIZONS, dtype=np.float64))
        purchases_U = outlook.expected_purchases(float(horizon_days))[:, 0]
        value_U = self._values(histories, as_of, None if next_item is None else next_item[users])
        value_U[np.isnan(purchases_U)] = np.nan
        values: dict[str, Float64] = {
            **{f"days_to_next_p{q * 100:.0f}": days_UQ[:, n] for n, q in enumerate(QUANTILES)},
            **{f"p_buy_{days}d": within_UH[:, n] for n, days in enumerate(HORIZONS)},
            "p_active": outlook.p_active(),
            **self._sizes(histories, as_of, is_known=~np.isnan(purchases_U)),
            "expected_value_next_basket": value_U,
            f"expected_purchases_{horizon_days}d": purchases_U,
            f"expected_spend_{horizon_days}d": purchases_U * value_U,
            f"lifetime_value_{lifetime_days}d": lifetime_value(
                outlook, value_U, lifetime_days, options.discount
            ),
        }
        return pl.DataFrame(
            [
                histories.user_ids.alias(columns.USER),
                *(pl.Series(name, each).fill_nan(None) for name, each in values.items()),
                pl.Series("as_of", as_of, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            ]
        )

    def _values(self, histories: Histories, as_of: Int64, next_item_U: Float64 | None) -> Float64:
        """Of the next purchase, [U]; `nan` where nothing is known of prices."""
        if self.amounts is None or histories.prices is None:
            return np.full(len(histories), np.nan)
        if isinstance(self.amounts, GammaGamma):
            value_U = self.amounts.expected_spend(histories, as_of)
        else:
            value_U = self.amounts.expected_value(histories, as_of, next_item_U)
        value_U[~np.isfinite(value_U)] = np.nan
        return value_U

    def _sizes(
        self, histories: Histories, as_of: Int64, *, is_known: NDArray[np.bool_]
    ) -> dict[str, Float64]:
        """Columns of what is in the next basket; `nan` of users who never bought."""
        unknown = np.full(len(histories), np.nan)
        items_U = units_U = None
        if self.sizes is not None:
            items_U = self.sizes.expected_items(histories, as_of)
            units_U = self.sizes.expected_units(histories, as_of)
        columns_found = {"items": items_U, "units": units_U}
        return {
            f"expected_{name}_next_basket": unknown if u is None else np.where(is_known, u, np.nan)
            for name, u in columns_found.items()
        }

    def save(self, folder: Path) -> None:
        """Write into an existing folder; Gamma-Gamma goes where older bundles have it."""
        (folder / "blend").mkdir()
        self.blend.save(folder / "blend")
        if self.sizes is not None:
            (folder / "sizes").mkdir()
            self.sizes.save(folder / "sizes")
        if self.amounts is not None:
            (folder / "amount").mkdir()
            self.amounts.save(folder / "amount")
        if self.unlisted is not None:
            self.unlisted.save(folder)

    @classmethod
    def load(cls, folder: Path, histories: Histories, num_items: int) -> Self:
        """Read what `save` wrote, for the histories and the catalog that are stored beside it.

        Raises:
            BundleError: If a part is missing or not what it says.
        """
        amount, sizes = folder / "amount", folder / "sizes"
        return cls(
            TimingBlend.load(folder / "blend"),
            _load_amounts(amount, num_items) if amount.exists() else None,
            BasketSize.load(sizes) if sizes.exists() else None,
            Unlisted.load(folder, histories) if (folder / FILE).exists() else None,
        )


def _load_amounts(folder: Path, num_items: int) -> Amounts | GammaGamma:
    if (folder / BLEND_FOLDER).exists():
        return Amounts.load(folder, num_items)
    return GammaGamma.load(folder)
