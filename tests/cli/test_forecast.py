"""`nextbuy forecast` as a user types it."""

import json

import polars as pl
import pytest

from nextbuy.cli.app import main
from tests.shop import shop_log


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    odd = {"u1": '=HYPERLINK("x")', "u2": "0042"}
    shop_log().with_columns(pl.col("user_id").replace(odd)).write_csv(folder / "log.csv")
    with pytest.raises(SystemExit) as left:
        main(["train", str(folder / "log.csv"), "--out", str(folder / "b"), "--models",
              "popularity"])  # fmt: skip
    assert left.value.code == 0
    return folder / "b"


def test_everybody_is_in_the_file_and_no_cell_is_a_formula(bundle, tmp_path, run):
    code, out, _ = run("forecast", bundle, "--out", tmp_path / "f.csv")
    assert code == 0
    assert "forecasts of 60 users" in out
    table = pl.read_csv(tmp_path / "f.csv", infer_schema=False)
    assert table.height == 60
    assert '\'=HYPERLINK("x")' in table["user_id"].to_list()
    assert "0042" in table["user_id"].to_list()
    assert table["as_of"][0].endswith("Z")


def test_a_parquet_file_has_ids_byte_for_byte(bundle, tmp_path, run):
    assert run("forecast", bundle, "--out", tmp_path / "f.parquet")[0] == 0
    table = pl.read_parquet(tmp_path / "f.parquet")
    assert '=HYPERLINK("x")' in table["user_id"].to_list()
    assert table.schema["as_of"] == pl.Datetime("us", "UTC")


def test_a_person_reads_a_table(bundle, run):
    code, out, _ = run("forecast", bundle)
    assert code == 0
    assert "Forecasts from 2025-03-3" in out
    assert "the 20 of 60 users who most probably buy within 30 days" in out


def test_json_has_the_answers_and_how_good_they_are(bundle, run):
    code, out, err = run(
        "forecast", bundle, "--user", "0042", "--user", "ghost", "--as-of", "2025-02-01",
        "--horizon-days", 30, "--lifetime-days", 200, "--discount", 0.5, "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert [row["user_id"] for row in found["forecasts"]] == ["0042", "ghost"]
    assert found["forecasts"][0]["as_of"] == "2025-02-01T00:00:00+00:00"
    assert found["forecasts"][0]["expected_purchases_30d"] > 1
    assert found["forecasts"][0]["lifetime_value_200d"] > 1.5
    assert found["forecasts"][1]["p_buy_7d"] is None
    assert found["unknown_users"] == ["ghost"]
    assert "log_likelihood" in found["timing"]["scores"]["blend"]
    assert "'ghost' is not in the training log" in err


def test_raw_histories_are_forecast(bundle, tmp_path, run):
    history = tmp_path / "history.csv"
    history.write_text("user_id,item_id,timestamp\nnew,tea,2025-03-01\nnew,tea,2025-03-08\n")
    code, out, err = run("forecast", bundle, "--history", history, "--json")
    assert code == 0
    assert 0 < json.loads(out)["forecasts"][0]["p_buy_30d"] <= 1
    assert "these purchases have no prices" in err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--as-of", "soon"), "'soon' is no date"),
        (("--out", "x.xlsx"), "neither a .csv nor a .parquet"),
        (("--user", "a", "--history", "b"), "not both"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(bundle, run, flags, reason):
    code, _, err = run("forecast", bundle, *flags)
    assert code == 1
    assert reason in err


def test_a_moment_after_the_log_is_said(bundle, run):
    assert "after the end of the log" in run("forecast", bundle, "--as-of", "2026-01-01")[2]
