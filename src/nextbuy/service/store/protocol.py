"""What the service asks of a store; SQLite and PostgreSQL both answer, and pass the same tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nextbuy.errors import ConflictError
from nextbuy.service.purchases import LivePurchase


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Purchases that are stored together or not at all, under one idempotency key.

    Attributes:
        key: The client's, or a random one of the service's where the client told none.
        digest: SHA-256 of what the client sent under the key.
        purchases: One or more.
        received: UTC microseconds by the clock of the service; order is by sequence, never by this.
    """

    key: str
    digest: bytes
    purchases: tuple[LivePurchase, ...]
    received: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Where a submission lies, the same however often it is sent again.

    Attributes:
        first_sequence: Number of its first purchase; the others follow without a gap.
        count: How many purchases it has.
        is_repeat: Whether it had been stored before.
    """

    first_sequence: int
    count: int
    is_repeat: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPurchase:
    """A purchase and its place in the order of the store (1, 2, ...; numbers may be missing)."""

    sequence: int
    received: int
    purchase: LivePurchase


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedOffer:
    """One answer that was given, kept to be compared with what is bought afterwards.

    Attributes:
        served: UTC microseconds.
        version: Of the bundle that answered.
        user_id: Who was asked about.
        items: `(item_id, platform)` of what was offered, best first.
        probabilities: Of these, in the same order.
        after_sequence: Purchases up to this one were known to the answer.
    """

    served: int
    version: str
    user_id: str
    items: tuple[tuple[str, str | None], ...]
    probabilities: tuple[float, ...]
    after_sequence: int


class Store(Protocol):
    """Live purchases, kept so that what was acknowledged is never lost.

    Methods block and may be called from any thread; `write` from one thread at a time. Each raises
    `StoreUnavailableError` where another try may work (busy, full, away) and `StoreError` where it
    will not (damaged, read-only, another format).
    """

    def write(self, submissions: Sequence[Submission]) -> list[Receipt | ConflictError]:
        """Store submissions in one transaction, durable when this returns.

        A key that is there already with the same digest gives the old receipt, `is_repeat`; with
        another digest a `ConflictError` in its place. Either does not disturb the others. Purchases
        of a user who was forgotten before are new: forgetting is about the past.
        """
        ...

    def purchases_of(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[StoredPurchase]]:
        """By user, in the order of sequence; users without purchases are missing."""
        ...

    def after(self, sequence: int, most: int) -> Sequence[StoredPurchase]:
        """The first `most` purchases whose sequence is above `sequence`, in order."""
        ...

    def last_sequence(self) -> int:
        """The highest sequence given so far, 0 at first; forgetting does not lower it."""
        ...

    def identity(self) -> str:
        """A name that no other store has, but for copies of this one: a bundle that learnt from
        `sequence` purchases of a store says which store that was."""
        ...

    def forget(self, user_id: str) -> int:
        """Delete all that is known of a user (purchases, served offers), and remember the SHA-256
        of the id, so that histories of bundles are not used either; gives the number of purchases
        that were deleted. Durable when this returns."""
        ...

    def forgotten(self) -> frozenset[bytes]:
        """SHA-256 of the UTF-8 ids that were forgotten."""
        ...

    def write_served(self, offers: Sequence[ServedOffer]) -> None:
        """Keep answers; these may be lost in a crash."""
        ...

    def served(self, since: int) -> Iterator[ServedOffer]:
        """Answers served at or after a moment, UTC microseconds, in that order."""
        ...

    def prune_served(self, before: int) -> int:
        """Delete the answers served before a moment, UTC microseconds, a few at a time so that
        purchases need not wait; gives how many there were."""
        ...

    def check(self) -> None:
        """Return if reads and writes work now, raise otherwise; for readiness."""
        ...

    def check_whole(self) -> None:
        """Read everything there is, which may take minutes; raise `StoreError` at the first
        damage."""
        ...

    def back_up(self, target: Path) -> None:
        """Write a consistent copy to a new file while the service goes on; refuse to overwrite."""
        ...

    def close(self) -> None:
        """Let go of files and connections; may be called twice."""
        ...
