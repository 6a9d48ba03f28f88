"""The one training loop. It reads from top to bottom: resume, epochs, steps, validation, end."""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, SupportsFloat

from nextbuy.data.histories import Histories
from nextbuy.errors import NonFiniteLossError, ResumeError, TrainingError
from nextbuy.nn.network import Weights
from nextbuy.nn.own_items import PurchaseFacts
from nextbuy.progress import Progress, SilentProgress
from nextbuy.storage import failpoint
from nextbuy.training.ahead import ahead
from nextbuy.training.batches import (
    Batch,
    Windows,
    cut_into_windows,
    epoch_batches,
    num_batches,
)
from nextbuy.training.checkpoint import Checkpoints, TrainingState, as_bytes, from_bytes
from nextbuy.training.clock import Clock
from nextbuy.training.engine import Engine, TrainingConfig
from nextbuy.training.interruption import Interrupted, StopRequest
from nextbuy.training.log import TrainingLog
from nextbuy.training.schedule import EarlyStopping, warm_up_then_cosine
from nextbuy.training.team import Alone, Team

_IN_FLIGHT: Final = 4
"""Steps that a device may be behind: while it computes them the host makes the next ones ready."""

_REST: Final = 9.0
"""Training goes on for so many times as long as a checkpoint takes: large tables take long."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        weights: Of the epoch that was best on validation.
        best_epoch: That epoch, from 0.
        best_score: What chose it, lower is better: its validation loss in nats, or what `judge`
            said of it.
        num_epochs: Epochs that were trained.
        num_steps: Optimizer steps that were taken.
    """

    weights: Weights
    best_epoch: int
    best_score: float
    num_epochs: int
    num_steps: int


def train(
    engine: Engine,
    histories: Histories,
    validate: Callable[[Weights], float] | None,
    config: TrainingConfig,
    *,
    seed: int,
    run_folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    deadline: float | None = None,
    facts: PurchaseFacts | None = None,
    team: Team | None = None,
    judge: Callable[[Weights], float] | None = None,
) -> TrainingResult:
    """Train until the epochs are over, validation stops getting better, or the time is up.

    A run that finds its own checkpoints in `run_folder` goes on from the newest and ends with the
    same bytes as one that was never stopped.

    Args:
        engine: Takes the steps; its weights are the start.
        histories: What to learn from.
        validate: Loss of some weights, in nats; lower is better. Called after each epoch. Without
            it the mean training loss of the epoch stands in.
        config: How to train.
        seed: Names all random streams.
        run_folder: For checkpoints and the log; None keeps neither.
        identity: What a checkpoint must agree with to be resumed.
        progress: Told about every step.
        deadline: Moment of `time.monotonic()` to end by. The learning rate then falls with the
            time that is gone, and the bytes depend on the speed of the machine.
        facts: About the purchases, for networks with a repeat head: batches then have own items.
        team: Who trains together, each calling this with the same arguments; only rank 0 validates
            and has a `run_folder`. The engine has the same team. There can be no deadline then.
        judge: Chooses the best epoch in place of the validation loss; lower is better.

    Raises:
        PeerLostError: If one of the team is lost.
        TimeIsUpError: If there is no time for a step and a validation.
        NonFiniteLossError: Before a step with a NaN or infinite loss would have been taken.
        Interrupted: After SIGINT or SIGTERM, with the state saved.
        TrainingError: If there is nothing to train on, or memory runs out.
    """
    windows = cut_into_windows(histories, config.longest_window)
    checkpoints = None if run_folder is None else Checkpoints(run_folder, identity or {})
    team = team or Alone()
    _refuse_other_peers(team, identity or {})
    state = _resume(engine, checkpoints, config, team)
    log = TrainingLog(None if run_folder is None else run_folder / "log.jsonl", state.log_offset)
    run = _Run(
        engine, histories, windows, config, seed, checkpoints, log, progress or SilentProgress(),
        Clock.until(deadline, lambda: _asked_once(engine.weights(), validate, judge)),
        facts, team, judge,
    )  # fmt: skip
    state = run.until_done(state, validate)
    return TrainingResult(
        weights=state.best_weights, best_epoch=state.stopping.best_epoch,
        best_score=state.stopping.best_score, num_epochs=state.epoch, num_steps=state.step,
    )  # fmt: skip


def no_training(weights: Weights) -> TrainingResult:
    """What a run comes to that has nothing to learn."""
    return TrainingResult(
        weights=weights, best_epoch=0, best_score=math.nan, num_epochs=0, num_steps=0
    )


def _asked_once(weights: Weights, *questions: Callable[[Weights], float] | None) -> None:
    """All that is asked of the weights after an epoch."""
    for question in questions:
        if question is not None:
            question(weights)


def _refuse_other_peers(team: Team, identity: Mapping[str, Any]) -> None:
    """Refuse to train with others that were started differently.

    Raises:
        ResumeError: Naming what differs from rank 0.
    """
    if team.size == 1:
        return
    mine = json.loads(json.dumps(identity))
    told = json.loads(team.shared(json.dumps(mine).encode()))
    names = sorted(n for n in {*told, *mine} if told.get(n) != mine.get(n))
    if names:
        said = "; ".join(f"{n}: {mine.get(n)!r}, rank 0 has {told.get(n)!r}" for n in names)
        raise ResumeError(f"Rank {team.rank} was started differently from rank 0: {said}.")


def _resume(
    engine: Engine, checkpoints: Checkpoints | None, config: TrainingConfig, team: Team
) -> TrainingState:
    """The newest state, restored into the engine; the start if there is none. A team goes on from
    what rank 0 found."""
    state = None if checkpoints is None else checkpoints.newest(config.patience)
    state = state or TrainingState(stopping=EarlyStopping(patience=config.patience))
    if team.size > 1:
        state = from_bytes(team.shared(as_bytes(state)), config.patience)
    if state.step > 0:
        engine.restore(state.weights, state.optimizer)
    return state


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A step that was taken, whose loss may not be known yet."""

    epoch: int
    batch: int
    step: int
    rate: float
    num_targets: int
    loss: SupportsFloat


@dataclass(slots=True, eq=False)
class _Run:
    """What stays the same during a run."""

    engine: Engine
    histories: Histories
    windows: Windows
    config: TrainingConfig
    seed: int
    checkpoints: Checkpoints | None
    log: TrainingLog
    progress: Progress
    clock: Clock
    facts: PurchaseFacts | None
    team: Team
    judge: Callable[[Weights], float] | None
    saved_at: float = 0.0
    pause: float = 0.0
    batches_per_epoch: int = 0

    def __post_init__(self) -> None:
        self.batches_per_epoch = num_batches(self.windows, self.config.tokens)
        self.pause = self.config.checkpoint_seconds
        self.saved_at = time.monotonic()

    def until_done(
        self, state: TrainingState, validate: Callable[[Weights], float] | None
    ) -> TrainingState:
        """Train all epochs that are still to be trained."""
        num_epochs = self.config.epochs
        self.progress.start("train", num_epochs * self.batches_per_epoch, done=state.step)
        try:
            with self.team.stopping() as stop:
                while state.epoch < num_epochs and not state.finished:
                    state = self.train_epoch(state, stop)
                    state = self.end_epoch(state, validate)
        finally:
            self.progress.finish()
            self.log.close()
        return state

    def train_epoch(self, state: TrainingState, stop: StopRequest) -> TrainingState:
        """Take the steps of an epoch that are still to be taken."""
        num_steps = self.config.epochs * self.batches_per_epoch
        taken: deque[_Step] = deque()
        with closing(ahead(self._batches(state))) as batches:
            for batch in batches:
                place = max(state.step, int(self.clock.gone() * num_steps))
                rate = warm_up_then_cosine(place, num_steps, peak=self.config.peak_rate)
                taken.append(self._step(batch, rate, state))
                state = replace(state, batch=state.batch + 1, step=state.step + 1)
                state = self._account(state, taken, in_flight=_IN_FLIGHT)
                failpoint("after_step")
                if stop.signal_number is not None:
                    self.save(self._account(state, taken))
                    raise Interrupted(stop.signal_number, state.step)
                if self.clock.is_over():
                    break
                if time.monotonic() - self.saved_at >= self.pause:
                    state = self._account(state, taken)
                    self.save(state)
        return self._account(state, taken)

    def _batches(self, state: TrainingState) -> Iterator[Batch]:
        """What is left of the epoch, prepared by the engine."""
        batches = epoch_batches(
            self.histories, self.windows,
            tokens=self.config.tokens, seed=self.seed, epoch=state.epoch, start=state.batch,
            shuffle_histories=self.config.shuffle == "histories", facts=self.facts,
            period_days=self.config.period_days,
        )  # fmt: skip
        for step, batch in enumerate(batches, state.step):
            yield self.engine.prepare(batch, step)

    def _account(
        self, state: TrainingState, taken: deque[_Step], *, in_flight: int = 0
    ) -> TrainingState:
        """Take in the losses of all steps but the newest `in_flight` that are not known yet.

        Raises:
            NonFiniteLossError: At the first that is not finite.
        """
        while taken and (len(taken) > in_flight or isinstance(taken[0].loss, float)):
            one = taken.popleft()
            loss = float(one.loss)
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"The loss is {loss} in step {one.step} (epoch {one.epoch}, batch "
                    f"{one.batch}); the step was not taken. Lower --learning-rate from "
                    f"{self.config.peak_rate}."
                )
            state = replace(
                state,
                loss_sum=state.loss_sum + loss * one.num_targets,
                num_targets=state.num_targets + one.num_targets,
            )
            self.progress.advance(1, {"loss": loss, "targets": one.num_targets})
            if (one.step + 1) % 20 == 0:
                self.log.write(
                    step=one.step + 1, epoch=one.epoch, loss=loss, learning_rate=one.rate
                )
        return state

    def _step(self, batch: Batch, rate: float, state: TrainingState) -> _Step:
        try:
            loss = self.engine.step(batch, learning_rate=rate, step=state.step)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "memory" in str(error):
                raise TrainingError(
                    f"Out of memory in step {state.step} (a batch of {batch.inputs.shape[0]} rows "
                    f"of {batch.inputs.shape[1]}). The last checkpoint is good; "
                    f"use fewer --tokens than {self.config.tokens}."
                ) from error
            raise
        return _Step(state.epoch, state.batch, state.step, rate, batch.num_targets, loss)

    def end_epoch(
        self, state: TrainingState, validate: Callable[[Weights], float] | None
    ) -> TrainingState:
        """Account for a whole epoch: validation, log, best weights, early stopping, checkpoint."""
        train_loss = state.loss_sum / max(1, state.num_targets)
        validation_loss = self.team.agreed(
            lambda: train_loss if validate is None else validate(self.engine.weights())
        )
        if math.isnan(validation_loss):
            raise NonFiniteLossError(
                f"The validation loss is NaN after epoch {state.epoch}; the last checkpoint is "
                "good. Lower --learning-rate."
            )
        judge, score = self.judge, validation_loss
        if judge is not None:
            score = self.team.agreed(lambda: judge(self.engine.weights()))
        stopping = state.stopping.after(state.epoch, score)
        self.log.write(
            epoch=state.epoch,
            step=state.step,
            train_loss=train_loss,
            validation_loss=validation_loss,
        )
        self.progress.advance(
            0,
            {
                "validation_loss": validation_loss,
                "train_loss": train_loss,
                "epoch": float(state.epoch),
            },
        )
        state = replace(
            state,
            epoch=state.epoch + 1,
            batch=0,
            loss_sum=0.0,
            num_targets=0,
            stopping=stopping,
            finished=stopping.should_stop
            or state.epoch + 1 == self.config.epochs
            or self.clock.is_over(),
            best_weights=self.engine.weights() if stopping.improved else state.best_weights,
        )
        failpoint("before_epoch_save")
        self.save(state)
        return state

    def save(self, state: TrainingState) -> None:
        """Publish a checkpoint, if the run keeps any."""
        if self.checkpoints is None:
            return
        started = time.monotonic()
        self.checkpoints.save(
            replace(
                state,
                weights=self.engine.weights(),
                optimizer=self.engine.optimizer_state(),
                log_offset=self.log.offset(),
            )
        )
        self.saved_at = time.monotonic()
        if self.pause > 0:
            taken = self.saved_at - started
            self.pause = max(self.config.checkpoint_seconds, _REST * taken)
