"""`nextbuy tune`, and `nextbuy train --config` with what it wrote."""

import json
import sys
import tomllib

import pytest

from tests.shop import shop_log

MARKOV = ("--model", "markov", "--trials", "5")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.csv"
    shop_log().write_csv(path)
    return path


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'models = ["markov"]\nseed = 3\n[options.markov]\nreach = 7\n[options.gru]\ndropout = 0.4\n'
    )
    return path


def config_in(bundle):
    path = next((bundle / "versions").glob("*/nextbuy.json"))
    return json.loads(path.read_text(encoding="utf-8"))["facts"]["config"]


def test_the_best_config_is_a_file_that_train_takes(log, tmp_path, run):
    code, out, err = run("tune", log, *MARKOV, "--out", tmp_path / "study", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["trials"] == {"complete": 5, "pruned": 0, "fail": 0}
    assert found["test"]["verdict"]
    bundle = tmp_path / "bundle"
    code, out, err = run("train", log, "--config", found["config"], "--out", bundle, "--json")
    assert code == 0, err
    row = json.loads(out)["leaderboard"][0]
    assert row["validation"]["loss"] == pytest.approx(found["best"]["validation"]["loss"])
    assert row["test"]["loss"] == pytest.approx(found["test"]["tuned"]["loss"])
    assert config_in(bundle)["options"] == {"markov": found["best"]["values"]}


def test_the_words_say_what_was_tried_and_what_comes_next(log, tmp_path, run):
    code, out, err = run("tune", log, *MARKOV, "--out", tmp_path / "study")
    assert code == 0
    assert err.count(" complete, validation loss ") == 5
    assert "5 trials: 5 complete, 0 pruned, 0 failed" in out
    assert "on the test (60 cases, both fitted again on everything before it): " in out
    assert f"--config {tmp_path / 'study' / 'best.toml'}" in " ".join(out.split())


def test_flags_that_are_given_go_before_the_config_file(log, config_file, tmp_path, run):
    kept, changed = tmp_path / "kept", tmp_path / "changed"
    assert run("train", log, "--config", config_file, "--out", kept)[0] == 0
    assert config_in(kept)["seed"] == 3
    assert config_in(kept)["options"]["markov"] == {"reach": 7}
    flags = ("--seed", 0, "--models", "popularity", "--dropout", 0.1)
    assert run("train", log, "--config", config_file, *flags, "--out", changed)[0] == 0
    assert config_in(changed)["seed"] == 0
    assert config_in(changed)["models"] == ["popularity"]
    assert config_in(changed)["options"]["gru"]["dropout"] == 0.1
    assert config_in(changed)["options"]["markov"] == {"reach": 7}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("speed = 1", "speed"),
        ("[options.markof]\nreach = 1", "markof"),
        ("[options.markov]\nreech = 1", "reech"),
        ("[options.markov]\nreach = 0", "reach"),
        ("options = 3", "options"),
        ("seed = = 1", "no TOML"),
    ],
)
def test_a_config_file_with_what_is_not_known_is_refused(text, named, log, tmp_path, run):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    code, _, err = run("train", log, "--config", path, "--out", tmp_path / "b")
    assert code == 1
    assert named in err
    assert not (tmp_path / "b" / "versions").exists()


def test_a_config_file_that_is_not_there_is_refused(log, tmp_path, run):
    code, _, err = run("train", log, "--config", tmp_path / "none.toml", "--out", tmp_path / "b")
    assert code == 1
    assert "none.toml" in err


def test_an_unknown_model_is_refused_before_anything_is_read(tmp_path, run):
    code, _, err = run("tune", tmp_path / "no.csv", "--model", "markof", "--out", tmp_path / "s")
    assert code == 1
    assert "Did you mean markov" in err


def test_the_command_explains_itself(run):
    code, out, _ = run("tune", "--help")
    assert code == 0
    assert "--trials" in out
    assert "--json" in out


def test_the_file_is_toml(log, tmp_path, run):
    assert run("tune", log, *MARKOV, "--out", tmp_path / "study")[0] == 0
    table = tomllib.loads((tmp_path / "study" / "best.toml").read_text(encoding="utf-8"))
    assert table["models"] == ["markov"]
    assert set(table["options"]["markov"]) == {"reach", "decay", "smoothing", "neighbours"}


def test_without_optuna_the_extra_is_named(log, tmp_path, run, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("optuna", "nextbuy.tuning"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = run("tune", log, *MARKOV, "--out", tmp_path / "study")
    assert code == 1
    assert "nextbuy[tune]" in err
