"""`nextbuy audience` as a user types it."""

import json

import polars as pl
import pytest

from nextbuy.cli.app import main
from tests.shop import shop_log

COLUMNS = ["user_id", "rank", "probability", "expected_purchases", "expected_value", "group"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    odd = {"u1": '=HYPERLINK("x")', "u2": "0042"}
    shop_log().with_columns(pl.col("user_id").replace(odd)).write_csv(folder / "log.csv")
    with pytest.raises(SystemExit) as left:
        main(["train", str(folder / "log.csv"), "--out", str(folder / "b"), "--models",
              "personal-frequency"])  # fmt: skip
    assert left.value.code == 0
    return folder / "b"


def test_a_person_reads_who_comes_first(bundle, run):
    code, out, _ = run("audience", bundle, "--item", "tea", "--within-days", "7")
    assert code == 0
    assert "60 users, of whom" in out and "0 are held out" in out
    assert "the first 20 of 60" in out


def test_the_file_of_one_campaign_is_left_out_of_the_next(bundle, tmp_path, run):
    """Formulas are made harmless on the way out, and known again on the way in."""
    first, second = tmp_path / "a.csv", tmp_path / "b.parquet"
    assert run("audience", bundle, "--item", "tea", "--size", "40", "--out", first)[0] == 0
    assert run("audience", bundle, "--item", "tea", "--exclude-file", first, "--exclude", "0042",
               "--out", second)[0] == 0  # fmt: skip
    written, rest = pl.read_csv(first, infer_schema=False), pl.read_parquet(second)
    assert written.columns == rest.columns == COLUMNS
    assert written.height == 40
    assert not written["user_id"].str.contains("^=").any()
    addressed = set(written["user_id"].str.strip_prefix("'"))
    assert addressed.isdisjoint(rest["user_id"]) and "0042" not in rest["user_id"]
    assert len(addressed | set(rest["user_id"]) | {"0042"}) == 60


def test_ids_are_read_from_lines_too(bundle, tmp_path, run):
    (tmp_path / "ids.txt").write_text("0042\n\nu3\n")
    out = run(
        "audience", bundle, "--item", "tea", "--exclude-file", tmp_path / "ids.txt", "--json"
    )[1]
    found = json.loads(out)
    assert found["num_users"] == 58
    assert found["calibration"]["num_cases"] > 0
    told = [row["probability"] for row in found["audience"]]
    assert told == sorted(told, reverse=True)
    assert found["expected_buyers"] == pytest.approx(sum(told))


def test_a_long_time_is_said_to_be_beyond_what_was_learnt(bundle, run):
    err = run("audience", bundle, "--item", "tea", "--within-days", "60")[2]
    assert "calibrated for up to 14 days; 60 days are beyond that" in err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ((), "one item, one platform or one category; nothing was named"),
        (("--item", "te"), "'te' is not among the 6 that were bought; the nearest are 'tea'"),
        (("--platform", "Zomato"), "this log has no platform"),
        (("--item", "tea", "--out", "x.xlsx"), "neither a .csv nor a .parquet"),
        (("--item", "tea", "--exclude-file", "nowhere.csv"), "cannot be read from nowhere.csv"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(bundle, run, flags, reason):
    code, _, err = run("audience", bundle, *flags)
    assert code == 1
    assert reason in " ".join(err.split())
