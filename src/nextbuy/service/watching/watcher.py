"""Computes live quality now and then in a thread, so that pages and metrics only read it."""

import logging
import threading
from collections.abc import Callable

from nextbuy.errors import ModelUnavailableError, NextbuyError
from nextbuy.service.watching.quality import LiveQuality

logger = logging.getLogger(__name__)


class Watcher:
    """Holds the newest `LiveQuality`.

    Args:
        compute: Makes one, such as `live_quality` of the present bundle; may raise `NextbuyError`.
        seconds: From the end of one computation to the next.
    """

    def __init__(self, compute: Callable[[], LiveQuality], *, seconds: float = 300.0) -> None:
        self._compute = compute
        self._seconds = seconds
        self._latest: LiveQuality | None = None
        self._failure: str | None = None
        self._stopped = threading.Event()
        self._busy = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    @property
    def latest(self) -> LiveQuality | None:
        """The newest that could be computed; None at first."""
        return self._latest

    @property
    def failure(self) -> str | None:
        """Why the last computation failed; None if it did not."""
        return self._failure

    def start(self) -> None:
        """Compute from now on, in the background."""
        self._thread.start()

    def refresh(self) -> None:
        """Compute now; what fails is logged, and the old result stays."""
        with self._busy:
            try:
                self._latest = self._compute()
                self._failure = None
            except NextbuyError as error:
                self._failure = str(error)
                is_surprise = not isinstance(error, ModelUnavailableError)
                logger.log(
                    logging.WARNING if is_surprise else logging.DEBUG,
                    "Live quality cannot be computed: %s",
                    error,
                )

    def stop(self, timeout: float = 5.0) -> None:
        """Compute no more; may be called twice.

        Args:
            timeout: Seconds to wait for a computation that is going on.
        """
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.refresh()
            self._stopped.wait(self._seconds)
