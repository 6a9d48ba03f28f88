"""`nextbuy due` as a user types it."""

import json

import polars as pl
import pytest

from nextbuy.cli.app import main
from tests.shop import shop_log


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    shop_log().write_csv(folder / "log.csv")
    with pytest.raises(SystemExit) as left:
        main(["train", str(folder / "log.csv"), "--out", str(folder / "b"), "--models",
              "popularity", "--repeat", "cooldown:own"])  # fmt: skip
    assert left.value.code == 0
    return folder / "b"


def test_a_person_reads_what_is_due(bundle, run):
    code, out, err = run("due", bundle, "--user", "u7", "--user", "ghost", "--within-days", 7)
    assert code == 0
    assert "Due again" in out and "within 7 days" in out and "u7" in out
    assert "'ghost' is not in the training log: nothing is due" in err


def test_json_and_files_have_the_whole_table(bundle, tmp_path, run):
    code, out, _ = run("due", bundle, "--user", "u7", "--k", 2, "--as-of", "2025-02-01", "--json")
    found = json.loads(out)
    assert code == 0 and len(found["due"]) == 2
    assert 0 < found["due"][0]["p_due_within"] <= 1
    assert run("due", bundle, "--out", tmp_path / "due.parquet")[0] == 0
    assert pl.read_parquet(tmp_path / "due.parquet")["user_id"].n_unique() == 60


def test_a_bundle_with_own_clocks_predicts_without_a_moment(bundle, run):
    code, out, _ = run("predict", bundle, "--user", "u7", "--json")
    assert code == 0
    assert json.loads(out)["predictions"]


@pytest.mark.parametrize(
    ("flags", "code", "reason"),
    [
        (("--within-days", "0"), 1, "more than 0"),
        (("--as-of", "soon"), 2, "--as-of"),
        (("--out", "x.xlsx"), 1, "neither a .csv nor a .parquet"),
    ],
)
def test_what_makes_no_sense_is_refused(bundle, run, flags, code, reason):
    found, _, err = run("due", bundle, *flags)
    assert found == code and reason in err
