"""What the next purchase is worth: Gamma-Gamma, personal means, items times prices, their blend.

    python benchmarks/amounts.py SOURCE [--level item] [--without quantity]

SOURCE as for `nextbuy train`, with prices and dates. Members and weights are chosen on the
validation period and learn again up to the test, as in a fit; the next item is told by a blend of
the models of the preset `fast`. Prints one object: per period and member the mean absolute and the
root mean square error, the deviance that chooses, and what was said and came in all.
"""

import argparse
import json
import time
from typing import Any

import numpy as np

from nextbuy.data.options import ReadOptions
from nextbuy.models.blend import BLEND, Blend
from nextbuy.models.protocol import FitOptions
from nextbuy.predictor.amount_fit import Spending, errors, scores
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.config import PredictorConfig, create_model
from nextbuy.predictor.learning import read_and_split
from nextbuy.predictor.refit import refit
from nextbuy.progress import SilentProgress
from nextbuy.timing.amounts import Amounts, deviance, mixed
from nextbuy.timing.basket_size import BasketSize
from nextbuy.timing.gamma_gamma import spend_before

_WEIGHING_CASES = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--level", default="item")
    parser.add_argument("--without", help="a column that is not read")
    arguments = parser.parse_args()
    print(json.dumps(measured(arguments.source, arguments.level, arguments.without), indent=1))


def measured(source: Any, level: str, without: str | None) -> dict[str, Any]:
    if without is not None:
        import polars as pl

        source = pl.read_parquet(source).drop(without)
    config = PredictorConfig.of(preset="fast", level=level)
    progress = SilentProgress()
    _, encoded, split = read_and_split(source, config, ReadOptions(), None, progress)
    spending = Spending.of(encoded, split, TimeBudget())
    early, validation, test = spending.amounts, spending.validation, spending.test
    if early is None or validation is None or test is None or split.before_test is None:
        raise SystemExit(f"nothing can be measured: {spending.reason}")
    options = FitOptions()
    members = {
        name: create_model(name, config).fit(split.train, split.validation, split.catalog, options)
        for name in config.chosen_models
    }
    blend = Blend.of(members, split.validation.thinned(_WEIGHING_CASES), progress)
    began = time.process_time()
    estimates = early.estimates(validation.whole, validation.start, validation.next_item(blend))
    seconds = time.process_time() - began
    early.weigh(estimates, validation.came)
    found: dict[str, Any] = {
        "processor_seconds_of_asking": round(seconds, 2),
        "weights": early.weights,
        "validation": scores(early, estimates, validation) | plain(validation),
        "by_squares": by_squares(estimates, validation.came),
    }
    again, _ = refit(members, split.before_test, split.catalog, options, stage="before-test")
    model = Blend(again, blend.weights)
    late = Amounts.fitted(encoded.histories, test.start)
    late.weights = early.weights
    asked = late.estimates(test.whole, test.start, test.next_item(model))
    found["test"] = scores(late, asked, test) | plain(test)
    weights = found["by_squares"]["weights"]
    found["by_squares"]["test"] = errors(mixed(asked, weights), test.came)
    found[BLEND] = blend.in_words()
    return found


def plain(period: Any) -> dict[str, Any]:
    """The user's own mean, not drawn to anything, and the items of the mean basket."""
    spend = spend_before(period.whole, period.start)
    sizes = BasketSize.fitted(period.whole, period.start)
    return {
        "plain mean": errors(np.where(spend.counts > 0, spend.mean, np.nan), period.came),
        "items, one mean for all": errors(
            np.full(len(period.items), sizes.items.mean), period.items
        ),
    }


def by_squares(estimates: Any, came: Any) -> dict[str, Any]:
    """Weights of the smallest squared error instead, in twentieths."""
    names = list(estimates)
    tried = [
        (a, b, 20 - a - b) for a in range(21) for b in range(21 - a)
    ]  # three members, as they are
    best = min(
        tried,
        key=lambda steps: float(
            ((mixed(estimates, dict(zip(names, steps, strict=True))) - came) ** 2).mean()
        ),
    )
    weights = {name: step / 20 for name, step in zip(names, best, strict=True)}
    said = mixed(estimates, weights)
    return {"weights": weights, "validation": errors(said, came), "deviance": deviance(said, came)}


if __name__ == "__main__":
    main()
