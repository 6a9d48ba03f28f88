"""From scores to probabilities: what counting and neighbour models share.

A model of this kind says how strongly each item suggests itself, with scores s >= 0. They become

    p(i | u) = (1 - b) s_ui^g / sum_j s_uj^g  +  b P(i),

with P the popularity in the training histories. The power g sharpens or flattens, the back-off b
leaves room for what no score speaks for; both maximise the likelihood of the validation targets. A
user without any score gets popularity.

Legend: U users, C cases, T targets, V items.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nextbuy import storage
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN, Float32, Histories, Int64
from nextbuy.errors import BundleError, NotFittedError
from nextbuy.models.popularity import log_popularity, with_padding
from nextbuy.models.protocol import FitOptions
from nextbuy.splitting.cases import Cases

Arrays = dict[str, NDArray[Any]]
Scorer = Callable[[Histories, Int64 | None], Float32]

_POWERS: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
_MOST_CASES: Final = 4_000
_LEAST_CASES: Final = 500
_MOST_CELLS: Final = 10**8
_CHUNK_BYTES: Final = 2**23  # what is larger gets new pages of memory each time


class Calibration(BaseModel):
    """How scores become probabilities; see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    power: float = Field(default=1.0, gt=0)
    backoff: float = Field(default=0.1, gt=0, le=1)


class ScoredModel(ABC):
    """A model that gives scores; inherit, and write `learn` and `scores`."""

    name: ClassVar[str]
    config_class: ClassVar[type[BaseModel]]

    def __init__(self, config: BaseModel | None = None) -> None:
        self.config: Any = config or self.config_class()
        self._asked: Any = self.config  # what the first fit chose must not bind the second
        self.calibration = Calibration()
        self._arrays: Arrays | None = None
        self._log_popularity: Float32 | None = None

    @abstractmethod
    def learn(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Arrays:
        """What scoring needs, as arrays.

        What validation chooses goes into `self.config`, from what was asked, `self._asked`: a
        refit takes it from there.
        """

    @abstractmethod
    def scores(self, arrays: Arrays, histories: Histories, num_items: int) -> Float32:
        """Scores of items 1..V, shape [U, V], none below 0."""

    @abstractmethod
    def check(self, arrays: Arrays, num_items: int) -> bool:
        """Whether stored arrays are those of a catalog of this size."""

    def fit(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Self:
        """Learn, then calibrate on validation; see `Model.fit`."""
        self._log_popularity = log_popularity(train, len(catalog), 1.0)
        options.check_time()
        options.progress.start("learn", 1)
        self._arrays = self.learn(train, validation, catalog, options)
        options.progress.advance(1, {})
        options.progress.finish()
        arrays = self._arrays
        self.calibration = fit_calibration(
            lambda histories, _: self.scores(arrays, histories, len(catalog)),
            validation,
            np.exp(self._log_popularity[1:]),
            options,
        )
        return self

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """Log P(next item) after each history; see `Model.log_probabilities`."""
        if self._arrays is None or self._log_popularity is None:
            raise NotFittedError(f"{self.name} has learnt nothing yet: call fit or load first.")
        popularity = np.exp(self._log_popularity[1:])
        scores = self.scores(self._arrays, histories, len(popularity))
        p = probabilities(scores, popularity, self.calibration)
        result = np.full((len(p), len(popularity) + 1), -np.inf, dtype=np.float32)
        np.log(p, out=result[:, 1:])
        return result

    def save(self, folder: Path) -> None:
        """Write config and arrays; see `Model.save`."""
        if self._arrays is None or self._log_popularity is None:
            raise NotFittedError(f"{self.name} cannot be saved before it is fitted.")
        facts = {
            "config": self.config.model_dump(mode="json"),
            "calibration": self.calibration.model_dump(mode="json"),
        }
        storage.write_json(folder / "config.json", facts)
        stored = {"log_popularity": self._log_popularity[1:], **self._arrays}
        storage.write_arrays(folder / "weights.safetensors", stored)

    @classmethod
    def load(cls, folder: Path, catalog: Catalog) -> Self:
        """Read what `save` wrote; see `Model.load`."""
        config, calibration = _read_config(folder, cls.config_class)
        arrays: Mapping[str, NDArray[Any]] = storage.read_arrays(folder / "weights.safetensors")
        arrays = dict(arrays)
        popularity = arrays.pop("log_popularity", np.zeros(0, np.float32))
        for name, array in [("log_popularity", popularity), *arrays.items()]:
            if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
                raise BundleError(f"{name} in {folder} is {array.dtype} or not finite.")
        model = cls(config)
        if popularity.shape != (len(catalog),) or not model.check(arrays, len(catalog)):
            shapes = {name: array.shape for name, array in arrays.items()}
            raise BundleError(
                f"{folder} knows {len(popularity)} items and has arrays {shapes}; "
                f"that is no {cls.name} for a catalog of {len(catalog)}."
            )
        model.calibration, model._arrays = calibration, arrays
        model._log_popularity = with_padding(popularity.astype(np.float32))
        return model


def _read_config(folder: Path, config_class: type[BaseModel]) -> tuple[BaseModel, Calibration]:
    place = folder / "config.json"
    stored = storage.read_json(place)
    if not isinstance(stored, dict) or set(stored) != {"config", "calibration"}:
        found = sorted(stored) if isinstance(stored, dict) else type(stored).__name__
        raise BundleError(f"{place} has {found}; expected config and calibration.")
    try:
        config = config_class.model_validate(stored["config"])
        return config, Calibration.model_validate(stored["calibration"])
    except ValidationError as error:
        raise BundleError(f"{place} is no {config_class.__name__}: {error}") from error


def probabilities(scores: Float32, popularity: Float32, calibration: Calibration) -> Float32:
    """p of the module's formula, shape [U, V]; every row sums to 1."""
    powered = _scaled(scores)
    if calibration.power != 1.0:
        np.power(powered, np.float32(calibration.power), out=powered)
    total = powered.sum(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    own = np.where(total > 0, 1.0 - calibration.backoff, 0.0).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        powered *= np.where(total > 0, own / total, 0.0)
    powered += (1.0 - own) * popularity
    return powered


def fit_calibration(
    scorer: Scorer, validation: Cases, popularity: Float32, options: FitOptions
) -> Calibration:
    """The power, of a grid, and the back-off with the best likelihood of validation targets.

    Each target counts once. Without usable cases the default stays.
    """
    # Enough for two numbers, fewer for large catalogs.
    cases = validation.thinned(
        max(_LEAST_CASES, min(_MOST_CASES, _MOST_CELLS // max(1, len(popularity))))
    )
    owners = np.repeat(np.arange(len(cases)), np.diff(cases.target_offsets))
    known = cases.target_items != UNKNOWN
    owners, targets = owners[known], cases.target_items[known].astype(np.int64) - 1
    if len(targets) == 0:
        return Calibration()
    shares, is_scored = _target_shares(
        scorer, cases, owners, targets, len(popularity), options=options
    )
    if not is_scored.any():
        return Calibration()
    own, other = shares[:, is_scored], popularity[targets[is_scored]]
    best = (-np.inf, Calibration())
    for power, share in zip(_POWERS, own, strict=True):
        backoff = _best_backoff(share, other)
        score = float(np.log((1.0 - backoff) * share + backoff * other).sum())
        if score > best[0]:
            best = (score, Calibration(power=power, backoff=backoff))
    return best[1]


def _target_shares(
    scorer: Scorer,
    cases: Cases,
    owners: Int64,
    targets: Int64,
    num_items: int,
    *,
    options: FitOptions,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """s_t^g / sum s^g of each target for each power, and whether its case has any score."""
    shares = np.zeros((len(_POWERS), len(targets)))
    is_scored = np.zeros(len(targets), dtype=np.bool_)
    step = max(1, _CHUNK_BYTES // (4 * num_items))
    for start in range(0, len(cases), step):
        options.check_time()
        rows = np.arange(start, min(start + step, len(cases)))
        part = cases.take(rows)
        scores = scorer(part.histories, part.as_of)
        mine = np.flatnonzero((owners >= start) & (owners <= rows[-1]))
        row = owners[mine] - start
        scaled = _scaled(scores)
        there = scaled > 0  # most items have no score with most models
        lengths = np.count_nonzero(there, axis=1)
        is_scored[mine] = lengths[row] > 0
        filled, values = np.flatnonzero(lengths), scaled[there]
        ends = np.cumsum(lengths[filled])
        total, powered = np.ones(len(rows)), np.empty_like(values)
        own = scaled[row, targets[mine]]
        for place, power in enumerate(_POWERS):
            np.power(values, np.float32(power), out=powered)
            if len(filled):
                begins = ends - lengths[filled]
                total[filled] = np.add.reduceat(powered, begins, dtype=np.float64)
            shares[place, mine] = np.power(own, np.float32(power)) / total[row]
    return shares, is_scored


def _scaled(scores: Float32) -> Float32:
    """s / max s of each row: the scale cancels, and no power of it overflows."""
    top = scores.max(axis=1, initial=0.0, keepdims=True)
    scaled: Float32 = np.divide(scores, np.where(top > 0, top, 1), dtype=np.float32)
    return scaled


def _best_backoff(share: NDArray[np.float64], other: Float32) -> float:
    """The weight of the second of two distributions, by expectation-maximisation."""
    backoff = 0.3
    for _ in range(200):
        second = backoff * other
        new = float((second / (second + (1.0 - backoff) * share)).mean())
        if abs(new - backoff) < 1e-6:
            break
        backoff = new
    return min(max(backoff, 1e-4), 1.0)
