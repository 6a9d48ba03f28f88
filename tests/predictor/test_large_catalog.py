"""A large catalog is scored on some of the cases, evenly spread, and the scores say so."""

import numpy as np
import pytest

from nextbuy.data.encoding import encode
from nextbuy.data.reading import read_purchases
from nextbuy.evaluation.evaluate import evaluate
from nextbuy.models.markov import Markov
from nextbuy.models.popularity import Popularity
from nextbuy.predictor import fitting
from nextbuy.predictor.audience_fit import Studies
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.config import PredictorConfig
from nextbuy.predictor.fitting import fit_and_score
from nextbuy.progress import SilentProgress
from nextbuy.report.data import protocol
from nextbuy.splitting.choice import choose_split
from tests.shop import shop_log


@pytest.fixture(scope="module")
def encoded():
    return encode(read_purchases(shop_log()))


@pytest.fixture(scope="module")
def split(encoded):
    shop = choose_split("temporal", encoded.catalog, encoded.histories, seed=0)
    many = shop.test.take(np.tile(np.arange(len(shop.test)), 20))
    return type(shop)(**{n: getattr(shop, n) for n in shop.__slots__} | {"test": many})


def fitted(split, kind=Popularity):
    return fit_and_score(
        {kind.name: kind()}, split, PredictorConfig(), run_folder=None, world=None,
        progress=SilentProgress(), budget=TimeBudget(),
    )  # fmt: skip


def test_the_cases_of_a_large_catalog_are_thinned_evenly(monkeypatch, split):
    whole = fitted(split)
    assert whole.scored_share == 1.0
    monkeypatch.setattr(fitting, "_FEWEST_CASES", 50)
    monkeypatch.setattr(fitting, "_MOST_CELLS", 150 * len(split.catalog))
    few = fitted(split)
    assert few.scored_share == pytest.approx(150 / len(split.test))
    metrics = few.rows[0].test.metrics
    by_hand = evaluate(few.models["popularity"], split.test.thinned(150), split.catalog)
    assert metrics["num_cases"] == 150
    assert metrics["loss"] == by_hand.metrics["loss"]


def test_a_model_that_makes_whole_rows_is_scored_on_fewer(monkeypatch, split):
    monkeypatch.setattr(fitting, "_FEWEST_CASES", 50)
    monkeypatch.setattr(fitting, "_MOST_CELLS_OF_ROWS", 120 * len(split.catalog))
    assert fitted(split, Markov).rows[0].test.metrics["num_cases"] == 120
    assert fitted(split).scored_share == 1.0


def test_however_large_the_catalog_is_some_cases_are_scored(monkeypatch, split):
    monkeypatch.setattr(fitting, "_FEWEST_CASES", 120)
    monkeypatch.setattr(fitting, "_MOST_CELLS", 1)
    assert fitted(split).rows[0].test.metrics["num_cases"] == 120


def test_the_report_tells_the_share_that_was_scored():
    told = {
        "split": "temporal", "description": "", "candidates": "all items", "level": "item",
        "repeat": "allow",
    }  # fmt: skip
    assert "cases were scored" not in str(protocol({"protocol": told}))
    shown = str(protocol({"protocol": told, "scored_share": 0.125}))
    assert "12.5 % of the cases were scored" in shown


def test_audiences_are_studied_with_fewer_users_of_a_large_catalog(monkeypatch, encoded, split):
    from nextbuy.predictor import audience_fit

    monkeypatch.setattr(audience_fit, "_LEAST_USERS", 7)
    monkeypatch.setattr(audience_fit, "_MOST_CELLS", 9 * len(split.catalog))
    assert len(Studies.of(encoded, split, TimeBudget()).tested.known) == 9
    monkeypatch.setattr(audience_fit, "_MOST_CELLS", 1)
    assert len(Studies.of(encoded, split, TimeBudget()).tested.known) == 7
