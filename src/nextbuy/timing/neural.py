"""A network that foretells the next purchase event: gaps learnt from many users at once.

A GRU reads a user's purchase events (gap, rhythm so far, basket, money, weekday, hour, season) and
says, after each, how long the wait for the next lasts: a mixture of log-normals and a share that
never comes. Every event of every user is a lesson, the newest one too, whose wait is still open
(right-censoring). At a moment the wait is known to be longer than what has elapsed, so that

    P(no purchase within s | elapsed e) = S(e + s) / S(e).

Waits are in the shop's time (`week`): how often people buy at each hour of the week is counted, not
learnt. Where a log knows only days, a purchase comes somewhere within its day: gaps are made longer
by a share of a day that is drawn once, or a network would learn that gaps are whole numbers.

Legend: U users, E events, H horizons.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from nextbuy import storage
from nextbuy.data.histories import DAY, Histories, Int64, jagged_rows, offsets_of
from nextbuy.errors import BundleError, EmptyDataError
from nextbuy.nn.event_encoder import EventNetwork, EventShape, weight_shapes
from nextbuy.nn.log_normal_mixture import LogNormalMixture
from nextbuy.nn.network import Weights
from nextbuy.seeding import generator
from nextbuy.timing import stored
from nextbuy.timing.event_features import (
    NUM_FEATURES,
    Scales,
    event_features,
    log_days,
    scales_of,
    without_season,
)
from nextbuy.timing.events import Events, Float64, events_before
from nextbuy.timing.neural_outlook import NeuralOutlook
from nextbuy.timing.neural_training import Recipe, Waited, groups_of, padded, trained
from nextbuy.timing.protocol import Outlook
from nextbuy.timing.week import Week, WeeklyOutlook

WEIGHTS: Final = "timing.safetensors"
_EVENTS_AT_ONCE: Final = 8_192  # in forecasts: some hundred users side by side use the cache best


class NeuralTimingConfig(stored.Stored):
    """Unknown keys are errors."""

    hidden: int = Field(default=48, ge=1, le=4_096)
    components: int = Field(default=6, ge=1, le=256, description="log-normals in a mixture")
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    epochs: int = Field(default=20, ge=1, description="at most")
    patience: int = Field(default=4, ge=1, description="epochs without a better one")
    peak_rate: float = Field(default=0.005, gt=0)
    longest: int = Field(default=256, ge=1, description="newest events of a user that are read")
    most_events: int = Field(default=100_000, ge=1, description="to learn from, of whole users")
    fewest_gaps: int = Field(default=1_000, ge=1, description="fewer teach a network nothing")
    seed: int = 0


class NeuralTimingParameters(stored.Stored):
    """What is not a weight. Features are cut at what was learnt from, so that an odd history is
    taken for the nearest one that is known."""

    week: Week | None
    scales: Scales
    least: tuple[float, ...] = Field(description="of each feature, in what was learnt from")
    most: tuple[float, ...]


class NeuralTiming:
    """See the module.

    Attributes:
        config: Sizes, training and the seed.
        parameters: None before it is fitted.
        weights: By name; None before it is fitted.
    """

    name: ClassVar[str] = "neural"

    def __init__(self, config: NeuralTimingConfig | None = None) -> None:
        self.config = config or NeuralTimingConfig()
        self.parameters: NeuralTimingParameters | None = None
        self.weights: Weights | None = None

    @property
    def shape(self) -> EventShape:
        """Sizes of the network."""
        return EventShape(
            num_features=NUM_FEATURES,
            hidden=self.config.hidden,
            components=self.config.components,
            dropout=self.config.dropout,
        )

    def fit(self, train: Histories, as_of: int | Int64, *, deadline: float = math.inf) -> Self:
        """See `TimingModel.fit`.

        Args:
            train: Purchases with dates.
            as_of: Where observation ends.
            deadline: Moment of `time.monotonic()` at which training stops with what it has.

        Raises:
            EmptyDataError: If there are fewer gaps than `fewest_gaps`.
            TimeIsUpError: If the deadline passes before the first epoch has ended.
        """
        moments_U = np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(train))
        chosen = _learnt_from(events_before(train, moments_U), self.config.most_events)
        histories = train.take(chosen)
        events = events_before(histories, moments_U[chosen])
        num_gaps = len(events.gaps()[0])
        if num_gaps < self.config.fewest_gaps:
            raise EmptyDataError(
                f"{len(chosen)} users have {num_gaps} gaps between purchases; {self.name} learns "
                f"from {self.config.fewest_gaps} at least. Give a longer log."
            )
        scales = scales_of(histories, events)
        days_E, observed_E = _waits(events)
        if not (events.times % DAY).any():
            days_E = days_E + generator(self.config.seed, "within days").random(len(days_E))
        week = Week.of(events)
        if week is not None:
            days_E = week.even_days(events.times, days_E[:, None])[:, 0]
        x_EF = without_season(event_features(histories, events, scales), events)
        waited = _newest(
            Waited(
                features=x_EF,
                offsets=events.offsets,
                y=(log_days(days_E) - scales.gap.mean) / scales.gap.spread,
                observed=observed_E,
            ),
            self.config.longest,
        )
        recipe = Recipe(
            epochs=self.config.epochs, patience=self.config.patience, deadline=deadline,
            peak_rate=self.config.peak_rate, seed=self.config.seed,
        )  # fmt: skip
        self.weights = trained(self.shape, waited, recipe)
        self.parameters = NeuralTimingParameters(
            week=week,
            scales=scales,
            least=x_EF.min(axis=0).tolist(),
            most=x_EF.max(axis=0).tolist(),
        )
        return self

    def outlook(self, histories: Histories, as_of: int | Int64) -> Outlook:
        """See `TimingModel.outlook`."""
        parameters = stored.found(self.parameters, self.name)
        events = events_before(histories, as_of)
        features = np.clip(
            event_features(histories, events, parameters.scales),
            np.array(parameters.least, dtype=np.float32),
            np.array(parameters.most, dtype=np.float32),
        )
        kept = _newest_rows(events.offsets, self.config.longest)
        offsets = offsets_of(np.minimum(events.counts, self.config.longest))
        mixture = _last_mixtures(self._network(), features[kept], offsets)
        elapsed_U1, scale, week = (
            events.elapsed_days()[:, None],
            parameters.scales.gap,
            parameters.week,
        )
        if week is not None:
            elapsed_U1 = week.even_days(events.last(), elapsed_U1)
        even = NeuralOutlook(mixture, torch.from_numpy(elapsed_U1), (scale.mean, scale.spread))
        return even if week is None else WeeklyOutlook(even, week, events.as_of)

    def _network(self) -> EventNetwork:
        """In double precision, so that an answer does not depend on who else is asked."""
        network = EventNetwork(self.shape).double()
        network.load_weights(self.weights or {})
        return network

    def save(self, folder: Path) -> None:
        """See `TimingModel.save`."""
        parameters = stored.found(self.parameters, self.name)
        stored.save(folder, self.name, config=self.config, parameters=parameters)
        storage.write_arrays(folder / WEIGHTS, self.weights or {})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `TimingModel.load`."""
        config, parameters = stored.load_fitted(
            folder, cls.name, NeuralTimingConfig, NeuralTimingParameters
        )
        model = cls(config)
        model.parameters = parameters
        model.weights = storage.read_arrays(folder / WEIGHTS)
        _check(model.weights, weight_shapes(model.shape), folder / WEIGHTS)
        if {len(parameters.least), len(parameters.most)} != {NUM_FEATURES}:
            raise BundleError(
                f"{folder / stored.FILE} bounds {len(parameters.least)} and "
                f"{len(parameters.most)} features; there are {NUM_FEATURES}."
            )
        return model


def _check(found: Mapping[str, NDArray[Any]], shapes: Mapping[str, Any], path: Path) -> None:
    seen = {name: (array.dtype.name, array.shape) for name, array in found.items()}
    expected = {name: ("float32", shape) for name, shape in shapes.items()}
    if seen != expected:
        raise BundleError(f"{path} holds {seen}; expected {expected}.")
    bad = [name for name, array in found.items() if not np.isfinite(array).all()]
    if bad:
        raise BundleError(f"{path} holds weights that are not finite: {bad}.")


def _learnt_from(events: Events, most_events: int) -> Int64:
    """Users with a purchase, in an order that depends on their events alone, thinned evenly."""
    counts_U = events.counts
    order = np.lexsort((events.last(), events.first(), counts_U))
    order = order[counts_U[order] > 0]
    share = most_events / max(int(counts_U.sum()), 1)
    if share >= 1.0:
        return order
    return order[np.linspace(0, len(order) - 1, max(int(share * len(order)), 1)).astype(np.int64)]


def _waits(events: Events) -> tuple[Float64, NDArray[np.bool_]]:
    """Days from each event to the next, or to `as_of`, and whether the next was seen."""
    owners_E = events.owners
    ends_E = np.append(events.times[1:], 0)
    observed_E = np.append(owners_E[1:] == owners_E[:-1], [False])
    ends_E = np.where(observed_E, ends_E, events.as_of[owners_E])
    return (ends_E - events.times) / DAY, observed_E


def _newest_rows(offsets: Int64, longest: int) -> Int64:
    """Rows of each user's newest events."""
    lengths = np.minimum(np.diff(offsets), longest)
    return jagged_rows(offsets[1:] - lengths, lengths)


def _newest(waited: Waited, longest: int) -> Waited:
    rows = _newest_rows(waited.offsets, longest)
    return Waited(
        features=waited.features[rows],
        offsets=offsets_of(np.minimum(np.diff(waited.offsets), longest)),
        y=waited.y[rows],
        observed=waited.observed[rows],
    )


@torch.no_grad()
def _last_mixtures(
    network: EventNetwork, features: NDArray[np.float32], offsets: Int64
) -> LogNormalMixture:
    """What the network says after each user's last event; `nan` of a user without one."""
    lengths_U = np.diff(offsets)
    components = network.shape.components
    said_US = torch.full((len(lengths_U), 3 * components + 1), math.nan, dtype=torch.float64)
    for users in groups_of(lengths_U, np.flatnonzero(lengths_U > 0), _EVENTS_AT_ONCE):
        x_BLF, _, _ = padded(features, offsets, users)
        last_B = np.arange(len(users)) * x_BLF.shape[1] + lengths_U[users] - 1
        x = torch.from_numpy(x_BLF).double()
        said_US[torch.from_numpy(users)] = network.said(x, torch.from_numpy(last_B))
    return LogNormalMixture.of(said_US)
