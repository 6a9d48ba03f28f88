"""Models by name: a near miss is named, nothing is looked up that is not in the list."""

import subprocess
import sys

import pytest

from nextbuy.errors import ConfigError
from nextbuy.models.registry import MODELS, create, load
from nextbuy.testing.contract import small_catalog


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("personal-frequencies", "personal-frequency"),
        ("lstm_rnn", "lstm-rnn"),
        ("LSTM-RNN", "lstm-rnn"),
        ("popularty", "popularity"),
    ],
)
def test_a_near_miss_is_named(asked, meant):
    with pytest.raises(ConfigError, match=rf"{asked}.*Did you mean {meant}\?"):
        create(asked)


def test_a_far_miss_is_told_what_there_is():
    with pytest.raises(ConfigError) as told:
        create("oracle")
    assert "Did you mean" not in str(told.value)
    assert all(name in str(told.value) for name in MODELS)


@pytest.mark.parametrize(
    ("model", "config", "named"),
    [
        ("popularity", {"smothing": 2}, "smothing"),
        ("personal-frequency", {"trusted": 0.5}, "trusted"),
        ("lstm-rnn", {"lstm_sizes": 8}, "lstm_sizes"),
        ("lstm-rnn", {"training": {"epoch": 3}}, "training.epoch"),
        ("lstm-rnn", {"engine": "jax"}, "engine"),
    ],
)
def test_an_unknown_key_or_choice_is_an_error_that_names_it(model, config, named):
    with pytest.raises(ConfigError, match=f"config of {model} is wrong at '{named}'"):
        create(model, **config)


@pytest.mark.parametrize("name", MODELS)
def test_every_name_gives_the_model_that_calls_itself_so(name):
    assert create(name).name == name


def test_a_wrong_value_is_an_error_that_shows_it():
    with pytest.raises(ConfigError, match=r"smoothing.*-1"):
        create("popularity", smoothing=-1)


@pytest.mark.parametrize("name", ["os.system", "nextbuy.models.popularity:Popularity", "", "../x"])
def test_M17_a_dotted_path_is_no_model(name, tmp_path):
    with pytest.raises(ConfigError, match="No model is called"):
        load(name, tmp_path, small_catalog(3))


def test_counting_loads_no_engine():
    code = (
        "import sys; from nextbuy.models.registry import create; create('popularity');"
        "print([m for m in ('torch', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
