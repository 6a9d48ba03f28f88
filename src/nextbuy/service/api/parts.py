"""What routes work with: built elsewhere, handed in."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from nextbuy.service.live.protocol import LiveModel
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """What the service is made of.

    Attributes:
        store: Live purchases.
        committer: The only writer of purchases to it.
        live: The bundle and what came since.
        now: UTC microseconds.
    """

    store: Store
    committer: Commits
    live: LiveModel
    now: Callable[[], int] = field()
