"""The time that training may take."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from nextbuy.errors import TimeIsUpError


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time that training may take; what validation takes is set aside."""

    started: float
    ends: float

    @classmethod
    def until(cls, deadline: float | None, validate: Callable[[], object]) -> "Clock":
        """Measures how long a validation takes, if it matters."""
        started = time.monotonic()
        if deadline is None:
            return cls(started=started, ends=math.inf)
        validate()
        now = time.monotonic()
        clock = cls(started=now, ends=deadline - 1.5 * (now - started))
        if clock.is_over():
            raise TimeIsUpError(
                f"The time is up: {max(0.0, deadline - now):.0f} s are left to train, and to "
                f"validate takes {now - started:.0f} s."
            )
        return clock

    def gone(self) -> float:
        """Share of the time that is gone; 0 without a deadline."""
        return (time.monotonic() - self.started) / (self.ends - self.started)

    def is_over(self) -> bool:
        """Whether it is time to validate for the last time."""
        return time.monotonic() >= self.ends
