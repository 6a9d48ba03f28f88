"""Models by name: a near miss is named, nothing is looked up that is not in the list."""

import subprocess
import sys

import pytest

from nextbuy.errors import ConfigError
from nextbuy.models.registry import create, load
from nextbuy.testing.contract import small_catalog


def test_a_near_miss_is_named():
    with pytest.raises(ConfigError, match="Did you mean personal-frequency"):
        create("personal-frequencies")


def test_an_unknown_key_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match="smothing"):
        create("popularity", smothing=2)


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
