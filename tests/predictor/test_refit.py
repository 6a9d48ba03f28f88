"""Fitting again on the whole log: what is learnt, what is kept, and what may no longer be asked."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.errors import ConfigError
from nextbuy.models.recency_popularity import decayed_counts
from tests.shop import shop_log

MODELS = ("popularity", "recency-popularity", "personal-frequency", "tifu-knn", "lstm-rnn")
TINY = {"lstm-rnn": {"embedding_size": 4, "lstm_size": 8, "rnn_size": 8}}


@pytest.fixture(scope="module")
def log():
    """A shop that sells something new in its last days."""
    log = shop_log()
    late = log.filter(pl.col("timestamp") > log["timestamp"].max() - timedelta(days=5))
    return pl.concat([log, late.with_columns(item_id=pl.lit("novelty"))])


@pytest.fixture(scope="module")
def both(log):
    config = PredictorConfig(models=MODELS, options=TINY, epochs=2)
    whole = config.model_copy(update={"refit_full": True})
    return Predictor.fit(log, config=config), Predictor.fit(log, config=whole)


def test_scores_and_choices_are_those_of_the_first_fit(both):
    once, again = both
    for a, b in zip(once.leaderboard, again.leaderboard, strict=True):
        assert a.test.metrics["loss"] == b.test.metrics["loss"]
    assert once.facts["blend"] == again.facts["blend"]
    assert again.models["tifu-knn"].calibration == once.models["tifu-knn"].calibration
    assert again.models["personal-frequency"].config == once.models["personal-frequency"].config
    epochs = again.models["lstm-rnn"].result.num_epochs
    assert epochs == once.models["lstm-rnn"].result.best_epoch + 1


def test_what_came_last_is_learnt(both):
    once, again = both
    assert "novelty" not in once.catalog.table["item_id"].to_list()
    for name in again.models:
        found = again.predict(["u1"], k=10, model=name)
        assert "novelty" in found["item_id"].to_list(), name
        assert found["probability"].sum() == pytest.approx(1, abs=1e-4)


def test_it_is_as_if_all_had_been_training_data(both, log):
    _, again = both
    counts = dict(log["item_id"].value_counts().iter_rows())
    found = again.predict(["nobody"], k=10, model="popularity")
    expected = [(counts[i] + 1) / (log.height + len(counts)) for i in found["item_id"]]
    np.testing.assert_allclose(found["probability"], expected, rtol=1e-4)


def test_it_survives_saving_and_cannot_be_scored_on_what_it_has_seen(both, log, tmp_path):
    _, again = both
    again.save(tmp_path)
    loaded = Predictor.load(tmp_path)
    assert loaded.predict(["u1"], k=3).equals(again.predict(["u1"], k=3))
    with pytest.raises(ConfigError, match="fitted again on the whole log"):
        loaded.evaluate(log)
    other = shop_log(seed=9)
    assert loaded.evaluate(other)["blend"].metrics["num_cases"] > 10


def test_a_time_limit_leaves_no_room_for_it():
    with pytest.raises(ConfigError, match="fits everything twice"):
        PredictorConfig.of(refit_full=True, time_limit=10)


@pytest.fixture(scope="module")
def scored(log):
    """Scored after learning from the validation days, and without."""
    found = [
        Predictor.fit(log, config=PredictorConfig(models=MODELS, options=TINY, epochs=2, refit=on))
        for on in (True, False)
    ]
    return tuple(found)


def test_the_test_is_scored_after_learning_from_the_days_of_validation(scored):
    with_them, without = scored
    split = with_them.split
    later = np.bincount(split.before_test.items, minlength=len(split.catalog) + 1)[1:]
    popularity = with_them.models["popularity"].log_probabilities(split.test.histories, None)[0, 1:]
    expected = np.log((later + 1) / (later + 1).sum())
    np.testing.assert_allclose(popularity, expected, rtol=1e-5)
    assert split.before_test.num_purchases > split.train.num_purchases
    for a, b in zip(with_them.leaderboard, without.leaderboard, strict=True):
        assert a.validation.metrics["loss"] == b.validation.metrics["loss"]
        assert a.test.metrics["loss"] != b.test.metrics["loss"]
    assert "fitted again" in with_them.facts["protocol"]["description"]
    assert "fitted again" not in without.facts["protocol"]["description"]


def test_whether_order_matters_stays_decided(scored):
    with_them, without = scored
    chosen = [p.models["lstm-rnn"].config.training.shuffle for p in (with_them, without)]
    assert chosen[0] == chosen[1] != "auto"


def test_where_only_an_order_is_known_nothing_is_learnt_twice(log):
    config = PredictorConfig(models=("popularity",), split="leave-last-out")
    found = Predictor.fit(log, config=config)
    assert found.split.before_test is None
    assert "fitted again" not in found.facts["protocol"]["description"]


def test_the_half_life_that_validation_chose_is_kept(scored):
    with_them, without = scored
    lives = [p.models["recency-popularity"].config.half_life_days for p in (with_them, without)]
    assert lives[0] == lives[1] is not None
    split = with_them.split
    expected = decayed_counts(split.before_test, lives[0], len(split.catalog))
    found = with_them.models["recency-popularity"]
    rows = found.scores(found._arrays, split.test.histories.take(np.array([0])), len(split.catalog))
    np.testing.assert_array_equal(rows[0], expected)
