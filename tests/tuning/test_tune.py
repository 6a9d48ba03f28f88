"""A search from end to end: what is kept, what is refused, and what comes of it."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from optuna.trial import TrialState

from nextbuy.errors import (
    ConfigError,
    DamagedError,
    DataError,
    NonFiniteLossError,
    ResumeError,
    RunLockedError,
    TimeIsUpError,
)
from nextbuy.models.registry import create
from nextbuy.training.checkpoint import run_lock
from nextbuy.training.loop import _Run
from nextbuy.tuning import comparison
from nextbuy.tuning.config import TuningConfig
from nextbuy.tuning.fitting import Fitting
from nextbuy.tuning.journal import JOURNAL, finished_trials, open_study, put_back
from nextbuy.tuning.limit import TimeLimit
from nextbuy.tuning.tune import tune
from tests.shop import shop_log

MARKOV = {"model": "markov", "trials": 5}


def study_in(folder):
    lines = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
    identity = next(
        line["user_attr"]["identity"] for line in lines if "identity" in line.get("user_attr", {})
    )
    return open_study(folder, identity)


def asked(folder, **config):
    return tune(shop_log(), folder, config=TuningConfig.of(**config))


def trials_of(folder):
    """Values and scores of the finished trials."""
    return [(trial.params, trial.value) for trial in finished_trials(study_in(folder))]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of five trials that nobody disturbed."""
    folder = tmp_path_factory.mktemp("searched")
    return folder, asked(folder, **MARKOV)


def test_the_first_trial_is_the_default(searched):
    folder, found = searched
    first = finished_trials(study_in(folder))[0]
    assert first.params == create("markov").config.model_dump()
    assert found.default["trial"] == 0
    assert found.default["values"] == first.params


def test_the_best_is_the_lowest_loss_on_validation_and_no_worse_than_the_default(searched):
    folder, found = searched
    losses = [value for _, value in trials_of(folder)]
    assert len(losses) == 5
    assert found.best["validation"]["loss"] == min(losses)
    assert min(losses) < losses[0]
    assert found.trials == {"complete": 5, "pruned": 0, "fail": 0}


def test_the_test_is_asked_once_and_a_second_call_repeats_the_answer(searched):
    folder, found = searched
    before = (folder / "test.json").read_bytes()
    again = asked(folder, **MARKOV)
    assert found.looks == again.looks == 1
    assert again.test == found.test
    assert (folder / "test.json").read_bytes() == before
    assert len(trials_of(folder)) == 5


def test_the_difference_on_the_test_is_tuned_minus_default(searched):
    test = searched[1].test
    for name in ("loss", "ndcg@10"):
        minus = test["tuned"][name] - test["default"][name]
        assert test["difference"][name]["difference"] == pytest.approx(minus, abs=1e-9)
    assert test["num_cases"] == 60


def test_pictures_are_drawn(searched):
    names = {path.name for path in searched[1].pictures}
    assert names == {"history.svg", "trade-off.svg", "importance.svg"}
    for path in searched[1].pictures:
        assert "<svg" in path.read_text(encoding="utf-8")[:200]


@pytest.mark.parametrize("killed_in", [1, 3])
def test_a_killed_search_goes_on_and_ends_as_if_it_had_not_been(killed_in, searched, tmp_path):
    log = tmp_path / "log.csv"
    shop_log().write_csv(log)
    command = ["tune", str(log), "--out", str(tmp_path / "out"), "--model", "markov"]
    process = subprocess.run(
        [sys.executable, "-m", "nextbuy", *command, "--trials", "5"],
        env={**os.environ, "NEXTBUY_FAILPOINT": f"mid_trial:{killed_in}"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == -signal.SIGKILL
    folder = tmp_path / "out"
    whole = trials_of(searched[0])
    with (folder / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":6,"worker')  # as if the kill had come within a line
    tune(log, folder, config=TuningConfig.of(**MARKOV))
    study = study_in(folder)
    cut_off = study.get_trials()[killed_in - 1]
    assert cut_off.state.name == "FAIL"
    assert cut_off.number not in {trial.number for trial in finished_trials(study)}
    assert [params for params, _ in trials_of(folder)] == [params for params, _ in whole]
    values = [[value for _, value in trials] for trials in (trials_of(folder), whole)]
    np.testing.assert_allclose(*values, rtol=1e-9)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"model": "ease"}, "another model: 'markov' there, 'ease' asked"),
        ({"metric": "ndcg@10"}, "another metric"),
        ({"seed": 1}, "another seed"),
    ],
)
def test_a_folder_of_another_study_is_refused_and_the_difference_named(other, named, searched):
    with pytest.raises(ResumeError, match=named):
        asked(searched[0], **(MARKOV | other))


def test_a_folder_of_other_data_is_refused(searched):
    with pytest.raises(ResumeError, match="another data"):
        tune(shop_log(seed=2), searched[0], config=TuningConfig.of(**MARKOV))


@pytest.mark.parametrize("wrong", [{"metric": "auc"}, {"trials": 0}, {"speed": 1}])
def test_unknown_metrics_and_keys_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TuningConfig.of(**wrong)


def test_trials_of_a_network_that_fall_behind_are_pruned_and_counted(tmp_path):
    found = asked(tmp_path, model="gru", trials=6, epochs=3)
    trials = finished_trials(study_in(tmp_path))
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert found.trials["pruned"] == len(pruned) > 0
    assert found.trials["complete"] + found.trials["pruned"] == 6
    for trial in pruned:  # after the second of three epochs, and behind the better half by then
        earlier = [t for t in trials if t.number <= trial.number and 2 in t.intermediate_values]
        reached = sorted(t.intermediate_values[2] for t in earlier)
        assert trial.last_step == 2
        assert trial.intermediate_values[2] > reached[max(1, len(reached) // 2) - 1]


def test_a_limit_that_ends_before_the_default_is_an_error_and_the_default_goes_on_later(tmp_path):
    with pytest.raises(TimeIsUpError, match="before the default config"):
        asked(tmp_path, model="gru", trials=1, epochs=1, time_limit=1e-6)
    found = asked(tmp_path, model="gru", trials=1, epochs=1)
    assert found.trials == {"complete": 1, "pruned": 0, "fail": 0}
    assert found.test is None
    assert found.looks == 0
    assert "the default is the best" in found.verdict


def test_the_default_trial_of_a_network_is_the_network_without_options(tmp_path):
    from nextbuy.predictor import Predictor, PredictorConfig

    found = asked(tmp_path, model="transformer", trials=1, epochs=1)
    plain = Predictor.fit(
        shop_log(), config=PredictorConfig.of(models=("transformer",), epochs=1, seed=0)
    )
    assert found.best["validation"]["loss"] == pytest.approx(
        plain.leaderboard[0].validation.metrics["loss"], rel=1e-6
    )


@pytest.fixture
def fits_but(monkeypatch):
    """Let the n-th fit of a search raise an error."""

    def fit_but(place, error):
        real, calls = Fitting.fit, []

        def fit(self, values, folder, progress):
            calls.append(values)
            if len(calls) == place:
                raise error
            return real(self, values, folder, progress)

        monkeypatch.setattr(Fitting, "fit", fit)
        return calls

    return fit_but


def test_a_trial_that_cannot_be_trained_is_counted_and_the_search_goes_on(fits_but, tmp_path):
    fits_but(2, NonFiniteLossError("The loss is nan in step 3"))
    found = asked(tmp_path, model="markov", trials=3)
    assert found.trials == {"complete": 2, "pruned": 0, "fail": 1}
    failed = finished_trials(study_in(tmp_path))[1]
    assert failed.user_attrs["reason"] == "The loss is nan in step 3"


def test_a_default_that_cannot_be_trained_ends_the_search(fits_but, tmp_path):
    fits_but(1, NonFiniteLossError("The loss is nan in step 3"))
    with pytest.raises(NonFiniteLossError, match="step 3"):
        asked(tmp_path, model="markov", trials=3)


def test_ctrl_c_is_not_held_against_the_trial_that_it_stops(fits_but, tmp_path):
    for place in (2, 1):  # twice: a process that was killed so often would have failed it
        calls = fits_but(place, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            asked(tmp_path, model="markov", trials=2)
    found = asked(tmp_path, model="markov", trials=2)
    assert found.trials == {"complete": 2, "pruned": 0, "fail": 0}
    assert finished_trials(study_in(tmp_path))[1].params == calls[0]


def test_what_the_time_limit_cuts_off_is_tried_first_when_there_is_time(fits_but, tmp_path):
    calls = fits_but(3, TimeIsUpError("The time for the search is up."))
    assert asked(tmp_path, model="markov", trials=4).trials["complete"] == 2
    cut_off = calls[2]
    found = asked(tmp_path, model="markov", trials=4)
    assert found.trials == {"complete": 4, "pruned": 0, "fail": 0}
    assert finished_trials(study_in(tmp_path))[2].params == cut_off


def test_a_kill_while_a_trial_is_put_back_queues_it_only_once(tmp_path):
    study = open_study(tmp_path, {})
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    study.enqueue_trial(trial.params, user_attrs={"again": trial.number})  # and then the kill
    study = open_study(tmp_path, {})
    states = [one.state.name for one in study.get_trials()]
    assert states == ["FAIL", "WAITING"]
    again = study.ask()
    assert again.suggest_float("x", 0.0, 1.0) == trial.params["x"]
    put_back(study, study.get_trials()[again.number])
    assert [one.state.name for one in study.get_trials()] == ["FAIL", "FAIL", "WAITING"]
    assert finished_trials(study) == []


def test_a_trial_whose_process_ends_a_second_time_has_failed(tmp_path):
    for _ in range(2):
        study = open_study(tmp_path, {})
        assert finished_trials(study) == []
        study.ask().suggest_float("x", 0.0, 1.0)  # and then the process ends
    ended = finished_trials(open_study(tmp_path, {}))
    assert [trial.state.name for trial in ended] == ["FAIL"]
    assert not open_study(tmp_path, {}).get_trials(states=(TrialState.WAITING,))


def test_the_default_is_tried_again_however_often_its_process_ends(tmp_path):
    open_study(tmp_path, {}).enqueue_trial({"x": 0.5}, user_attrs={"default": True})
    for _ in range(3):
        study = open_study(tmp_path, {})
        assert study.ask().suggest_float("x", 0.0, 1.0) == 0.5
    assert finished_trials(open_study(tmp_path, {})) == []


def test_a_killed_trial_of_a_network_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    log, folder = tmp_path / "log.csv", tmp_path / "out"
    shop_log().write_csv(log)
    asked_for = ["--out", str(folder), "--model", "gru", "--trials", "1", "--epochs", "3"]
    process = subprocess.run(
        [sys.executable, "-m", "nextbuy", "tune", str(log), *asked_for],
        env={**os.environ, "NEXTBUY_FAILPOINT": "before_epoch_save:2"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == -signal.SIGKILL
    real, epochs = _Run.train_epoch, []

    def train_epoch(self, state, stop):
        epochs.append(state.epoch)
        return real(self, state, stop)

    monkeypatch.setattr(_Run, "train_epoch", train_epoch)
    config = TuningConfig.of(model="gru", trials=1, epochs=3)
    found = tune(log, folder, config=config)
    assert epochs == [1, 2]
    whole = tune(log, tmp_path / "whole", config=config)
    assert found.best["validation"] == pytest.approx(whole.best["validation"], rel=1e-6)
    trial = finished_trials(study_in(folder))[0]
    assert sorted(trial.intermediate_values) == [1, 2, 3]


@pytest.mark.parametrize("metric", ["accuracy", "recall@10"])
def test_what_should_be_high_is_made_high(metric, tmp_path):
    found = asked(tmp_path, model="markov", trials=4, metric=metric)
    scores = [trial.user_attrs[metric] for trial in finished_trials(study_in(tmp_path))]
    assert found.best["validation"][metric] == max(scores)


def test_a_comparison_that_has_no_time_leaves_the_test_alone_and_says_so(tmp_path, monkeypatch):
    def evaluate(*_arguments, **_options):
        raise TimeIsUpError("The time for the search is up.")

    with monkeypatch.context() as patch:
        patch.setattr(comparison, "evaluate", evaluate)
        found = asked(tmp_path, **MARKOV)
    assert found.test is None
    assert found.looks == 0
    assert "no time was left to ask the test" in found.verdict
    assert "no time was left" in (tmp_path / "best.toml").read_text(encoding="utf-8")
    assert asked(tmp_path, **MARKOV).looks == 1


def test_without_time_for_second_fits_both_are_compared_as_they_were_judged(searched, tmp_path):
    found = asked(tmp_path, **MARKOV, time_limit=3600)
    assert found.test["fitted_again"]
    tight = TuningConfig.of(**MARKOV, time_limit=3600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimeLimit, "can_refit", lambda *_: False)
        plain = tune(shop_log(), tmp_path / "tight", config=tight)
    assert not plain.test["fitted_again"]
    assert plain.test["default"]["loss"] != found.test["default"]["loss"]


def test_a_line_tells_of_each_trial_that_is_on_disk(tmp_path):
    lines = []

    def say(line):
        lines.append((line, len(finished_trials(study_in(tmp_path)))))

    tune(shop_log(), tmp_path, config=TuningConfig.of(model="markov", trials=3), say=say)
    for number, (line, kept) in enumerate(lines):
        value = finished_trials(study_in(tmp_path))[number].value
        assert line.startswith(f"trial {number} complete, validation loss {value:.6f}, ")
        assert kept == number + 1
    assert len(lines) == 3


@pytest.mark.parametrize("place", ["file", "file/below/it"])
def test_an_out_that_cannot_be_a_folder_is_refused(place, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file is a file"):
        asked(tmp_path / place, **MARKOV)


def test_data_that_are_not_there_leave_no_folder(tmp_path):
    with pytest.raises(DataError):
        tune(tmp_path / "no.csv", tmp_path / "out", config=TuningConfig.of(**MARKOV))
    assert not (tmp_path / "out").exists()


def test_a_longer_search_that_finds_a_better_one_says_that_the_test_was_asked_again(tmp_path):
    short = asked(tmp_path, model="markov", trials=3)
    longer = asked(tmp_path, model="markov", trials=8)
    assert sum(longer.trials.values()) == 8
    assert longer.best["validation"]["loss"] <= short.best["validation"]["loss"]
    assert longer.looks == short.looks + (longer.best["trial"] != short.best["trial"])


def test_two_searches_in_one_folder_are_refused(tmp_path):
    with run_lock(tmp_path), pytest.raises(RunLockedError):
        asked(tmp_path, model="markov", trials=1)


@pytest.mark.parametrize("content", ["no journal\nat all\n", "{}\n", "3\n"])
def test_a_damaged_journal_is_refused_and_stays_as_it_is(content, tmp_path):
    (tmp_path / JOURNAL).write_text(content)
    with pytest.raises(DamagedError, match="no journal of a study"):
        asked(tmp_path, model="markov", trials=1)
    assert (tmp_path / JOURNAL).read_text() == content
