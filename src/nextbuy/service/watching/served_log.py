"""Which answers are kept to be compared with what is bought: a sample, written in the background.

Serving never waits for it: what does not fit is dropped, and counted.
"""

import hashlib
import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from nextbuy.errors import StoreError
from nextbuy.service.store.protocol import ServedOffer, Store

logger = logging.getLogger(__name__)

_WHOLE: Final = 2**64


class ServedLogConfig(BaseModel):
    """How much is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = Field(default=0.1, ge=0, le=1, description="share of the answers that are kept")
    waiting: int = Field(default=10_000, ge=1, description="answers in memory; more are dropped")
    batch: int = Field(default=500, ge=1, description="answers of one write")
    seconds: float = Field(default=1.0, gt=0, description="an answer waits at most so long")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedCounts:
    """What became of the answers that `add` was told of.

    Attributes:
        skipped: Not in the sample.
        dropped: In the sample, but there was no room, or the log was closed.
        written: In the store.
        lost: The store refused them.
        waiting: In memory.
    """

    skipped: int
    dropped: int
    written: int
    lost: int
    waiting: int


def is_sampled(user_id: str, served: int, rate: float) -> bool:
    """Whether an answer is in the sample: by the SHA-256 of user and moment, so that any process
    decides alike and nobody is followed all the time."""
    digest = hashlib.sha256(f"{served}\x1f{user_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < rate * _WHOLE


class ServedLog:
    """Takes answers from any thread, and writes them in one of its own."""

    def __init__(self, store: Store, config: ServedLogConfig | None = None) -> None:
        self._store = store
        self._config = config or ServedLogConfig()
        self._buffer: deque[ServedOffer] = deque()
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._skipped = self._dropped = self._written = self._lost = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="served log", daemon=True)
        self._thread.start()

    def add(self, offer: ServedOffer) -> bool:
        """Keep an answer, if it is in the sample and there is room; never waits for the store.

        Returns:
            Whether it is kept.
        """
        if not is_sampled(offer.user_id, offer.served, self._config.rate):
            with self._changed:
                self._skipped += 1
            return False
        with self._changed:
            if self._closed or len(self._buffer) >= self._config.waiting:
                self._dropped += 1
                return False
            self._buffer.append(offer)
            if len(self._buffer) >= self._config.batch:
                self._changed.notify()
        return True

    def forget(self, user_id: str) -> None:
        """Drop what waits of a user; after this returns nothing of it reaches the store."""
        with self._writing, self._changed:
            kept = [offer for offer in self._buffer if offer.user_id != user_id]
            self._dropped += len(self._buffer) - len(kept)
            self._buffer = deque(kept)

    def counts(self) -> ServedCounts:
        """What became of the answers so far."""
        with self._changed:
            return ServedCounts(
                skipped=self._skipped, dropped=self._dropped, written=self._written,
                lost=self._lost, waiting=len(self._buffer),
            )  # fmt: skip

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits, and stop; may be called twice.

        Args:
            timeout: Seconds to wait for a store that hangs.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._is_due, self._config.seconds)
                if self._closed and not self._buffer:
                    return
            self._write()

    def _is_due(self) -> bool:
        return self._closed or len(self._buffer) >= self._config.batch

    def _write(self) -> None:
        with self._writing:
            with self._changed:
                size = min(len(self._buffer), self._config.batch)
                batch = [self._buffer.popleft() for _ in range(size)]
            if not batch:
                return
            try:
                self._store.write_served(batch)
            except StoreError as error:
                logger.warning("%d served answers are lost: %s", len(batch), error)
                with self._changed:
                    self._lost += len(batch)
            else:
                with self._changed:
                    self._written += len(batch)
