"""A rolling backtest: windows that follow one another, and nobody who sees the future."""

import json
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.cli.app import main
from nextbuy.data.encoding import encode
from nextbuy.data.options import ReadOptions
from nextbuy.data.reading import read_purchases
from nextbuy.errors import ConfigError, SplitError
from nextbuy.predictor.backtest import backtest, fold_splits, mean_scores
from nextbuy.splitting.choice import choose_split
from tests.shop import shop_log

CONFIG = PredictorConfig(models=("popularity", "personal-frequency"))


@pytest.fixture(scope="module")
def folds():
    return backtest(shop_log(), folds=3, config=CONFIG)


def test_windows_follow_one_another_and_the_newest_is_the_automatic_split(folds):
    assert [a.test_end for a in folds[:-1]] == [b.test_start for b in folds[1:]]
    lengths = {(fold.test_end - fold.test_start) for fold in folds}
    assert len(lengths) == 1
    alone = Predictor.fit(shop_log(), config=CONFIG)
    for mine, other in zip(folds[-1].rows, alone.leaderboard, strict=True):
        assert mine.model == other.model
        assert mine.test.metrics["loss"] == pytest.approx(other.test.metrics["loss"])


def test_no_fold_sees_what_lies_after_its_moment():
    encoded = encode(read_purchases(shop_log()))
    for split, start, end in fold_splits(encoded, 3):
        assert split.train.times.max() < start
        assert split.validation.histories.times.max() < start
        assert split.test.histories.times.max() < start
        assert (split.test.target_times >= start).all()
        assert (split.test.target_times < end).all()


def test_an_older_fold_is_that_of_the_log_as_it_was_then(folds):
    """Cut the log by hand and split it at the same moments."""
    fold = folds[0]
    log = shop_log().filter(pl.col("timestamp") < fold.test_end)
    encoded = encode(read_purchases(log))
    (split, start, _), *_ = fold_splits(encode(read_purchases(shop_log())), 3)
    before = folds[1].test_start - folds[0].test_start
    by_hand = choose_split(
        "temporal", encoded.catalog, encoded.histories,
        test_start=datetime.fromtimestamp(start / 1e6, UTC),
        validation_start=datetime.fromtimestamp(start / 1e6, UTC) - before,
    )  # fmt: skip
    assert np.array_equal(split.test.target_items, by_hand.test.target_items)


def test_the_mean_is_over_folds(folds):
    by_hand = np.mean([fold.rows[0].test.metrics["loss"] for fold in folds])
    assert mean_scores(folds, "loss")["popularity"] == pytest.approx(by_hand)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="at least 1 fold; asked for 0"):
        backtest(shop_log(), folds=0, config=CONFIG)
    with pytest.raises(SplitError, match=r"leaves too little\. Ask for fewer"):
        backtest(shop_log(), folds=40, config=CONFIG)
    places = shop_log().sort("timestamp").with_columns(timestamp=pl.int_range(pl.len()))
    with pytest.raises(SplitError, match="needs dates"):
        backtest(places, folds=2, config=CONFIG, options=ReadOptions(time="order"))


def test_the_command_prints_each_moment_and_the_mean(tmp_path, capsys):
    shop_log().write_csv(tmp_path / "log.csv")
    Predictor.fit(str(tmp_path / "log.csv"), config=CONFIG).save(tmp_path / "b")

    def run(*more):
        with pytest.raises(SystemExit) as left:
            main(["evaluate", str(tmp_path / "b"), str(tmp_path / "log.csv"), *more])
        assert left.value.code == 0
        return capsys.readouterr().out

    found = json.loads(run("--backtest", "2", "--json"))
    assert len(found["folds"]) == 2
    assert set(found["means"]["ndcg@10"]) == {"popularity", "personal-frequency", "blend"}
    shown = run("--backtest", "2")
    for fold in found["folds"]:
        assert fold["test_start"][:10] in shown
    assert f"{found['means']['loss']['blend']:.4f}" in shown
