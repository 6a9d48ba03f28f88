"""The commands as a user types them: what is printed where, and with which exit code."""

import json
import re

import numpy as np
import polars as pl
import pytest

from nextbuy.cli.app import main
from tests.shop import shop_log

COMMANDS = (
    "demo",
    "doctor",
    "prepare",
    "train",
    "evaluate",
    "predict",
    "forecast",
    "report",
    "export",
    "update",
)
COUNTING = ("--models", "popularity,personal-frequency")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.csv"
    shop_log().write_csv(path)
    return path


@pytest.fixture
def bundle(log, tmp_path, run):
    out = tmp_path / "bundle"
    assert run("train", log, "--out", out, *COUNTING, "--json")[0] == 0
    return out


def test_what_takes_more_memory_than_it_may_is_left_out_and_named(log, tmp_path, run):
    models = ("--models", "popularity,ease")
    code, out, _ = run("train", log, "--out", tmp_path / "b", *models, "--memory-limit", 1)
    assert code == 0
    assert "ease was left out: The memory is too short" in " ".join(out.split())
    code, out, _ = run("train", log, "--out", tmp_path / "c", *models, "--memory-limit", 10**6)
    assert code == 0
    assert "ease was left out" not in " ".join(out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "--json" in out
    assert "Usage" in out


def test_the_version_is_that_of_the_package(run):
    code, out, _ = run("--version")
    assert code == 0
    assert re.fullmatch(r"nextbuy \d+\.\d+\.\d+\n", out)


def test_doctor_says_whether_the_order_matters(tmp_path, run):
    """Everybody walks round in a circle, or buys at random."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 6, 300)
    circle = [(f"u{u}", f"i{(s + n) % 6}", n) for u, s in enumerate(starts) for n in range(8)]
    chance = [(user, f"i{rng.integers(6)}", n) for user, _, n in circle]
    found, words = {}, {}
    for name, rows in (("circle", circle), ("chance", chance)):
        path = tmp_path / f"{name}.csv"
        pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(path)
        code, out, _ = run("doctor", path, "--time", "order", "--json")
        assert code == 0
        found[name] = json.loads(out)["order"]
        words[name] = " ".join(run("doctor", path, "--time", "order")[1].split())
    assert found["circle"]["matters"]
    assert found["circle"]["gain"] > 1
    assert "yes: what was bought last is worth" in words["circle"]
    assert not found["chance"]["matters"]
    assert abs(found["chance"]["gain"]) < 3 * found["chance"]["standard_error"]
    assert "no: shuffled histories tell as much" in words["chance"]


def test_train_with_json_prints_one_object_and_nothing_else(log, tmp_path, run):
    code, out, err = run("train", log, "--out", tmp_path / "b", *COUNTING, "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {
        "bundle", "hash", "protocol", "rows", "limit", "leaderboard", "blend", "skipped",
        "scored_share", "timing",
    }  # fmt: skip
    assert found["rows"]["in"] == found["rows"]["kept"] == shop_log().height
    models = [row["model"] for row in found["leaderboard"]]
    assert models == ["popularity", "personal-frequency", "blend"]
    assert sum(row["weight"] or 0 for row in found["leaderboard"]) == pytest.approx(1)
    for row in found["leaderboard"]:
        assert {"loss", "accuracy", "precision", "recall", "ndcg@10"} <= set(row["test"])
        low, high = row["intervals"]["accuracy"]
        assert low <= row["test"]["accuracy"] <= high
    assert (tmp_path / "b" / "versions" / "000001" / "manifest.json").exists()
    assert "scoring" in err


def test_train_without_json_says_protocol_rows_scores_and_what_to_do_next(log, tmp_path, run):
    code, out, err = run("train", log, "--out", tmp_path / "b", *COUNTING)
    assert code == 0
    assert f"rows in {shop_log().height:,} = kept" in err
    assert "protocol: temporal" in out
    assert "blend is best on validation" in out
    assert "blend = " in out
    assert f"next:   nextbuy predict {tmp_path / 'b'}" in out


def test_evaluate_agrees_with_train_and_tells_its_slices(log, tmp_path, run):
    _, trained, _ = run("train", log, "--out", tmp_path / "b", *COUNTING, "--json")
    code, out, _ = run("evaluate", tmp_path / "b", log, "--json")
    evaluated = json.loads(out)
    assert code == 0
    assert {"protocol", "metrics", "intervals", "slices"} <= set(evaluated)
    for row in json.loads(trained)["leaderboard"]:
        assert evaluated["models"][row["model"]] == pytest.approx(row["test"])


def test_predict_answers_known_and_unknown_users(bundle, run):
    code, out, err = run("predict", bundle, "--user", "u1", "--user", "ghost", "--k", 2, "--json")
    found = json.loads(out)
    assert code == 0
    assert [row["user_id"] for row in found["predictions"]] == ["u1", "u1", "ghost", "ghost"]
    assert found["unknown_users"] == ["ghost"]
    assert "'ghost' is not in the training log" in err


def test_predict_answers_histories_from_a_file(bundle, tmp_path, run):
    history = tmp_path / "history.csv"
    history.write_text("user_id,item_id,timestamp\nnew,0042,2025-03-01\nnew,x,2025-03-02\n")
    code, out, err = run("predict", bundle, "--history", history, "--k", 1, "--json")
    assert code == 0
    assert json.loads(out)["predictions"][0]["item_id"] == "0042"
    assert "1 purchases of items that the bundle does not know" in err


def test_ids_are_printed_as_they_are(tmp_path, run):
    odd = {"tea": "[red]tea[/red]", "milk": ":cat:", "bread": "[/]"}
    log = tmp_path / "odd.csv"
    shop_log().with_columns(pl.col("item_id").replace(odd)).write_csv(log)
    assert run("train", log, "--out", tmp_path / "b", *COUNTING)[0] == 0
    code, out, _ = run("predict", tmp_path / "b", "--user", "u1", "--k", 6)
    assert code == 0
    for shown in odd.values():
        assert shown in out


def test_flags_change_what_they_say(log, tmp_path, run):
    def trained(*flags):
        _, out, _ = run("train", log, "--out", tmp_path / "b", *COUNTING, "--json", *flags)
        return json.loads(out)

    plain = trained()
    assert plain["protocol"]["split"] == "temporal"
    assert trained("--split", "leave-last-out")["protocol"]["split"] == "leave-last-out"
    assert trained("--repeat", "exclude")["protocol"]["repeat"] == "exclude"
    alone = trained("--models", "popularity")
    assert [row["model"] for row in alone["leaderboard"]] == ["popularity"]
    assert (
        alone["leaderboard"][0]["test"]["loss"]
        == (plain["leaderboard"][0]["test"]["loss"])  # other models change nothing
    )


def test_level_platform_predicts_platforms(tmp_path, run):
    log = tmp_path / "platforms.csv"
    shop_log().with_columns(platform=pl.col("item_id") + " shop").write_csv(log)
    out = tmp_path / "b"
    assert run("train", log, "--out", out, "--level", "platform", *COUNTING)[0] == 0
    _, found, _ = run("predict", out, "--user", "u1", "--k", 1, "--json")
    assert json.loads(found)["predictions"][0]["platform"].endswith(" shop")


def test_rejected_rows_go_to_the_file_that_was_asked_for(log, tmp_path, run):
    broken = tmp_path / "broken.csv"
    broken.write_text(log.read_text() + "u1,tea,yesterday,1.0\n")
    rejects = tmp_path / "rejects.csv"
    code, out, _ = run("doctor", broken, "--rejects", rejects, "--json")
    assert code == 0
    assert json.loads(out)["rows"]["rejected"] == 1
    assert "yesterday" in rejects.read_text()
    rejects.unlink()
    run("train", broken, "--out", tmp_path / "b", *COUNTING, "--rejects", rejects)
    assert "yesterday" in rejects.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "missing.csv", "--out", "b"], "missing.csv"),
        (["train", "world:markt", "--out", "b"], "the nearest is world:market"),
        (["train", "world:uniform", "--out", "b", "--models", "lstm-rn"], "Did you mean lstm-rnn"),
        (["train", "world:uniform", "--out", "b", "--models", ","], "models"),
        (["train", "world:uniform", "--out", "b", "--repeat", "cooldown:soon"], "cooldown"),
        (["predict", "nowhere", "--user", "u1"], "There is no bundle in nowhere"),
        (["predict", "nowhere"], "--user ID"),
        (["evaluate", "nowhere", "log.csv"], "nextbuy train DATA --out nowhere"),
        (["doctor", "missing.csv"], "missing.csv"),
        (["demo", "--data", "missing.csv"], "missing.csv"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_one(run, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 1
    assert out == ""
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["train"], ["train", "x", "--out", "b", "--level", "shop"], ["sell"], ["--what"]]
)
def test_wrong_usage_has_exit_code_two(run, arguments):
    code, _, err = run(*arguments)
    assert code == 2
    assert "Error" in err or "error" in err


def test_a_failed_train_leaves_the_bundle_that_was_there(bundle, log, tmp_path, run):
    before = sorted((p, p.read_bytes()) for p in bundle.rglob("*") if p.is_file())
    empty = tmp_path / "empty.csv"
    empty.write_text("user_id,item_id,timestamp\n")
    assert run("train", empty, "--out", bundle, *COUNTING)[0] == 1
    assert sorted((p, p.read_bytes()) for p in bundle.rglob("*") if p.is_file()) == before
    assert run("predict", bundle, "--user", "u1")[0] == 0


def test_debug_shows_where_an_error_came_from(tmp_path):
    from nextbuy.errors import UnreadableFileError

    with pytest.raises(UnreadableFileError):
        main(["--debug", "train", str(tmp_path / "missing.csv"), "--out", str(tmp_path)])


def test_demo_prints_and_writes_the_described_table(tmp_path, run):
    out = tmp_path / "demo"
    code, printed, _ = run("demo", "--users", 300, "--epochs", 1, "--out", out)
    assert code == 0
    for words in ("the described attempt", "popularity", "lstm-rnn (tensorflow)", "limit"):
        assert words in printed
    report = json.loads((out / "demo.json").read_text())
    assert report["world"] == "world:uniform"
    assert report["limit"]["loss"] == pytest.approx(2.911, abs=0.3)
    for name in ("popularity", "personal-frequency", "lstm-rnn", "lstm-rnn (tensorflow)"):
        scores = report["models"][name]
        assert {"loss", "accuracy", "precision", "recall", "fit_seconds"} <= set(scores)
        assert scores["expected_accuracy"] <= report["limit"]["accuracy"]
    pictures = {path.name for path in (out / "pictures").iterdir()}
    assert {"distance-to-limit.svg", "training-lstm-rnn.svg", "reliability-lstm-rnn.svg"} <= (
        pictures
    )
