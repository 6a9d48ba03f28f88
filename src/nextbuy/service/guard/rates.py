"""How often a key may ask, and how many requests are worked on at once."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

from nextbuy.errors import OverloadedError


class Rates:
    """A bucket of tokens for each key: `burst` at most, `rate` more a second, one a request.

    The clock is monotonic, so that setting the machine's clock neither locks out nor lets in.
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait(self, name: str) -> float:
        """Take a token; 0 if there was one, else the seconds until there is."""
        now = self._clock()
        tokens, before = self._buckets.get(name, (self._burst, now))
        tokens = min(self._burst, tokens + (now - before) * self._rate)
        left = tokens - 1 if tokens >= 1 else tokens
        self._buckets[name] = (left, now)
        return 0.0 if tokens >= 1 else (1 - tokens) / self._rate


class Slots:
    """Room for requests that are worked on, and a queue before it; first come, first served."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self._free = concurrency
        self._queue = queue
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    async def enter(self) -> None:
        """Wait for a slot; every `enter` that returns needs one `leave`.

        Raises:
            OverloadedError: If the queue is full.
        """
        if self._free > 0:
            self._free -= 1
            return
        if len(self._waiting) >= self._queue:
            raise OverloadedError("Too many requests are waiting.")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the slot was given in the same moment
            else:
                with contextlib.suppress(ValueError):  # `leave` may have passed it by
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Give the slot to whoever waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
