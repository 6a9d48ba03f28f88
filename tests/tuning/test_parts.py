"""The parts of tuning, each on its own: spaces, the verdict, and config files."""

import math
import tomllib

import numpy as np
import polars as pl
import pytest

from nextbuy.data.options import ReadOptions
from nextbuy.errors import ConfigError
from nextbuy.evaluation.comparison import Difference
from nextbuy.evaluation.tuning_pictures import unbeaten
from nextbuy.models.registry import MODELS, create, search_space
from nextbuy.models.search_space import Choice, Range, nested
from nextbuy.predictor.config import PredictorConfig
from nextbuy.predictor.learning import read_and_split
from nextbuy.progress import SilentProgress
from nextbuy.tuning.limit import TimeLimit
from nextbuy.tuning.shared_split import load_split, save_split
from nextbuy.tuning.space import declared_space
from nextbuy.tuning.toml import to_toml
from nextbuy.tuning.verdict import NOISE, verdict
from tests.shop import shop_log


def ends(part):
    return part.values if isinstance(part, Choice) else (part.low, part.high)


@pytest.mark.parametrize("name", [name for name in MODELS if search_space(name)])
def test_every_end_of_a_space_is_a_config_that_the_model_takes(name):
    for path, part in search_space(name).items():
        for value in ends(part):
            assert create(name, **nested({path: value})).config is not None, (path, value)


def test_the_networks_and_the_counting_models_with_parameters_have_a_space():
    without = {name for name in MODELS if not search_space(name)}
    assert without == {"recency-popularity"}


def test_a_model_that_chooses_everything_itself_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"nothing to tune in recency-popularity.*validation"):
        declared_space("recency-popularity")


def test_a_model_that_is_not_there_is_refused_and_a_near_one_named():
    with pytest.raises(ConfigError, match="Did you mean transformer"):
        declared_space("transfomer")


def test_a_space_grows_until_it_holds_the_default():
    assert Range(low=1, high=5).including(9) == Range(low=1, high=9)
    assert Range(low=0.1, high=0.5, log=True).including(0.3) == Range(low=0.1, high=0.5, log=True)
    assert Choice((512, 1024)).including(300).values == (512, 1024, 300)
    assert Choice((512, 1024)).including(512).values == (512, 1024)


@pytest.mark.parametrize(
    ("metric", "difference", "low", "high", "starts"),
    [
        ("loss", -0.02, -0.03, -0.01, "tuned is better than the default: loss lower by 0.0200"),
        ("loss", 0.02, 0.01, 0.03, "tuned is worse than the default: loss higher by 0.0200"),
        ("ndcg@10", 0.01, 0.002, 0.018, "tuned is better than the default: ndcg@10 higher by"),
        ("ndcg@10", -0.01, -0.018, -0.002, "tuned is worse than the default: ndcg@10 lower by"),
        ("loss", -0.02, -0.05, 0.01, NOISE),
        ("loss", -0.02, -0.04, 0.0, NOISE),
        ("ndcg@10", math.nan, math.nan, math.nan, NOISE),
    ],
)
def test_a_gain_whose_interval_holds_0_is_called_noise(metric, difference, low, high, starts):
    found = verdict(metric, Difference(difference=difference, low=low, high=high))
    assert found.startswith(starts)
    assert ("better" in found or "worse" in found) == (starts != NOISE)


def test_what_is_written_as_toml_is_read_back_the_same():
    table = {
        "models": ["lstm-rnn", 'a "quoted" \\ name\n'],
        "seed": 0,
        "rate": 1e-05,
        "is": True,
        "options": {
            "lstm-rnn": {"dropout": 0.25, "training": {"tokens": 512}},
            "odd key.": {"a": 1},
        },
    }
    text = to_toml({**table, "nothing": None}, comment="one\ntwo")
    assert text.startswith("# one\n# two\n")
    assert tomllib.loads(text) == table


def test_a_limit_keeps_time_back_for_the_comparison():
    # 10 s for pictures; the test has twice the cases of validation, which is asked again, and all
    # of it may take 1.3 times as long: 1.3 * (1 + 2) * (1 + 2) = 11.7 s for scores, 1.3 * (10 + 20)
    # = 39 s for second fits.
    default, best = {"seconds": 10.0, "scoring": 1.0}, {"seconds": 20.0, "scoring": 2.0}
    limit = TimeLimit(end=1000.0, seconds=100.0, refits=True, test_share=2.0)
    assert limit.of_refits(default, best) == pytest.approx(1000 - 10 - 11.7)
    assert limit.of_trials(default, best) == pytest.approx(1000 - 10 - 11.7 - 39)


def test_second_fits_that_would_take_most_of_a_limit_are_left_out():
    facts = {"seconds": 10.0, "scoring": 1.0}  # 1.3 * 20 = 26 s for second fits
    short = TimeLimit(end=1000.0, seconds=60.0, refits=True)
    assert short.of_trials(facts, facts) == short.of_refits(facts, facts)
    without = TimeLimit(end=1000.0, seconds=600.0, refits=False)
    assert without.of_trials(facts, facts) == without.of_refits(facts, facts)


def test_without_a_limit_there_is_time_for_everything():
    facts = {"seconds": 10.0, "scoring": 1.0}
    limit = TimeLimit(refits=True)
    assert limit.of_trials(facts, facts) == math.inf
    assert limit.can_refit(facts, facts)


@pytest.mark.parametrize(("metric", "numbers"), [("loss", [2, 0, 3]), ("accuracy", [2, 1])])
def test_what_no_other_trial_beats_in_both_is_joined(metric, numbers):
    table = pl.DataFrame(
        {"number": [0, 1, 2, 3], "value": [1.5, 9.0, 2.0, 1.0], "seconds": [3.0, 4.0, 1.0, 8.0]}
    )
    assert unbeaten(table, metric)["number"].to_list() == numbers


@pytest.mark.parametrize("split", ["temporal", "leave-last-out"])
def test_workers_read_the_split_that_was_written(split, tmp_path):
    config = PredictorConfig.of(models=("markov",), split=split)
    whole = read_and_split(shop_log(), config, ReadOptions(), None, SilentProgress())[2]
    save_split(whole, tmp_path)
    read = load_split(tmp_path)
    assert read.catalog.table.equals(whole.catalog.table)
    for name in ("items", "times", "baskets", "offsets", "prices"):
        for one, other in (
            (read.train, whole.train),
            (read.validation.histories, whole.validation.histories),
        ):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("as_of", "target_items", "target_offsets", "target_values", "target_times"):
        found, wanted = getattr(read.validation, name), getattr(whole.validation, name)
        assert (found is None) == (wanted is None)
        assert found is None or (found.dtype, found.tolist()) == (wanted.dtype, wanted.tolist())
    assert read.validation.until == whole.validation.until
    assert len(read.test) == 0
