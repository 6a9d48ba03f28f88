"""`prepare`, and what is done with what it made."""

import json

import polars as pl
import pytest

from tests.shop import shop_log


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "log.parquet"
    shop_log(30).write_parquet(path, row_group_size=100)
    return path


def scores(printed):
    """What train says of each model, without the seconds that it took."""
    return [
        {name: value for name, value in row.items() if name != "fit_seconds"}
        for row in json.loads(printed)["leaderboard"]
    ]


def test_a_model_learns_from_prepared_files_what_it_learns_from_the_log(source, tmp_path, run):
    prepared = tmp_path / "prepared"
    code, out, err = run("prepare", source, "--out", prepared, "--buckets", 3)
    assert code == 0
    assert f"{shop_log(30).height:,} purchases of 30 users and 6 items" in out
    assert f"next:   nextbuy train {prepared} --out BUNDLE" in out
    assert "of memory at once" in err
    assert f"rows in {shop_log(30).height:,} = kept" in err
    models = ("--models", "popularity,personal-frequency", "--json")
    found = {}
    for name, data in (("files", prepared), ("memory", source)):
        code, out, _ = run("train", data, "--out", tmp_path / name, *models)
        assert code == 0
        found[name] = scores(out)
        assert json.loads(out)["rows"]["kept"] == shop_log(30).height
    assert found["files"] == found["memory"]
    code, out, _ = run("evaluate", tmp_path / "files", prepared, "--json")
    assert code == 0
    best = min(found["files"], key=lambda row: row["validation"]["loss"])
    assert json.loads(out)["metrics"]["loss"] == best["test"]["loss"]


def test_json_tells_the_account_and_the_forecast(source, tmp_path, run):
    shop = pl.read_parquet(source)
    shop.with_columns(pl.lit(-1.0).alias("price"))[:5].extend(shop[5:]).write_parquet(source)
    rejects = tmp_path / "rejects.csv"
    arguments = ("prepare", source, "--out", tmp_path / "p", "--json", "--rejects", rejects)
    code, out, _ = run(*arguments)
    assert code == 0
    found = json.loads(out)
    assert found["rows"] == {
        "in": shop.height, "kept": shop.height - 5, "rejected": 5, "duplicates": 0,
    }  # fmt: skip
    assert found["forecast"]["rows"] == shop.height
    assert pl.read_csv(rejects)["line"].to_list() == [1, 2, 3, 4, 5]
    copied = tmp_path / "copied.csv"
    run("train", tmp_path / "p", "--out", tmp_path / "b", "--models", "popularity", "--rejects",
        copied)  # fmt: skip
    assert copied.read_bytes() == rejects.read_bytes()
    again = json.loads(run(*arguments)[1])
    assert again["fingerprint"] == found["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--memory-limit", "100MiB"), "Raise --memory-limit"),
        (("--memory-limit", "lots"), "is no size"),
        (("--level", "category"), "no column category"),
        (("--query", "SELECT 1"), "is no file"),
    ],
)
def test_what_cannot_be_done_is_one_line(source, tmp_path, run, arguments, says):
    code, out, err = run("prepare", source, "--out", tmp_path / "p", *arguments)
    assert code == 1
    assert out == ""
    assert says in err.splitlines()[-1]


def test_the_doctor_asks_for_the_log_itself(source, tmp_path, run):
    run("prepare", source, "--out", tmp_path / "p")
    code, _, err = run("doctor", tmp_path / "p")
    assert code == 1
    assert "Give the doctor the log that it was prepared from" in err
