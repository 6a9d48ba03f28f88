"""A time limit: what it leaves for fitting, and how many cases can still be scored.

The limit covers everything from reading to the published bundle. A share of it is kept for weighing
and scoring; each model may take what is left of the rest. When that is gone, the models that are
fitted are blended and scored on as many cases as there is time for, evenly spread.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nextbuy.data.catalog import Catalog
from nextbuy.evaluation.evaluate import evaluate
from nextbuy.models.protocol import FittedModel
from nextbuy.splitting.cases import Cases

_FOR_SCORING: Final = 0.3
_FOR_SAVING: Final = 0.15
_FEWEST_CASES: Final = 100
_SAMPLE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBudget:
    """When things have to be done, as moments of `time.monotonic()`; infinity without a limit."""

    fitted: float = math.inf
    scored: float = math.inf

    @classmethod
    def of(cls, limit: float | None, started: float) -> "TimeBudget":
        """A budget of `limit` seconds that began at `started`."""
        if limit is None:
            return cls()
        scored = limit * (1.0 - _FOR_SAVING)
        return cls(fitted=started + scored - limit * _FOR_SCORING, scored=started + scored)

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return math.isfinite(self.scored)

    def share_of_cases(
        self, models: Mapping[str, FittedModel], validation: Cases, test: Cases, catalog: Catalog
    ) -> float:
        """Which share of the cases can be scored in time, in (0, 1].

        Every member is asked each validation case three times (to weigh it, alone, and in the
        blend) and each test case twice, and its answers and those of the blend are ranked once;
        how long both take is measured on a few.
        """
        if not self.is_limited:
            return 1.0
        cases = validation if len(validation) else test
        sample = cases.thinned(_SAMPLE)
        if len(sample) == 0:
            return 1.0
        started = time.monotonic()
        for model in models.values():
            model.log_probabilities(sample.histories, sample.as_of)
        answered = time.monotonic()
        evaluate(next(iter(models.values())), sample, catalog, num_resamples=0)
        answer = (answered - started) / len(sample)
        ranking = (len(models) + 1) * (time.monotonic() - answered) / len(sample)
        needed = answer * (3 * len(validation) + 2 * len(test))
        needed += ranking * (len(validation) + len(test))
        left = self.scored - time.monotonic()
        return min(1.0, max(left, 0.0) / max(needed, 1e-9))

    def cases(self, cases: Cases, share: float) -> Cases:
        """That share of the cases, but some in any case."""
        return cases.thinned(max(_FEWEST_CASES, int(share * len(cases))))
