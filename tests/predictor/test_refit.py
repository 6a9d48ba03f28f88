"""Fitting again on the whole log: what is learnt, what is kept, and what may no longer be asked."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.errors import ConfigError
from tests.shop import shop_log

MODELS = ("popularity", "personal-frequency", "tifu-knn", "lstm-rnn")
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
