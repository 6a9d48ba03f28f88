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
    """Remembers the best validation loss; stops after `patience` epochs without a better one."""

    patience: int
    best_loss: float = math.inf
    best_epoch: int = -1
    epoch: int = -1

    def after(self, epoch: int, loss: float) -> "EarlyStopping":
        """The state after an epoch with this validation loss."""
        if loss < self.best_loss or self.best_epoch < 0:
            return EarlyStopping(
                patience=self.patience, best_loss=loss, best_epoch=epoch, epoch=epoch
            )
        return EarlyStopping(
            patience=self.patience,
            best_loss=self.best_loss,
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
