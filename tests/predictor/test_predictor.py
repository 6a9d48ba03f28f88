"""What a user of the library sees: scores, answers, and what survives on disk."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nextbuy import Predictor, PredictorConfig
from nextbuy.bundle import content_hash
from nextbuy.errors import BundleError, ConfigError, RunLockedError
from nextbuy.training.checkpoint import run_lock
from tests.shop import ITEMS, shop_log

COUNTING = ("popularity", "personal-frequency")
TINY = {"lstm-rnn": {"embedding_size": 4, "lstm_size": 8, "rnn_size": 8}}


@pytest.fixture(scope="module")
def fitted():
    return Predictor.fit(shop_log(), config=PredictorConfig(models=COUNTING))


def test_the_answer_is_tidy_with_original_ids_and_falling_probabilities(fitted):
    found = fitted.predict(["u3", "u1"], k=4)
    assert found.columns == [
        "user_id", "rank", "item_id", "platform", "category", "probability", "reason",
    ]  # fmt: skip
    assert found["user_id"].to_list() == ["u3"] * 4 + ["u1"] * 4
    assert found["rank"].to_list() == [1, 2, 3, 4] * 2
    assert set(found["item_id"]) <= set(ITEMS)
    for user in ("u3", "u1"):
        p = found.filter(pl.col("user_id") == user)["probability"].to_list()
        assert p == sorted(p, reverse=True)
        assert 0 < sum(p) <= 1


def test_all_probabilities_of_a_user_sum_to_one(fitted):
    found = fitted.predict(["u3"], k=1000)
    assert found.height == len(ITEMS)
    assert found["probability"].sum() == pytest.approx(1, abs=1e-5)


def test_the_favourites_of_a_user_come_first_with_the_reason(fitted):
    log = shop_log().filter(pl.col("user_id") == "u7")
    counts = log["item_id"].value_counts(sort=True)
    best = fitted.predict(["u7"], k=1, model="personal-frequency").row(0, named=True)
    assert best["item_id"] == counts["item_id"][0]
    last = log.filter(pl.col("item_id") == best["item_id"])["timestamp"].max().date()
    ago = (shop_log()["timestamp"].max().date() - last).days
    assert re.fullmatch(rf"about every \d+ days, last {ago} days ago \({last}\)", best["reason"])


def test_an_unknown_user_gets_what_is_popular(fitted):
    nobody = fitted.predict(["nobody"], k=6, model="personal-frequency")
    assert nobody["item_id"].to_list() == fitted.catalog.table["item_id"].to_list()
    assert set(nobody["reason"]) == {"new to this user"}


def test_asking_changes_nothing(fitted):
    first = fitted.predict(["u1", "nobody"], k=3)
    assert_frame_equal(fitted.predict(["u1", "nobody"], k=3), first)
    assert len(fitted.histories.user_ids) == len(fitted.histories) == 60


def test_the_best_model_is_chosen_on_validation(fitted):
    losses = {row.model: row.validation.metrics["loss"] for row in fitted.leaderboard}
    assert fitted.best_model == min(losses, key=losses.__getitem__) == "blend"
    assert losses["personal-frequency"] < losses["popularity"]


def test_the_blend_is_weighed_on_validation_and_can_be_left_out(fitted):
    weights = {row.model: row.weight for row in fitted.leaderboard}
    assert weights["blend"] is None
    assert weights["personal-frequency"] > weights["popularity"]
    assert weights["personal-frequency"] + weights["popularity"] == pytest.approx(1)
    alone = Predictor.fit(shop_log(), config=PredictorConfig(models=COUNTING, blend=False))
    assert set(alone.models) == set(COUNTING)


def test_evaluating_on_the_training_log_gives_the_scores_of_the_training(fitted):
    again = fitted.evaluate(shop_log())
    for row in fitted.leaderboard:
        assert again[row.model].metrics == pytest.approx(row.test.metrics, nan_ok=True)
        np.testing.assert_equal(again[row.model].intervals, row.test.intervals)


def test_row_order_changes_nothing(fitted):
    shuffled = shop_log().sample(fraction=1, shuffle=True, seed=3)
    other = Predictor.fit(shuffled, config=PredictorConfig(models=COUNTING))
    for facts in (other.facts, fitted.facts):
        for row in facts["leaderboard"]:
            row["fit_seconds"] = None  # a duration; all else is equal
    np.testing.assert_equal(other.facts, fitted.facts)


def test_exclude_offers_nothing_that_was_bought():
    config = PredictorConfig(models=COUNTING, repeat="exclude")
    found = Predictor.fit(shop_log(), config=config).predict(["u1", "u2"], k=6)
    bought = shop_log().select("user_id", "item_id").unique()
    assert found.join(bought, on=["user_id", "item_id"]).height == 0
    assert found.height > 0


def test_raw_histories_of_strangers_are_answered_and_unknown_items_counted(fitted):
    stranger = pl.DataFrame(
        {
            "user_id": ["new"] * 4,
            "item_id": ["soap", "gold", "soap", "42"],  # 42 is not 0042
            "timestamp": [f"2025-03-0{day}" for day in (1, 2, 3, 4)],
        }
    )
    histories, num_left_out = fitted.encode_histories(stranger)
    assert num_left_out == 2
    best = fitted.predict(histories, k=1, model="personal-frequency").row(0, named=True)
    assert (best["user_id"], best["item_id"]) == ("new", "soap")


def test_a_loaded_bundle_answers_the_same(fitted, tmp_path):
    fitted.save(tmp_path)
    loaded = Predictor.load(tmp_path)
    assert_frame_equal(loaded.predict(["u3", "x"], k=6), fitted.predict(["u3", "x"], k=6))
    assert loaded.config == fitted.config
    assert loaded.best_model == fitted.best_model
    assert fitted.save(tmp_path).name == "000002"


def test_a_bundle_with_an_unusable_config_is_refused(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(PredictorConfig, "model_dump", lambda self, mode: {"modles": []})
    fitted.save(tmp_path)
    with pytest.raises(BundleError, match="modles"):
        Predictor.load(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"models": ("populrity",)}, "Did you mean popularity"),
        ({"models": ("popularity-tensorflow",)}, "engine"),
        ({"models": ("popularity", "popularity")}, "twice"),
        ({"models": ()}, "at least 1"),
        ({"repeat": "sometimes"}, "sometimes"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"epoch": 3}, "epoch"),
        ({"options": {"lstm-rnn": {"sise": 3}}, "models": ("lstm-rnn",)}, "sise"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_is_read(wrong, says):
    with pytest.raises(ConfigError, match=says):
        Predictor.fit("no-such-file.csv", config=PredictorConfig.of(**wrong))


def test_wrong_questions_are_refused(fitted):
    with pytest.raises(ConfigError, match="popularity, personal-frequency"):
        fitted.predict(["u1"], model="lstm-rnn")
    with pytest.raises(ConfigError, match="starts at 1"):
        fitted.predict(["u1"], k=0)


def test_on_a_world_no_model_expects_more_than_the_limit():
    predictor = Predictor.fit("world:uniform", users=500, config=PredictorConfig(models=COUNTING))
    limit = predictor.facts["limit"]
    for row in predictor.leaderboard:
        assert row.test.metrics["expected_accuracy"] < limit["accuracy"]
        assert 0 <= row.test.metrics["expected_ece"] < 0.1
        assert row.test.metrics["loss"] > limit["loss"]


def test_the_limit_is_not_told_where_it_does_not_hold():
    config = PredictorConfig(models=("popularity",), repeat="exclude")
    predictor = Predictor.fit("world:uniform", users=500, config=config)
    assert predictor.facts["limit"] is None
    assert "expected_accuracy" not in predictor.leaderboard[0].test.metrics


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    with run_lock(tmp_path), pytest.raises(RunLockedError, match="pid"):
        Predictor.fit(shop_log(), config=PredictorConfig(models=COUNTING), run_folder=tmp_path)


def test_after_publishing_the_same_folder_takes_other_data(tmp_path):
    config = PredictorConfig(models=("lstm-rnn",), epochs=1, options=TINY)
    for seed in (1, 2):
        predictor = Predictor.fit(shop_log(seed=seed), config=config, run_folder=tmp_path / "run")
        predictor.save(tmp_path)
        assert not (tmp_path / "run" / "lstm-rnn" / "checkpoints").exists()
        assert (tmp_path / "run" / "lstm-rnn" / "log.jsonl").stat().st_size > 0
    assert Predictor.load(tmp_path).facts["fingerprint"] == predictor.facts["fingerprint"]


RUN = """
import sys
from pathlib import Path
from nextbuy import Predictor, PredictorConfig
from tests.predictor.test_predictor import TINY
from tests.shop import shop_log

config = PredictorConfig(models=("popularity", "lstm-rnn"), epochs=2, options=TINY)
out = Path(sys.argv[1])
Predictor.fit(shop_log(), config=config, run_folder=out / "run").save(out)
"""


def run_as_program(out, **environment):
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(out)], env=os.environ | environment, check=False
    )
    return done.returncode


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert run_as_program(out) == 0
    return out


@pytest.mark.parametrize("moment", ["after_step:2", "after_manifest:3"])
def test_a_killed_run_given_again_publishes_the_same_weights(never_killed, tmp_path, moment):
    """The third manifest is that of the bundle, after those of two epochs."""
    assert run_as_program(tmp_path, NEXTBUY_FAILPOINT=moment) == -signal.SIGKILL
    assert not (tmp_path / "versions" / "LATEST").exists()
    assert run_as_program(tmp_path) == 0
    weights = "versions/000001/models/lstm-rnn/weights.safetensors"
    assert (tmp_path / weights).read_bytes() == (never_killed / weights).read_bytes()
    asked = [Predictor.load(out).predict(["u1"], k=6) for out in (never_killed, tmp_path)]
    assert_frame_equal(*asked)


def test_equal_purchases_give_equal_bundles_in_whatever_order_the_rows_are(tmp_path):
    """The hash leaves out the moment, the name of the file and the seconds, and nothing else."""
    log = shop_log()
    shuffled = log.sample(fraction=1.0, shuffle=True, seed=3)
    log.write_csv(tmp_path / "log.csv")
    shuffled.write_parquet(tmp_path / "other.parquet")
    config = PredictorConfig(models=(*COUNTING, "tifu-knn", "lstm-rnn"), options=TINY, epochs=1)

    def bundle_of(data, name, config=config):
        return Predictor.fit(data, config=config).save(tmp_path / name)

    first = bundle_of(str(tmp_path / "log.csv"), "a")
    again = bundle_of(str(tmp_path / "log.csv"), "b")
    other = bundle_of(str(tmp_path / "other.parquet"), "c")
    assert content_hash(first) == content_hash(again) == content_hash(other)
    reseeded = config.model_copy(update={"seed": 1})
    assert content_hash(bundle_of(shuffled, "d", reseeded)) != content_hash(first)


def test_a_loaded_predictor_knows_when_and_from_what_it_was_made(fitted, tmp_path):
    fitted.save(tmp_path)
    loaded = Predictor.load(tmp_path)
    assert loaded.facts["source"] == "DataFrame"
    assert loaded.facts["created"].startswith("20")
    for before, after in zip(fitted.facts["leaderboard"], loaded.facts["leaderboard"], strict=True):
        assert after["fit_seconds"] == before["fit_seconds"]
        assert after["test"]["loss"] == before["test"]["loss"]


def test_an_engine_that_nothing_would_use_is_refused():
    """The balanced preset has no lstm-rnn; the engine would be dropped without a word."""
    options = {"lstm-rnn": {"engine": "tensorflow"}}
    with pytest.raises(ConfigError, match="trains lstm-rnn, which is not among popularity"):
        PredictorConfig.of(options=options)
    assert "lstm-rnn" in PredictorConfig.of(preset="best", options=options).chosen_models
    assert PredictorConfig.of(models=["lstm-rnn"], options=options).options == options
