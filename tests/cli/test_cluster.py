"""`--cluster`, where there is no Ray and where there is no cluster; and `nextbuy score`."""

import json
import subprocess
import sys

import polars as pl
import pytest

from tests.shop import shop_log


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.csv"
    shop_log(40).write_csv(path)
    return path


@pytest.mark.parametrize("command", ["train", "score", "prepare", "tune"])
def test_without_ray_the_command_says_how_to_get_it(command, log, tmp_path, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "nextbuy.cluster.connecting", raising=False)
    code, _, err = run(command, log, "--out", tmp_path / "b", "--cluster", "auto")
    assert code == 1
    assert "--cluster needs ray, which is not installed." in err
    assert "pip install 'nextbuy[cluster]'" in " ".join(err.split())


def test_without_cluster_nothing_imports_ray(log, tmp_path):
    code = (
        "import sys; from nextbuy.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as left: print(left.code, 'ray' in sys.modules)"
    )
    words = ["train", log, "--models", "popularity", "--out", tmp_path / "b"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 False"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "There is no Ray cluster at '127.0.0.1:1': Connection refused"),
        ("ray://10.0.0.1", "ray://... are not taken"),
        ("somewhere", "is no address: write HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_refused(address, said, log, tmp_path, run):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'nextbuy[cluster]'")
    code, _, err = run("train", log, "--out", tmp_path / "b", "--cluster", address)
    assert code == 1
    assert said in " ".join(err.split())


def test_score_writes_everybody_or_who_is_asked_for(log, tmp_path, run):
    bundle = tmp_path / "bundle"
    assert run("train", log, "--models", "markov", "--out", bundle)[0] == 0
    code, out, err = run("score", bundle, "--out", tmp_path / "all", "--k", 2, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["users"], told["rows"], told["model"]) == (40, 80, "markov")
    everybody = pl.read_parquet(tmp_path / "all" / "*.parquet")
    ids = tmp_path / "ids.txt"
    ids.write_text("u7\nu3\nnobody\n")
    code, _, err = run("score", bundle, "--out", tmp_path / "few", "--k", 2, "--user-ids", ids)
    assert code == 0
    assert "1 users are not in the training log" in err
    few = pl.read_parquet(tmp_path / "few" / "*.parquet")
    assert few["user_id"].unique().sort().to_list() == ["nobody", "u3", "u7"]
    for user in ("u3", "u7"):
        same = [table.filter(pl.col("user_id") == user) for table in (few, everybody)]
        assert same[0].equals(same[1])
