"""What routes work with: built elsewhere, handed in."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from nextbuy.errors import NextbuyError, StoreError, StoreUnavailableError
from nextbuy.service.guard.metrics import Metrics
from nextbuy.service.live.protocol import Answer, LiveModel
from nextbuy.service.store.protocol import Receipt, Store, Submission


class Commits(Protocol):
    """Groups submissions into transactions, in a thread of its own."""

    def submit(self, submission: Submission) -> "Future[Receipt]":
        """A receipt once the purchases are durable; the future has the error otherwise.

        Raises:
            OverloadedError: If too much waits already.
            StoreUnavailableError: If it is closed, or the store is known to be away.
        """
        ...

    def close(self) -> None:
        """Write what waits, then stop."""
        ...


def _ignore(_: object) -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """What the service is made of.

    Attributes:
        store: Live purchases.
        committer: The only writer of purchases to it.
        live: The bundle and what came since.
        now: UTC microseconds.
        metrics: What is counted.
        on_answered: Told of the answers for users by id that are about to be sent, from the event
            loop; it must neither block nor raise.
        on_forget: Told of a user before the store forgets them; may block.
        on_close: Called at the end, once nothing is written any more and before the store is
            closed.
    """

    store: Store
    committer: Commits
    live: LiveModel
    now: Callable[[], int]
    metrics: Metrics = field(default_factory=Metrics)
    on_answered: Callable[[Sequence[Answer]], None] = _ignore
    on_forget: Callable[[str], None] = _ignore
    on_close: Sequence[Callable[[], None]] = ()

    def failed(self, error: NextbuyError) -> None:
        """Count what a route could not do for the store."""
        if isinstance(error, StoreError):
            may_come_back = isinstance(error, StoreUnavailableError)
            self.metrics.store_failed("unavailable" if may_come_back else "unusable")

    def close(self) -> None:
        """Store what was accepted, then let go of everything."""
        self.committer.close()
        for close in self.on_close:
            close()
        self.store.close()
