"""Two models on the same cases: by hand, against plain resampling, and in words."""

import numpy as np
import pytest

from nextbuy.errors import ConfigError
from nextbuy.evaluation.comparison import compare, told_apart
from nextbuy.evaluation.evaluate import COMPARED, evaluate
from tests.evaluation.table_model import TableModel, cases_of, random_cases
from tests.splitting.small_logs import catalog_of


def scored(rows, targets):
    cases = cases_of([[]] * len(targets), [[t] for t in targets])
    return evaluate(TableModel(rows), cases, catalog_of(len(rows[0])), num_resamples=0)


def two_models(n=400, seed=0):
    """The second gives the target a little more in every case; cases differ far more."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(1, 6, n)
    rows = rng.dirichlet(np.full(5, 0.4), size=n) + 1e-3
    rows /= rows.sum(axis=1, keepdims=True)
    better = rows.copy()
    better[np.arange(n), targets - 1] *= 1.1
    better /= better.sum(axis=1, keepdims=True)
    return scored(rows, targets), scored(better, targets)


def test_a_small_difference_is_clear_where_the_intervals_of_the_scores_overlap():
    worse, better = two_models()
    found = compare(better, worse)["loss"]
    assert found.difference == pytest.approx(better.metrics["loss"] - worse.metrics["loss"])
    assert found.low < found.difference < found.high < 0
    assert found.is_clear
    spread = np.std(worse.values["loss"]) / np.sqrt(400)
    assert 2 * spread > -found.difference  # unpaired, nobody could tell


def test_a_difference_of_losses_counts_purchases_as_the_losses_do():
    rng = np.random.default_rng(3)
    rows, _, targets = random_cases(rng, 60, 8)
    cases = cases_of([[]] * 60, targets)
    one, other = (
        evaluate(TableModel(table), cases, catalog_of(8), num_resamples=0)
        for table in (rows, rng.dirichlet(np.ones(8), size=60))
    )
    found = compare(one, other)
    for name in COMPARED:
        assert found[name].difference == pytest.approx(one.metrics[name] - other.metrics[name])


def test_the_interval_is_that_of_plain_resampling():
    worse, better = two_models()
    gaps = better.values["ndcg@10"] - worse.values["ndcg@10"]
    rng = np.random.default_rng(5)
    means = [rng.choice(gaps, len(gaps)).mean() for _ in range(4_000)]
    found = compare(better, worse)["ndcg@10"]
    width = np.quantile(means, 0.975) - np.quantile(means, 0.025)
    assert found.high - found.low == pytest.approx(width, rel=0.15)


def test_a_model_is_not_told_apart_from_itself_and_the_order_turns_the_sign():
    one, other = two_models()
    assert compare(one, one)["loss"].difference == 0
    assert not compare(one, one)["loss"].is_clear
    there, back = compare(one, other), compare(other, one)
    assert set(there) == set(COMPARED)
    for name in COMPARED:
        assert there[name].difference == pytest.approx(-back[name].difference)


def test_other_cases_are_refused():
    one, other = two_models(), two_models(n=300)
    with pytest.raises(ConfigError, match=r"\[300, 400\] cases"):
        compare(one[0], other[0])


def test_words():
    def row(name, low=None, high=None):
        gap = {} if low is None else {"ndcg@10": {"difference": 0.0, "low": low, "high": high}}
        return {"model": name, "minus_best": gap}

    rows = [row("blend"), row("a", -0.2, -0.1), row("b", -0.1, 0.1), row("c", 0.1, 0.2)]
    assert told_apart(rows) == (
        "By ndcg@10, case by case, blend is above a and below c and not told apart from b "
        "(95 % intervals)."
    )
    assert told_apart(rows[:1]) == ""
