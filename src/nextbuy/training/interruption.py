"""Ctrl-C and SIGTERM: finish the step, save, leave. A second Ctrl-C leaves at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nextbuy.errors import TrainingError


class Interrupted(TrainingError):  # noqa: N818  (it is not an error of the run)
    """The run was asked to stop and has saved its state."""

    def __init__(self, signal_number: int, step: int) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(
            f"Stopped by {name} after step {step}; the state is saved. "
            "Give the same command again to go on."
        )
        self.signal_number, self.step = signal_number, step
        self.exit_code = 128 + signal_number

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, int]]:
        return Interrupted, (self.signal_number, self.step)


class StopRequest:
    """Remembers the first signal that asked to stop."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def receive(self, signal_number: int, _frame: FrameType | None) -> None:
        """Signal handler."""
        if self.signal_number is not None and signal_number == signal.SIGINT:
            os._exit(128 + signal_number)  # asked twice: leave now; the last checkpoint is whole
        self.signal_number = signal_number


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within it, SIGINT and SIGTERM only set a flag; outside the main thread nothing changes.

    The handlers that were there before come back afterwards.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {s: signal.signal(s, request.receive) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
