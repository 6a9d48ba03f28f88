"""Train the network that foretells the next purchase event.

Every event asks for the wait after it: the log density of one that was seen to end, the log
survival of one that had not ended when observation did. A tenth of the users, evenly spread over
short and long histories, teach nothing and say which epoch is the best.

Legend: U users, E events, B sequences, L positions, F features, M questions.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from nextbuy.data.histories import Float32, Int64, jagged_rows
from nextbuy.errors import TimeIsUpError
from nextbuy.nn.event_encoder import EventNetwork, EventShape, initial_weights
from nextbuy.nn.log_normal_mixture import LogNormalMixture
from nextbuy.nn.network import Weights
from nextbuy.seeding import generator, stream_seed
from nextbuy.timing.event_features import MEAN_GAP
from nextbuy.timing.events import Float64
from nextbuy.training.schedule import EarlyStopping, warm_up_then_cosine

_BATCHES: Final = 16
_FEWEST_EVENTS, _MOST_EVENTS = 128, 2_048
"""Of a batch: a sixteenth of what there is to learn from, within these bounds."""

_HELD_OUT: Final = 10
_FLOOR_RATE: Final = 0.02
_CLIP: Final = 1.0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Waited:
    """Events of users, and the wait after each.

    Attributes:
        features: [E, F].
        offsets: Length U + 1.
        y: Log of the wait after each event in standard size, or of the part of it that was seen.
        observed: Whether it was seen to end.
    """

    features: Float32
    offsets: Int64
    y: Float64
    observed: np.typing.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: At most so many.
        patience: Epochs without a better one before it stops.
        peak_rate: Highest learning rate.
        seed: Of all that is drawn.
        deadline: Moment of `time.monotonic()` at which to stop with what there is.
    """

    epochs: int
    patience: int
    peak_rate: float
    seed: int
    deadline: float = math.inf


def trained(shape: EventShape, waited: Waited, recipe: Recipe) -> Weights:
    """Weights of the epoch of highest likelihood on the users who were held out.

    Args:
        shape: Sizes of the network.
        waited: In an order that depends on the histories alone; a user's newest events.
        recipe: How.

    Raises:
        TimeIsUpError: If the deadline has passed before the first epoch ended.
    """
    users = np.arange(len(waited))
    held_out = users % _HELD_OUT == _HELD_OUT // 2
    if not held_out.any():
        held_out[:] = True
    learnt = ~held_out if not held_out.all() else held_out
    network = EventNetwork(shape)
    network.load_weights(initial_weights(shape, seed=recipe.seed, guess=MEAN_GAP))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01, fused=True)
    lessons, exam = batches(waited, users[learnt]), batches(waited, users[held_out])
    best, stopping = network.weights(), EarlyStopping(patience=recipe.patience)
    for epoch in range(recipe.epochs):
        if not _epoch(network, optimizer, lessons, recipe, epoch):
            break
        stopping = stopping.after(epoch, mean_loss(network, exam))
        if stopping.improved:
            best = network.weights()
        if stopping.should_stop:
            break
    if stopping.best_epoch < 0:
        raise TimeIsUpError("The time limit left no time to train the neural timing model.")
    return best


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WaitBatch:
    """Sequences side by side.

    Attributes:
        x: Features, [B, L, F]; 0 behind the end of a sequence.
        asked: Places of the events in the flattened grid, [M].
        y: Their waits, [M].
        observed: Whether they ended, [M].
    """

    x: Tensor
    asked: Tensor
    y: Tensor
    observed: Tensor


def batches(waited: Waited, users: Int64) -> list[WaitBatch]:
    """All events of some users, sequences of near length together."""
    lengths_U = np.diff(waited.offsets)
    most_events = int(np.clip(lengths_U.sum() // _BATCHES, _FEWEST_EVENTS, _MOST_EVENTS))
    return [_batch(waited, group) for group in groups_of(lengths_U, users, most_events)]


def groups_of(lengths_U: Int64, users: Int64, most_events: int = _MOST_EVENTS) -> Iterator[Int64]:
    """Users by length, in groups of so many events with their padding."""
    ordered = users[np.argsort(lengths_U[users], kind="stable")]
    start = 0
    while start < len(ordered):
        stop = start + 1
        while stop < len(ordered) and (stop + 1 - start) * lengths_U[ordered[stop]] <= most_events:
            stop += 1
        yield ordered[start:stop]
        start = stop


def _batch(waited: Waited, users: Int64) -> WaitBatch:
    x_BLF, rows_M, asked_M = padded(waited.features, waited.offsets, users)
    return WaitBatch(
        x=torch.from_numpy(x_BLF),
        asked=torch.from_numpy(asked_M),
        y=torch.from_numpy(waited.y[rows_M].astype(np.float32)),
        observed=torch.from_numpy(waited.observed[rows_M]),
    )


def padded(features: Float32, offsets: Int64, users: Int64) -> tuple[Float32, Int64, Int64]:
    """Features of some users side by side, [B, L, F]; rows of their events, and places of those in
    the flattened grid."""
    lengths_B = np.diff(offsets)[users]
    longest = int(lengths_B.max())
    rows_M = jagged_rows(offsets[users], lengths_B)
    asked_M = jagged_rows(np.arange(len(users)) * longest, lengths_B)
    x_BLF = np.zeros((len(users) * longest, features.shape[1]), dtype=np.float32)
    x_BLF[asked_M] = features[rows_M]
    return x_BLF.reshape(len(users), longest, -1), rows_M, asked_M


def _epoch(
    network: EventNetwork,
    optimizer: torch.optim.Optimizer,
    lessons: Sequence[WaitBatch],
    recipe: Recipe,
    epoch: int,
) -> bool:
    """One pass; False if the time was up before its end."""
    steps = recipe.epochs * len(lessons)
    dropout = torch.Generator()
    order = generator(recipe.seed, "order", epoch).permutation(len(lessons))
    for number, place in enumerate(order):
        if math.isfinite(recipe.deadline) and time.monotonic() >= recipe.deadline:
            return False
        step = epoch * len(lessons) + number
        rate = warm_up_then_cosine(step, steps, peak=recipe.peak_rate, floor=_FLOOR_RATE)
        for group in optimizer.param_groups:
            group["lr"] = rate
        dropout.manual_seed(stream_seed(recipe.seed, "dropout", step))
        loss = _loss(network, lessons[place], dropout) / len(lessons[place].y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimizer.step()
    return True


@torch.no_grad()
def mean_loss(network: EventNetwork, exam: Sequence[WaitBatch]) -> float:
    """Negative log-likelihood an event, of log waits in standard size."""
    total = sum(float(_loss(network, batch, None)) for batch in exam)
    return total / sum(len(batch.y) for batch in exam)


def _loss(network: EventNetwork, batch: WaitBatch, dropout: torch.Generator | None) -> Tensor:
    mixture: LogNormalMixture = network(batch.x, batch.asked, dropout)
    seen, open_ = batch.observed.nonzero()[:, 0], (~batch.observed).nonzero()[:, 0]
    density = mixture.take(seen).log_density(batch.y[seen]).sum()
    survival = mixture.take(open_).log_survival(batch.y[open_]).sum()
    return -density - survival
