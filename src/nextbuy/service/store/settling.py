"""Which submissions of a group are new, and where each lies; the same for every store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nextbuy.errors import ConflictError
from nextbuy.service.store.protocol import Receipt, StoredPurchase, Submission


@dataclass(frozen=True, slots=True)
class Known:
    """A submission that is stored already."""

    digest: bytes
    first_sequence: int
    count: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of a group.

    Attributes:
        outcomes: One a submission, in order.
        new: Those to be stored, each with the sequence of its first purchase.
    """

    outcomes: list[Receipt | ConflictError]
    new: list[tuple[int, Submission]]


def settle(submissions: Sequence[Submission], known: Mapping[str, Known], last: int) -> Settled:
    """Give every submission its place.

    Args:
        submissions: In the order in which they came; a key may come twice.
        known: What is stored under the keys of the group.
        last: The highest sequence given so far.
    """
    seen, outcomes, new = dict(known), list[Receipt | ConflictError](), []
    for submission in submissions:
        before = seen.get(submission.key)
        if before is None:
            before = Known(submission.digest, last + 1, len(submission.purchases))
            seen[submission.key] = before
            new.append((before.first_sequence, submission))
            last += before.count
            outcomes.append(_receipt(before, is_repeat=False))
        elif before.digest == submission.digest:
            outcomes.append(_receipt(before, is_repeat=True))
        else:
            outcomes.append(_conflict(submission.key))
    return Settled(outcomes, new)


def stored_purchases(first: int, submission: Submission) -> list[StoredPurchase]:
    """The purchases of a submission at their places."""
    return [
        StoredPurchase(sequence=first + i, received=submission.received, purchase=purchase)
        for i, purchase in enumerate(submission.purchases)
    ]


def _receipt(known: Known, *, is_repeat: bool) -> Receipt:
    return Receipt(first_sequence=known.first_sequence, count=known.count, is_repeat=is_repeat)


def _conflict(key: str) -> ConflictError:
    return ConflictError(
        f"The idempotency key {key!r} was used for other content. Send what was sent under it, "
        "or choose a new key."
    )
