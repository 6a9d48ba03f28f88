"""Personal frequency: users buy again what they bought, as often and as lately as they did."""

from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN, Float32, Histories, Int64
from nextbuy.errors import NotFittedError
from nextbuy.models.popularity import log_popularity, with_padding
from nextbuy.models.protocol import FitOptions
from nextbuy.models.search_space import Range, SearchSpace
from nextbuy.models.sparse import baskets_ago
from nextbuy.models.stored import load_model, save_model
from nextbuy.splitting.cases import Cases

_TRUSTS: Final = np.r_[0.001, np.linspace(0.05, 0.95, 19), 0.99]
_HALF_LENGTHS: Final = np.r_[0.0, 2.0 ** np.arange(-1, 11)]
_DECAYS: Final = (1.0, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5)


class PersonalFrequencyConfig(BaseModel):
    """Unknown keys are errors. What is None is chosen on validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search_space: ClassVar[SearchSpace] = {
        "smoothing": Range(low=0.01, high=100.0, log=True),
    }

    trust: float | None = Field(
        default=None, ge=0, lt=1, description="weight of the own history when it is long"
    )
    half_length: float | None = Field(
        default=None, ge=0, description="purchases at which half of that weight is given"
    )
    decay: float | None = Field(
        default=None, gt=0, le=1, description="weight of a purchase one basket further back"
    )
    smoothing: float = Field(
        default=1.0, gt=0, description="of the popularity that it backs off to"
    )


class PersonalFrequency:
    """P(i | u) = w n_ui / n_u + (1 - w) P(i), with w = trust N_u / (N_u + half_length).

    n_ui sums decay^(baskets ago) over the user's purchases of item i, n_u over all of them; N_u
    counts them; P(i) is popularity. With decay 1 the ranking is that of GP-TopFreq in Li et al.
    (TOIS 2023): own items by frequency, then all others by popularity. `trust`, `half_length` and
    `decay` maximise the likelihood of the validation targets.
    """

    name: ClassVar[str] = "personal-frequency"

    def __init__(self, config: PersonalFrequencyConfig | None = None) -> None:
        self.config = config or PersonalFrequencyConfig()
        self._asked = self.config  # what the first fit chose must not bind the second
        self._log_popularity: Float32 | None = None

    def fit(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Self:
        """Count, and choose how far to trust a history; see `Model.fit`."""
        self._log_popularity = log_popularity(train, len(catalog), self._asked.smoothing)
        chosen = _choose(validation, np.exp(self._log_popularity), self._asked)
        self.config = self._asked.model_copy(update=chosen)
        return self

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """The mixture for each history; see `Model.log_probabilities`."""
        trust, half_length = self.config.trust, self.config.half_length
        if self._log_popularity is None or trust is None or half_length is None:
            raise NotFittedError("personal-frequency has not counted yet: call fit or load first.")
        lengths = histories.lengths.astype(np.float64)
        weights = own_weight(lengths, trust, half_length)
        popularity = np.exp(self._log_popularity.astype(np.float64))
        mixture = ((1.0 - weights)[:, None] * popularity).astype(np.float32)
        width = mixture.shape[1]
        pairs, frequencies = own_frequencies(histories, width, self.config.decay or 1.0)
        users, items = np.divmod(pairs, width)
        mixture[users, items] += (weights[users] * frequencies).astype(np.float32)
        with np.errstate(divide="ignore"):  # padding has probability 0
            return np.log(mixture, out=mixture)

    def save(self, folder: Path) -> None:
        """Write config and counts; see `Model.save`."""
        if self._log_popularity is None:
            raise NotFittedError("personal-frequency cannot be saved before it is fitted.")
        save_model(folder, self.config, {"log_popularity": self._log_popularity[1:]})

    @classmethod
    def load(cls, folder: Path, catalog: Catalog) -> Self:
        """Read what `save` wrote; see `Model.load`."""
        shapes = {"log_popularity": (len(catalog),)}
        config, weights = load_model(folder, PersonalFrequencyConfig, shapes)
        model = cls(config)
        model._log_popularity = with_padding(weights["log_popularity"])
        return model


def own_weight(
    lengths: NDArray[np.float64], trust: float, half_length: float
) -> NDArray[np.float64]:
    """w = trust n / (n + half_length); 0 for an empty history."""
    total = lengths + half_length
    return trust * np.divide(lengths, total, out=np.zeros_like(lengths), where=lengths > 0)


def own_frequencies(
    histories: Histories, width: int, decay: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What each user bought, as keys `user * width + item` in order, and n_ui / n_u of each.

    Summed in float64: adding 1 / n to a float32 n times drifts away from 1 when n is large.
    """
    keys = histories.owners * width + histories.items
    if decay == 1.0:
        pairs, counts = np.unique(keys, return_counts=True)
        return pairs, counts / histories.lengths[pairs // width]
    weights = np.power(decay, baskets_ago(histories).astype(np.float64))
    totals = np.bincount(histories.owners, weights, len(histories))
    pairs, places = np.unique(keys, return_inverse=True)
    return pairs, np.bincount(places, weights, len(pairs)) / totals[pairs // width]


def _choose(
    validation: Cases, popularity: Float32, config: PersonalFrequencyConfig
) -> dict[str, float]:
    """The trust, half length and decay, of a grid, with the best validation log-likelihood."""
    trusts = _TRUSTS if config.trust is None else np.array([config.trust])
    halves = _HALF_LENGTHS if config.half_length is None else np.array([config.half_length])
    decays = _DECAYS if config.decay is None else (config.decay,)
    owners = np.repeat(np.arange(len(validation)), np.diff(validation.target_offsets))
    known = validation.target_items != UNKNOWN
    owners, targets = owners[known], validation.target_items[known].astype(np.int64)
    if len(targets) == 0:
        return {
            "trust": 0.5 if config.trust is None else config.trust,
            "half_length": 1.0 if config.half_length is None else config.half_length,
            "decay": decays[0],
        }
    lengths = validation.histories.lengths.astype(np.float64)[owners]
    width = len(popularity)
    best = (-np.inf, 0.0, 0.0, 0.0)
    for decay in decays:
        pairs, frequencies = own_frequencies(validation.histories, width, decay)
        frequency = _looked_up(owners * width + targets, pairs, frequencies)
        for half in halves:
            reach = own_weight(lengths, 1.0, float(half))
            for trust in trusts:
                own = trust * reach
                likelihood = own * frequency + (1.0 - own) * popularity[targets]
                score = float(np.log(likelihood).sum())
                best = max(best, (score, float(trust), float(half), decay))
    return dict(zip(("trust", "half_length", "decay"), best[1:], strict=True))


def _looked_up(
    asked: NDArray[np.int64], keys: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The value of each key that was asked for, 0 where it is not among the sorted keys."""
    if len(keys) == 0:
        return np.zeros(len(asked))
    places = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[places] == asked, values[places], 0.0)
