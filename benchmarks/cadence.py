"""Clocks of items on the test periods of real logs: what was said, and what came.

    python benchmarks/cadence.py FOLDER

FOLDER has online_retail_ii.parquet; a log that is missing is said and skipped. The Complete Journey
comes from its package. Clocks learn from everything before the test period of the temporal split
and are asked, of each pair of a user and an own item, when the item is bought again; what is not
seen until the end of the log is censored. `own` has a clock for each user and item, `pooled` one
for each item, the same for all users. The likelihood is that of the day of the next purchase, or of
none until the end; `always` says of every pair what share of all pairs was bought again, and is
told that share by the test period itself. Prints one JSON object, with the CPU seconds that reasons
of 10 offers to 10,000 users take.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from nextbuy.data.encoding import encode
from nextbuy.data.histories import DAY, Histories
from nextbuy.data.options import ReadOptions
from nextbuy.data.recoding import in_catalog
from nextbuy.data.sources import load_source
from nextbuy.evaluation.comparison import compare
from nextbuy.evaluation.evaluate import Evaluation, evaluate
from nextbuy.metrics.calibration import reliability
from nextbuy.models.protocol import FittedModel
from nextbuy.predictor.answers import Moment, reasons
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.cadence_fit import cadences_of
from nextbuy.predictor.config import PredictorConfig, create_model
from nextbuy.predictor.fitting import fit_and_score
from nextbuy.progress import SilentProgress
from nextbuy.splitting.cases import Cases, Split
from nextbuy.splitting.repeat import RepeatPolicy, scaled_to_one
from nextbuy.splitting.temporal import split_by_time
from nextbuy.timing.events import observed_until
from nextbuy.timing.item_cadence import ItemCadence, ItemCadenceConfig
from nextbuy.timing.item_clocks import ItemClocks
from nextbuy.timing.item_gaps import ItemGaps, item_gaps

WITHIN = 30
POWERS = (0.0, 0.25, 0.5, 1.0, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data
    found: dict[str, Any] = {}
    for name, source in (
        ("complete_journey", "complete-journey"),
        ("online_retail_ii", str(folder / "online_retail_ii.parquet")),
    ):
        if source.endswith(".parquet") and not Path(source).exists():
            print(f"{source} is not here; {name} was not measured.")
            continue
        found[name] = measured(source)
    print(json.dumps(found, indent=1))


def measured(source: str) -> dict[str, Any]:
    """Both kinds of clocks on one log."""
    log = encode(load_source(source, options=ReadOptions()).purchases)
    split = split_by_time(log.catalog, log.histories)
    assert split.before_test is not None and split.test.as_of is not None
    start, end = int(split.test.as_of[0]), observed_until(log.histories)
    seen = split.before_test
    known = in_catalog(log.histories, log.catalog, split.catalog)
    whole = known.of_users(seen.user_ids.to_list())
    found: dict[str, Any] = {"test_days": (end - start) / DAY}
    for name in ("own", "pooled"):
        began = time.process_time()
        model = ItemCadence(ItemCadenceConfig(personal=name == "own"))
        model.fit(seen, split.catalog, start)
        seconds = time.process_time() - began
        clocks = model.clocks(seen, start)
        found[name] = scores(clocks, next_days(clocks.gaps, whole, start), start, end) | {
            "fit_cpu_seconds": round(seconds, 1),
            "parameters": None if model.parameters is None else model.parameters.model_dump(),
            "typical_gap_days": float(np.median(clocks.typical_days())),
        }
        if name == "own":
            found["reasons_cpu_seconds"] = seconds_of_reasons(seen, model, start)
    gaps = item_gaps(seen, start)
    found["complete_gaps_alone_days"] = float(np.exp(gaps.log_sums.sum() / gaps.counts.sum()))
    return found | {"offers": offers(split)}


class Due:
    """A model whose own items count among each other by the probability to be bought again within a
    week; new items keep theirs."""

    def __init__(self, model: FittedModel, cadence: ItemCadence, power: float) -> None:
        self.name, self.model, self.cadence, self.power = "due", model, cadence, power

    def log_probabilities(self, histories: Histories, as_of: Any) -> Any:
        log_p = self.model.log_probabilities(histories, as_of).copy()
        clocks = self.cadence.clocks(histories, as_of)
        soon = np.maximum(clocks.probability_within(7.0)[:, 0], 1e-6)
        places = clocks.gaps.owners, clocks.gaps.items
        own = np.exp(log_p[places].astype(np.float64))
        weighed = own * soon**self.power
        before, after = (
            np.bincount(places[0], values, minlength=len(log_p)) for values in (own, weighed)
        )
        scale = before[places[0]] / np.maximum(after[places[0]], 1e-300)
        log_p[places] = np.log(np.maximum(weighed * scale, 1e-30))
        return scaled_to_one(log_p)


def offers(split: Split) -> dict[str, Any]:
    """`personal-frequency` under policies, and with own items weighed by what is due; the power of
    that is chosen on validation."""
    config = PredictorConfig(models=("personal-frequency",))
    models = {name: create_model(name, config) for name in config.chosen_models}
    own = RepeatPolicy.parse("cooldown:own")
    early, late = (f.cadence for f in cadences_of(split, own, TimeBudget(), refitted=True))
    assert early is not None and late is not None
    first = models["personal-frequency"]
    fitted = fit_and_score(
        models, split, config, run_folder=None, world=None, progress=SilentProgress()
    )
    again = fitted.models["personal-frequency"]

    def of(model: Any, cases: Cases, repeat: RepeatPolicy = RepeatPolicy.ALLOW) -> Evaluation:
        return evaluate(model, cases, split.catalog, repeat=repeat)

    def told(found: Evaluation) -> dict[str, float]:
        return {name: found.metrics[name] for name in ("ndcg@10", "recall@10", "loss")}

    chosen = {power: of(Due(first, early, power), split.validation) for power in POWERS}
    best = max(POWERS, key=lambda power: chosen[power].metrics["ndcg@10"])
    policies = {
        "allow": RepeatPolicy.ALLOW, "cooldown:3": RepeatPolicy.parse("cooldown:3"),
        "cooldown:7": RepeatPolicy.parse("cooldown:7"), "cooldown:own": own.by(late),
    }  # fmt: skip
    scored = {name: of(again, split.test, policy) for name, policy in policies.items()}
    due = of(Due(again, late, best), split.test)
    return {
        "cases": len(split.test),
        "policies": {name: told(found) for name, found in scored.items()},
        "validation_by_power": {power: told(found) for power, found in chosen.items()},
        "power": best,
        "due": told(due),
        "due_minus_allow": {
            name: found.as_dict() for name, found in compare(due, scored["allow"], seed=0).items()
        },
    }


def next_days(gaps: ItemGaps, whole: Histories, start: int) -> Any:
    """Days from the last purchase of each pair to the next from `start` on; infinite without."""
    width = int(max(gaps.items.max(), whole.items.max())) + 1
    later = np.flatnonzero(whole.times >= start)
    keys, days = whole.owners[later] * width + whole.items[later], whole.times[later] // DAY
    order = np.lexsort((days, keys))
    keys, days = keys[order], days[order]
    own = gaps.owners * width + gaps.items
    places = np.minimum(np.searchsorted(keys, own), len(keys) - 1)
    return np.where(keys[places] == own, days[places] - gaps.last // DAY, np.inf)


def scores(clocks: ItemClocks, day_P: Any, start: int, end: int) -> dict[str, Any]:
    """Likelihood, calibration and coverage; a gap of n days ends between n - 1/2 and n + 1/2."""
    elapsed = clocks.gaps.elapsed
    longest = (end - start) / DAY
    seen = np.isfinite(day_P)
    low = np.maximum(np.where(seen, day_P - 0.5, 0.0) - elapsed, 0.0)
    high = np.where(seen, np.maximum(day_P + 0.5 - elapsed, 0.5), longest)
    p_low, p_high = (clocks.probability_within(days[:, None])[:, 0] for days in (low, high))
    worth = np.log(np.maximum(np.where(seen, p_high - p_low, 1.0 - p_high), 1e-12))
    said = clocks.probability_within(WITHIN)[:, 0]
    came = day_P - elapsed - 0.5 < WITHIN
    share = came.mean()
    # Given that a wait ended in the period, it lies at a uniform share of the distribution to its
    # end, if that is right.
    whole = clocks.probability_within(longest)[:, 0]
    at = ((p_low + p_high) / 2.0 / np.maximum(whole, 1e-300))[seen]
    return {
        "pairs": len(day_P),
        "bought_again": int(seen.sum()),
        "log_likelihood_per_wait": float(worth.mean()),
        "within_30_days_said": float(said.mean()),
        "within_30_days_came": float(share),
        "log_loss_30_days": float(-np.log(np.where(came, said, 1.0 - said).clip(1e-12)).mean()),
        "log_loss_30_days_always": float(
            -(share * np.log(share) + (1 - share) * np.log(1 - share))
        ),
        "ece_30_days": reliability(said, came).ece,
        "coverage_80": float(((at > 0.1) & (at < 0.9)).mean()),
    }


def seconds_of_reasons(histories: Histories, model: ItemCadence, start: int) -> float:
    """For 10 offers to each of 10,000 users, half of them own items."""
    users = np.arange(10_000) % len(histories)
    asked = histories.take(users)
    items = np.tile(np.arange(1, 11, dtype=np.int32), (len(asked), 1))
    bought = np.flatnonzero(asked.lengths)
    for place in range(5):
        items[bought, place] = asked.items[asked.offsets[bought] + place % asked.lengths[bought]]
    moments = np.full(len(asked), start)
    began = time.process_time()
    chunk = 1_024
    for first in range(0, len(asked), chunk):
        part = np.arange(first, min(first + chunk, len(asked)))
        moment = Moment(told=None, assumed=moments[part], cadence=model)
        reasons(asked.take(part), items[part], moment)
    return round(time.process_time() - began, 2)


if __name__ == "__main__":
    main()
