"""Who takes the steps of a run together: this process alone, or several of the same mind.

All of a team go through the same loop with the same batches, of which each computes a part. What
could differ between them is asked of the first (rank 0) alone, which also keeps the files.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from nextbuy.training.interruption import StopRequest, stop_on_signals


class Team(Protocol):
    """What the loop and the engine ask of it; everybody asks the same, in the same order."""

    @property
    def rank(self) -> int:
        """Of this process, 0 is the first."""
        ...

    @property
    def size(self) -> int:
        """Processes in all."""
        ...

    def stopping(self) -> AbstractContextManager[StopRequest]:
        """Tells, after each step, whether all are to stop."""
        ...

    def shared(self, content: bytes) -> bytes:
        """What rank 0 gave; what the others give is forgotten."""
        ...

    def agreed(self, compute: Callable[[], float]) -> float:
        """What rank 0 computed; the others wait for as long as it takes."""
        ...

    def add_up(self, parameters: Sequence[nn.Parameter], loss: Tensor, share: float) -> Tensor:
        """Sum gradients over all, in place, each weighed by its share.

        Args:
            parameters: With their gradients, or None where there is none.
            loss: Of this process's part; a scalar.
            share: Of the targets of the batch that are in that part; all shares sum to 1.

        Returns:
            The loss of the whole batch, the same for all.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """This process alone.

    Attributes:
        stop: Is set when it is time to stop; None listens to signals.
    """

    stop: StopRequest | None = None
    rank: int = 0
    size: int = 1

    def stopping(self) -> AbstractContextManager[StopRequest]:
        """See `Team.stopping`."""
        return stop_on_signals() if self.stop is None else nullcontext(self.stop)

    def shared(self, content: bytes) -> bytes:
        """The same; see `Team.shared`."""
        return content

    def agreed(self, compute: Callable[[], float]) -> float:
        """Computed here; see `Team.agreed`."""
        return compute()

    def add_up(
        self,
        parameters: Sequence[nn.Parameter],  # noqa: ARG002
        loss: Tensor,
        share: float,  # noqa: ARG002
    ) -> Tensor:
        """There is nothing to add; see `Team.add_up`."""
        return loss.detach()
