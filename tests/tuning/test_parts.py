"""The parts of tuning, each on its own: spaces, the verdict, and config files."""

import math
import tomllib

import pytest

from nextbuy.errors import ConfigError
from nextbuy.evaluation.comparison import Difference
from nextbuy.models.registry import MODELS, create, search_space
from nextbuy.models.search_space import Choice, Range, nested
from nextbuy.tuning.space import declared_space
from nextbuy.tuning.toml import to_toml
from nextbuy.tuning.verdict import NOISE, verdict


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
