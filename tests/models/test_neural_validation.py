"""What validation says of a network: the ranking that the evaluation tells, and who chooses."""

import time

import numpy as np
import pytest

from nextbuy.data.histories import UNKNOWN, Histories
from nextbuy.evaluation.evaluate import evaluate
from nextbuy.models import first_weights, neural
from nextbuy.models.neural_validation import FEWEST_CASES, ndcg_of_new
from nextbuy.models.protocol import FitOptions
from nextbuy.models.transformer import Transformer, TransformerConfig
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.testing.contract import cases_of, small_catalog

V = 30
TRAINING = {"tokens": 256, "learning_rate": 1e-2, "shuffle": "baskets", "patience": 9}


def walks(num_users, seed=0):
    rng = np.random.default_rng(seed)
    rows = [(rng.integers(V) + np.arange(6)) % V + 1 for _ in range(num_users)]
    return Histories.from_lists([row.tolist() for row in rows])


def asked(num_cases, seed=1):
    """Answers of one item or two; some are own items and some the catalog lacks."""
    rng = np.random.default_rng(seed)
    histories = walks(num_cases, seed)
    answers = [rng.choice(V, rng.integers(1, 3), replace=False) + 1 for _ in range(num_cases)]
    answers = [[UNKNOWN] if n % 9 == 0 else answer.tolist() for n, answer in enumerate(answers)]
    return cases_of(histories, answers, as_of=None)


def fit(validation, **config):
    model = Transformer(TransformerConfig(**{"training": TRAINING} | config))
    return model.fit(walks(200), validation, small_catalog(V), FitOptions(epochs=4))


@pytest.mark.parametrize("repeats", [False, True])
def test_ndcg_is_that_of_an_evaluation_without_own_items(repeats):
    model = fit(asked(0), repeats=repeats)
    cases = asked(70)
    exclude = RepeatPolicy(kind="exclude")
    told = evaluate(model, cases, small_catalog(V), repeat=exclude, num_resamples=0)
    found = ndcg_of_new(model._scorer(), cases, longest=50, groups=model.groups)
    assert found == pytest.approx(told.metrics["ndcg@10"], abs=1e-12)
    assert 0 < found < 1


@pytest.mark.parametrize(("chosen_by", "best"), [("loss", 1), ("ndcg", 2)])
def test_the_epoch_is_chosen_by_what_was_asked_for(chosen_by, best, monkeypatch):
    losses, rankings = iter([3.0, 1.0, 2.0, 4.0, 0.0]), iter([0.1, 0.2, 0.9, 0.3])
    monkeypatch.setattr(neural, "lowest_loss", lambda *_, **__: (next(losses), 1.0))
    monkeypatch.setattr(neural, "ndcg_of_new", lambda *_, **__: next(rankings))
    model = fit(asked(20), chosen_by=chosen_by)
    assert (model.result.best_epoch, model.result.num_epochs) == (best, 4)


def test_a_ranking_chooses_where_nothing_is_bought_again_and_enough_is_asked():
    def chosen(num_cases, **config):
        return fit(asked(num_cases), **config).config.chosen_by

    assert chosen(FEWEST_CASES) == "ndcg"
    assert chosen(FEWEST_CASES - 1) == "loss"
    assert chosen(FEWEST_CASES, repeats=True) == "loss"
    assert chosen(FEWEST_CASES, chosen_by="loss") == "loss"


def test_items_start_by_their_neighbours_where_they_are_many_and_seldom_bought(monkeypatch):
    assert fit(asked(0)).config.item_start == "random"
    monkeypatch.setattr(first_weights, "_MANY_ITEMS", V)
    assert fit(asked(0)).config.item_start == "spectral"
    assert fit(asked(0), item_start="random").config.item_start == "random"
    monkeypatch.setattr(first_weights, "_MOST_ITEMS", V - 1)
    assert fit(asked(0)).config.item_start == "random"
    assert fit(asked(0), item_start="spectral").config.item_start == "spectral"
    monkeypatch.setattr(first_weights, "_MOST_ITEMS", V)
    monkeypatch.setattr(first_weights, "_SELDOM", 40.0)  # 1,200 purchases of 30 items
    assert fit(asked(0)).config.item_start == "random"


def test_under_a_time_limit_the_start_takes_a_tenth_of_the_time_at_most():
    drawn = {"embedding.weight": np.ones((V + 1, 4), np.float32)}
    config = TransformerConfig(item_start="spectral")

    def started(**options):
        return first_weights.with_items(drawn, config, walks(200), FitOptions(**options))

    needed = 10 * first_weights._SECONDS_AN_ITEM * V
    assert started(deadline=time.monotonic() + needed / 2) is drawn
    for options in ({}, {"deadline": time.monotonic() + 100 * needed + 60}):
        assert not np.array_equal(started(**options)["embedding.weight"], drawn["embedding.weight"])


def test_short_histories_of_a_small_catalog_are_learnt_at_a_higher_rate(monkeypatch):
    def decided():
        return Transformer().decided(TransformerConfig(), walks(20), small_catalog(V)).training

    assert (decided().epochs, decided().learning_rate) == (20, 3e-3)
    monkeypatch.setattr("nextbuy.models.transformer._SCORED_WHOLE", V - 1)
    assert (decided().epochs, decided().learning_rate) == (20, 1e-3)
