"""Many submissions in one transaction: one sync of the disk acknowledges all that wait for it."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from nextbuy.errors import ConflictError, NextbuyError, OverloadedError, StoreUnavailableError
from nextbuy.service.store.protocol import Receipt, Store, StoredPurchase, Submission
from nextbuy.service.store.settling import stored_purchases

logger = logging.getLogger(__name__)

MOST_PURCHASES: Final = 5_000
"""Of one transaction, so that a bulk upload does not keep single purchases waiting; a submission
that is larger is a transaction of its own."""
QUEUE: Final = 4_096

_Waiting = tuple[Submission, Future[Receipt]]


class Committer:
    """The only writer of purchases: a thread that stores what has come in the meantime, together.

    Args:
        store: Where to.
        most: Submissions of one transaction, at most.
        wait_seconds: How long the first of a group waits for more; at 0 those that came while the
            group before was written are the group.
        queue_size: Submissions that may wait; more are refused.
        on_stored: Told what is new after it is durable and before any future is done, from the
            thread of the committer, in the order of sequence. It must not raise.
    """

    def __init__(
        self,
        store: Store,
        most: int = 256,
        wait_seconds: float = 0.0,
        *,
        queue_size: int = QUEUE,
        on_stored: Callable[[list[StoredPurchase]], None] = lambda _: None,
    ) -> None:
        self._store, self._most, self._wait = store, most, wait_seconds
        self._on_stored = on_stored
        self._queue: queue.Queue[_Waiting | None] = queue.Queue()
        self._queue_size = queue_size
        self._lock = threading.Lock()
        self._is_closed = False
        self._held: _Waiting | None = None
        self._thread = threading.Thread(target=self._run, name="nextbuy-committer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Submissions in the queue, about."""
        return self._queue.qsize()

    def submit(self, submission: Submission) -> Future[Receipt]:
        """Queue a submission; the future is done when it is durable.

        The future raises `ConflictError` where the key was used for something else, and
        `StoreError` where nothing of the group was stored.

        Raises:
            OverloadedError: If the queue is full, or the committer is closed.
        """
        future: Future[Receipt] = Future()
        with self._lock:
            if self._is_closed:
                raise OverloadedError("The service is stopping. Send it again later.")
            if self._queue.qsize() >= self._queue_size:
                raise OverloadedError(
                    f"{self._queue_size} submissions wait to be stored. Send it again later."
                )
            self._queue.put((submission, future))
        return future

    def close(self) -> None:
        """Store what was accepted, then end the thread; may be called twice."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            self._store_group(group)

    def _next_group(self) -> list[_Waiting]:
        """What waits, at least one; nothing when all was stored and the committer is closed."""
        first = self._held or self._queue.get()
        self._held = None
        if first is None:
            return []
        group, purchases = [first], len(first[0].purchases)
        end = time.monotonic() + self._wait
        while len(group) < self._most:
            following = self._take(end)
            if following is None:
                break
            purchases += len(following[0].purchases)
            if purchases > MOST_PURCHASES:
                self._held = following
                break
            group.append(following)
        return group

    def _take(self, end: float) -> _Waiting | None:
        """The next that waits, if it comes before a moment."""
        left = end - time.monotonic()
        try:
            found = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        if found is None:
            self._queue.put(None)  # closed: to be met again once this group is stored
        return found

    def _store_group(self, group: Sequence[_Waiting]) -> None:
        live = [(one, future) for one, future in group if future.set_running_or_notify_cancel()]
        if not live:
            return
        try:
            outcomes = self._store.write([one for one, _ in live])
            self._on_stored(_new(live, outcomes))
        except NextbuyError as error:
            self._fail(live, error)
            return
        except Exception as error:
            # The outer edge of this thread: whatever it was, nobody may wait for ever.
            logger.exception("the committer met an error that it does not know")
            unknown = StoreUnavailableError("The store failed. Send it again under the same key.")
            unknown.__cause__ = error
            self._fail(live, unknown)
            return
        for (_, future), outcome in zip(live, outcomes, strict=True):
            if isinstance(outcome, ConflictError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _fail(self, live: Sequence[_Waiting], error: Exception) -> None:
        for _, future in live:
            future.set_exception(error)


def _new(
    live: Sequence[_Waiting], outcomes: Sequence[Receipt | ConflictError]
) -> list[StoredPurchase]:
    """Purchases that were not there before."""
    return [
        stored
        for (submission, _), outcome in zip(live, outcomes, strict=True)
        if isinstance(outcome, Receipt) and not outcome.is_repeat
        for stored in stored_purchases(outcome.first_sequence, submission)
    ]
