"""What every model can do. Outsiders can write one; `nextbuy.testing` checks it."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Float32, Histories, Int32, Int64
from nextbuy.errors import ConfigError, MemoryIsShortError, TimeIsUpError
from nextbuy.memory import MIB, resident_bytes
from nextbuy.progress import Progress, SilentProgress
from nextbuy.splitting.cases import Cases
from nextbuy.splitting.repeat import Blocked

if TYPE_CHECKING:  # it needs torch, which counting does not
    from nextbuy.models.first_weights import Start
    from nextbuy.training.team import Team

LARGE_CATALOG: Final = 20_000
"""From so many items on, models that can are not asked for whole rows of the catalog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """What a run needs, apart from what a model is.

    Attributes:
        seed: The run's only source of randomness.
        epochs: Passes over the training histories, for models that train in epochs; None is the
            model's own default.
        run_folder: Where checkpoints and the training log go; None keeps no checkpoints.
        deadline: Moment of `time.monotonic()` by which `fit` returns with what it has, or raises
            `TimeIsUpError` if it has nothing; None is never.
        memory_limit: Bytes that the process may hold while fitting; None is any number.
        progress: Told about steps and epochs; draws the progress bar on the command line.
        workers: Fit networks elsewhere; None fits them here. See `nextbuy.models.sharing`.
        team: Who fits a network together, each with the same arguments; None is this process alone.
            Only rank 0 has a `run_folder`.
        start: A fitted network of the same config that a network goes on from, gently and for a
            short while, instead of learning anew; None learns anew. Models that count ignore it.
    """

    seed: int = 0
    epochs: int | None = None
    run_folder: Path | None = None
    deadline: float | None = None
    memory_limit: int | None = None
    progress: Progress = field(default_factory=SilentProgress)
    workers: "Workers | None" = None
    team: "Team | None" = None
    start: "Start | None" = None

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"Training takes at least 1 epoch, {self.epochs} were asked for.")

    def seconds_left(self) -> float:
        """Until the deadline; infinity without one."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def check_time(self, needed: float = 0.0) -> None:
        """Go on only if there are `needed` seconds; models call it between pieces of work.

        Raises:
            TimeIsUpError: If there are not.
        """
        left = self.seconds_left()
        if left < needed:
            about = f"about {needed:.0f} s are needed, " if needed else ""
            raise TimeIsUpError(f"The time is up: {about}{max(0.0, left):.0f} s are left.")

    def check_memory(self, needed: float) -> None:
        """Go on only if `needed` more bytes fit; models call it before they take much.

        Raises:
            MemoryIsShortError: If they do not.
        """
        if self.memory_limit is None:
            return
        held = resident_bytes()
        if held + needed > self.memory_limit:
            raise MemoryIsShortError(
                f"The memory is too short: about {needed / MIB:,.0f} MiB are needed, "
                f"{max(0.0, (self.memory_limit - held) / MIB):,.0f} MiB are left of "
                f"{self.memory_limit / MIB:,.0f}."
            )


class Workers(Protocol):
    """Other processes, perhaps on other machines, that fit networks."""

    def check(self, model: "Model") -> None:
        """Refuse a network that they cannot fit, before anything is read.

        Raises:
            ConfigError: Saying why.
        """
        ...

    def fit(
        self,
        model: "Model",
        train: Histories,
        validation: Cases,
        catalog: Catalog,
        options: FitOptions,
    ) -> "Model":
        """Fit it; arguments as for `Model.fit`.

        Returns:
            The fitted model; what was given is as it was.
        """
        ...


class FittedModel(Protocol):
    """What can be asked: a model that is fitted, or a blend of them."""

    name: ClassVar[str]

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """See `Model.log_probabilities`."""
        ...


@runtime_checkable
class FindsTopK(FittedModel, Protocol):
    """What else can be asked of some: the best items, without all others beside them."""

    def top_k(
        self, histories: Histories, as_of: Int64 | None, k: int, *, blocked: Blocked
    ) -> tuple[Int32, Float32]:
        """The k most probable items of each user, given that nothing blocked is bought.

        The same as from whole rows of `log_probabilities`, but for the rounding of sums, which may
        change places among items that are as good as equal.

        Args:
            histories: Whom it is about.
            as_of: As for `log_probabilities`.
            k: At least 1; at most V are returned.
            blocked: What may not be offered; see `RepeatPolicy.blocks`.

        Returns:
            Item indices, best first, and their log-probabilities, [users, min(k, V)] each. Places
            that stay empty are `PADDING` and `-inf`.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Ranked:
    """The best items of some users, and where their targets stand.

    Attributes:
        items: Item indices, best first, [U, k]; `PADDING` where there is none.
        log_probabilities: Of the items, [U, k]; -inf where there is none.
        target_log_probabilities: Of each target, -inf if it is blocked; [T].
        target_ranks: From 1, in the whole catalog, ties by item index; of a blocked target it means
            nothing; [T].
    """

    items: Int32
    log_probabilities: Float32
    target_log_probabilities: Float32
    target_ranks: Int64


@runtime_checkable
class RanksTargets(FindsTopK, Protocol):
    """What else can be asked of some: where an item stands among all, without a row of all."""

    def rank(
        self,
        histories: Histories,
        as_of: Int64 | None,
        k: int,
        *,
        blocked: Blocked,
        owners: Int64,
        targets: Int32,
    ) -> Ranked:
        """The best items as `top_k` has them, and the ranks of some others.

        The same as from whole rows of `log_probabilities`, but for the rounding of sums, which may
        change places among items that are as good as equal.

        Args:
            histories: Whom it is about.
            as_of: As for `log_probabilities`.
            k: As for `top_k`.
            blocked: As for `top_k`.
            owners: User of each target, 0..U-1, ascending; length T.
            targets: Item indices, 1..V; length T.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Searched:
    """What was found for some users among all items but their own; rows of one user each.

    Attributes:
        states: What the model made of the history, [U, R].
        items: The best, 0..V-1, [U, k].
        logits: Their scores, [U, k].
        log_totals: Log of the sum of the exponentials of the scores of all, [U].
    """

    states: Float32
    items: Int64
    logits: Float32
    log_totals: NDArray[np.float64]

    def take(self, rows: Int64) -> "Searched":
        """Those of some users, copied."""
        return Searched(
            states=self.states[rows],
            items=self.items[rows],
            logits=self.logits[rows],
            log_totals=self.log_totals[rows],
        )


class Searching(Protocol):
    """Asks a model in two steps; see `SearchesApart`."""

    def wait_classes(self, histories: Histories, as_of: Int64 | None) -> Int64:
        """A number a user: what is searched holds for the same history as long as it is the same,
        whatever the moment."""
        ...

    def search(self, histories: Histories, as_of: Int64 | None, k: int) -> Searched:
        """The first step, which is nearly all of the work."""
        ...

    def top_k(
        self,
        searched: Searched,
        histories: Histories,
        as_of: Int64 | None,
        k: int,
        *,
        blocked: Blocked,
    ) -> tuple[Int32, Float32]:
        """The second step: `FindsTopK.top_k`, if at least k were searched and nothing but own items
        is blocked."""
        ...


@runtime_checkable
class SearchesApart(FindsTopK, Protocol):
    """What can be asked of networks: to search first, and to look at own items afterwards, so that
    who asks often about one history need not search each time."""

    def searcher(self) -> Searching:
        """For the model as it is fitted now."""
        ...


class Model(FittedModel, Protocol):
    """Fitted on histories, gives log P(next item) over the whole catalog for any history.

    Works for a user never seen and for an empty history. Item indices that it did not learn still
    get a probability above 0, so that a loss is finite. A row depends on its own history alone, and
    not on the order of the purchases inside a basket. Fitting again forgets what was fitted before.
    """

    name: ClassVar[str]

    def fit(
        self, train: Histories, validation: Cases, catalog: Catalog, options: FitOptions
    ) -> Self:
        """Learn from `train`; make choices, if any, on `validation`. Returns itself."""
        ...

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """Log P(next item), shape [users, V + 1].

        Rows sum to 1 in probability, padding (column 0) is `-inf`. `as_of` is UTC microseconds, one
        a user, or None when time is only an order. The caller cuts many users into chunks.

        Raises:
            NotFittedError: If `fit` or `load` has not been called.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write `config.json` and `weights.safetensors` into an existing, empty folder."""
        ...

    @classmethod
    def load(cls, folder: Path, catalog: Catalog) -> Self:
        """Read what `save` wrote; the folder's hashes were verified by the caller.

        Raises:
            BundleError: If shapes do not fit the catalog, a weight is not finite or a key unknown.
        """
        ...


def top_k(log_probabilities: Float32, k: int) -> tuple[Int32, Float32]:
    """The k most probable items of each row, best first, ties by item index.

    Args:
        log_probabilities: Shape [users, V + 1]; column 0 is padding and never returned.
        k: At least 1; at most V are returned.

    Returns:
        Item indices and their log-probabilities, each of shape [users, min(k, V)].
    """
    scores = log_probabilities[:, 1:]
    k = min(k, scores.shape[1])
    threshold = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
    above = scores > threshold
    # Fill what the threshold leaves open with the lowest indices among the ties.
    tied = scores == threshold
    room = k - above.sum(axis=1, keepdims=True)
    chosen = above | (tied & (np.cumsum(tied, axis=1) <= room))
    columns_chosen: NDArray[np.int64] = np.nonzero(chosen)[1].reshape(len(scores), k)
    values = np.take_along_axis(scores, columns_chosen, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    items = (np.take_along_axis(columns_chosen, order, axis=1) + 1).astype(np.int32)
    return items, np.take_along_axis(values, order, axis=1)
