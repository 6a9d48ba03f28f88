"""Many targets asked of many users at a moment after which it is known what came.

On the validation period a study teaches the calibration, on the test period it scores the result.

Legend: U users, G targets, H horizons, V items, C cases: target by target, in each horizon by
horizon, in each user by user.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextbuy.audience.calibration import Views
from nextbuy.audience.chances import basket_sizes, buying_chances, day_chances
from nextbuy.audience.own_shares import TargetPurchases, population_share, shrunk
from nextbuy.audience.target import Target
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import DAY, Float32, Histories, Int64
from nextbuy.models.protocol import FittedModel
from nextbuy.timing.events import Float64
from nextbuy.timing.protocol import TimingModel

_CHUNK_VALUES = 2**24


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ExpectedDays:
    """Of the days with a purchase within each horizon, both of shape [U, H]; see `chances`."""

    within: Float64
    expected: Float64


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Study:
    """Who is asked, about what and when.

    Attributes:
        whole: Users with every purchase that the log has of them: for when they buy.
        known: The same users with the purchases that the catalog knows: for what.
        catalog: Of `known`.
        targets: G of them.
        start: The moment of the question, UTC microseconds.
        end: Until when is known what came, UTC microseconds.
        horizons: Days, all of which lie between the two.
    """

    whole: Histories
    known: Histories
    catalog: Catalog
    targets: Sequence[Target]
    start: int
    end: int
    horizons: tuple[int, ...]

    def expected_days(self, timing: TimingModel) -> ExpectedDays:
        """When the users buy, as a timing model has it."""
        outlook = timing.outlook(self.whole, self.start)
        days = np.array(self.horizons, dtype=np.float64)
        return ExpectedDays(
            within=outlook.probability_within(days), expected=outlook.expected_purchases(days)
        )

    def next_shares(self, model: FittedModel) -> Float64:
        """Probability of each target in the next purchase, [U, G]."""
        members_VG = np.stack([each.members(self.catalog) for each in self.targets], axis=1)
        return sums_over_items(model, self.known, self.start, members_VG.astype(np.float32))

    def views(self, next_UG: Float64, days: ExpectedDays, half_life: float) -> Views:
        """What is known of each case at the start."""
        sizes_U = basket_sizes(self.whole, self.start)
        found: list[tuple[Float64, Float64, Float64, Float64]] = []
        for place, bought in enumerate(self.purchases()):
            per_day_U = day_chances(next_UG[:, place], sizes_U)
            for column, horizon in enumerate(self.horizons):
                within_U, expected_U = days.within[:, column], days.expected[:, column]
                mine_U, all_U = bought.shares(horizon, half_life)
                population = population_share(mine_U, all_U)
                found.append((
                    buying_chances(within_U, expected_U, per_day_U),
                    shrunk(mine_U, all_U, population),
                    np.full(len(sizes_U), population),
                    np.full(len(sizes_U), float(horizon)),
                ))  # fmt: skip
        formula, own, everybody, horizons = (np.concatenate(p) for p in zip(*found, strict=True))
        return Views(formula=formula, own=own, population=everybody, days=horizons)

    def purchases(self) -> Iterator[TargetPurchases]:
        """Of each target, before the start."""
        for target in self.targets:
            yield TargetPurchases.of(self.known, self.start, target.members(self.catalog))

    def bought(self) -> NDArray[np.bool_]:
        """Whether each case came true, length C."""
        owners, times = self.known.owners, self.known.times
        came = np.zeros((len(self.targets), len(self.horizons), len(self.known)), dtype=np.bool_)
        for place, target in enumerate(self.targets):
            later = target.members(self.catalog)[self.known.items] & (times >= self.start)
            for column, days in enumerate(self.horizons):
                came[place, column, owners[later & (times < self.start + days * DAY)]] = True
        return came.ravel()

    def money(self) -> Float64 | None:
        """What the user paid for the target in each case, length C; None without prices."""
        if self.known.prices is None:
            return None
        owners, times = self.known.owners, self.known.times
        paid_N = self.known.prices.astype(np.float64)
        if self.known.quantities is not None:
            paid_N *= np.nan_to_num(self.known.quantities.astype(np.float64), nan=1.0)
        paid_N = np.nan_to_num(paid_N)
        parts = []
        for target in self.targets:
            later = target.members(self.catalog)[self.known.items] & (times >= self.start)
            for days in self.horizons:
                rows = later & (times < self.start + days * DAY)
                parts.append(np.bincount(owners[rows], paid_N[rows], len(self.known)))
        return np.concatenate(parts)


def sums_over_items(
    model: FittedModel, histories: Histories, as_of: int | Int64, weights_VG: Float32
) -> Float64:
    """sum_i P(next item is i) weight_ig for each user and column, [U, G].

    Users are cut into chunks, so that no more than some rows of the catalog are held at once.

    Args:
        model: Fitted.
        histories: In the catalog of the model; only purchases before `as_of` are shown to it.
        as_of: The moment of the question, UTC microseconds, one for all or one a user.
        weights_VG: Of each item index, shape [V + 1, G].
    """
    num_users = len(histories)
    sums_UG = np.zeros((num_users, weights_VG.shape[1]))
    moments_U = np.broadcast_to(np.asarray(as_of, dtype=np.int64), num_users)
    chunk = max(1, min(_CHUNK_VALUES // len(weights_VG), 1_024))
    for start in range(0, num_users, chunk):
        users = np.arange(start, min(start + chunk, num_users))
        moments = np.ascontiguousarray(moments_U[users])
        rows = histories.take(users).before(moments)
        sums_UG[users] = np.exp(model.log_probabilities(rows, moments)) @ weights_VG
    return sums_UG
