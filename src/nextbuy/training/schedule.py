"""Learning rates over a run, and when to stop early."""

import math
from dataclasses import dataclass


def warm_up_then_cosine(
    step: int, num_steps: int, *, peak: float, warm_up: float = 0.05, floor: float = 0.02
) -> float:
    """Learning rate of a step: linear from 0 to `peak`, then half a cosine to `floor * peak`.

    Args:
        step: 0 for the first step.
        num_steps: Steps of the whole run.
        peak: Highest rate.
        warm_up: Share of the steps that rise.
        floor: Share of the peak that is left at the end.
    """
    rising = max(1.0, warm_up * num_steps)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    done = min(1.0, (step - rising) / max(1.0, num_steps - rising))
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping:
    """Remembers the best score of validation; stops after `patience` epochs without a better one.

    Lower is better: the loss, or a ranking metric with a minus.
    """

    patience: int
    best_score: float = math.inf
    best_epoch: int = -1
    epoch: int = -1

    def after(self, epoch: int, score: float) -> "EarlyStopping":
        """The state after an epoch with this score."""
        if score < self.best_score or self.best_epoch < 0:
            return EarlyStopping(
                patience=self.patience, best_score=score, best_epoch=epoch, epoch=epoch
            )
        return EarlyStopping(
            patience=self.patience,
            best_score=self.best_score,
            best_epoch=self.best_epoch,
            epoch=epoch,
        )

    @property
    def improved(self) -> bool:
        """Whether the newest epoch is the best so far."""
        return self.epoch == self.best_epoch

    @property
    def should_stop(self) -> bool:
        """Whether patience has run out."""
        return self.epoch - self.best_epoch >= self.patience
