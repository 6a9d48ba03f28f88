"""A time limit for the whole: what it leaves for trials, and what for the comparison at the end."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_PICTURES: Final = 10.0
"""Seconds for the config, the intervals and the pictures, and for the command to start."""

_LONGER: Final = 1.3
"""A second fit has validation to learn from, too."""

_FOR_REFITS: Final = 0.4
"""A limit that would go to second fits by more than this share goes to trials instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimit:
    """When everything has to be done.

    Attributes:
        end: A moment of `time.monotonic()`; infinity without a limit.
        seconds: From the start to the end.
        refits: Whether the protocol fits again before the test.
        test_share: Test cases for each case of validation.
    """

    end: float = math.inf
    seconds: float = math.inf
    refits: bool = False
    test_share: float = 1.0

    def of_trials(self, default: Mapping[str, Any], best: Mapping[str, Any]) -> float:
        """When the trials have to end.

        Args:
            default: `seconds` and `scoring` of the trial of the default.
            best: Of the best; where that is the default, a better one may take as long.
        """
        scored = self.of_refits(default, best)
        needed = _refitting(default, best)
        is_worth_it = self.refits and needed <= _FOR_REFITS * self.seconds
        return scored - needed if is_worth_it else scored

    def of_refits(self, default: Mapping[str, Any], best: Mapping[str, Any]) -> float:
        """When second fits have to end, so that both can be scored. Those that a worker fitted, or
        that were fitted before a kill, are made from checkpoints, which asks validation again."""
        scoring = float(default["scoring"]) + float(best["scoring"])
        return self.end - _PICTURES - _LONGER * (1 + self.test_share) * scoring

    def can_refit(self, default: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
        """Whether there is time for second fits of both."""
        left = self.of_refits(default, best) - time.monotonic()
        return self.refits and _refitting(default, best) <= left


def _refitting(default: Mapping[str, Any], best: Mapping[str, Any]) -> float:
    return _LONGER * (float(default["seconds"]) + float(best["seconds"]))
