"""How good forecasts of times were on the test period: what a report and the command line show.

Legend: U users, M members.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nextbuy.data.encoding import Encoded
from nextbuy.data.histories import DAY, Histories
from nextbuy.data.worlds.world import World
from nextbuy.evaluation.comparison import mean_differences
from nextbuy.models.blend import BLEND
from nextbuy.timing.blend import TimingBlend
from nextbuy.timing.events import events_before
from nextbuy.timing.forecaster import HORIZONS
from nextbuy.timing.protocol import TimingModel
from nextbuy.timing.scores import Scores, fitting_horizons, score
from nextbuy.timing.truth import true_outlook
from nextbuy.timing.waits import waits_after


def timing_scores(
    models: Mapping[str, TimingModel | TimingBlend],
    encoded: Encoded,
    test_start: int,
    end: int,
    *,
    most_users: int,
    world: World | None,
    seed: int,
) -> dict[str, Any]:
    """Scores of fitted models on the test period, as JSON.

    Args:
        models: The blend, under `BLEND`, and each member alone.
        encoded: The whole log.
        test_start: UTC microseconds; what lies before is what the models see.
        end: Of observation, UTC microseconds.
        most_users: To score with, evenly spread.
        world: Where the log comes from, if its limit holds.
        seed: Of the bootstrap.

    Returns:
        The period, `scores` by model (see `scores.score`), `limit`, the scores of the truth itself
        on the same waits where it is known, `blend_minus`, the log-likelihood a wait of the blend
        minus that of each member with its interval, and `pit` and `reliability` of the blend.
    """
    sample = evenly_spread(encoded.histories, test_start, most_users)
    waits = waits_after(sample, test_start, end)
    period = (end - test_start) / DAY
    found = {
        name: score(model.outlook(sample, test_start), waits, period, HORIZONS)
        for name, model in models.items()
    }
    laws = None if world is None else world.gap_laws(sample, encoded.catalog, test_start)
    fitting = fitting_horizons(period, HORIZONS)
    return {
        "test_days": period,
        "num_users": int(waits.known.sum()),
        "num_events": int(waits.observed.sum()),
        "horizons": fitting,
        "horizons_left_out": [days for days in HORIZONS if days not in fitting],
        "scores": {name: each.values for name, each in found.items()},
        "limit": None
        if laws is None
        else score(true_outlook(laws), waits, period, HORIZONS).values,
        "blend_minus": _blend_minus(found, seed),
        "pit": found[BLEND].pit.tolist(),
        "reliability": {
            str(days): bins.as_dict() for days, bins in found[BLEND].reliability.items()
        },
    }


def evenly_spread(histories: Histories, as_of: int, most_users: int) -> Histories:
    """Users who bought before a moment, so many at most, evenly spread."""
    buyers = np.flatnonzero(events_before(histories, as_of).counts > 0)
    if len(buyers) > most_users:
        buyers = buyers[np.linspace(0, len(buyers) - 1, most_users).astype(np.int64)]
    return histories.take(buyers)


def _blend_minus(found: Mapping[str, Scores], seed: int) -> dict[str, dict[str, float]]:
    """Log-likelihood a wait of the blend minus that of each member, user by user."""
    names = [name for name in found if name != BLEND]
    if not len(found[BLEND].log_likelihood) or not names:
        return {}
    table_UM = np.stack(
        [found[BLEND].log_likelihood - found[name].log_likelihood for name in names], axis=1
    )
    differences = mean_differences(table_UM, seed=seed)
    return {name: each.as_dict() for name, each in zip(names, differences, strict=True)}
