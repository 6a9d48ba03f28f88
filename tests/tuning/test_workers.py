"""Several workers: real processes, killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nextbuy.errors import TrainingError
from nextbuy.tuning import workers
from nextbuy.tuning.config import TuningConfig
from nextbuy.tuning.journal import finished_trials
from nextbuy.tuning.tune import tune
from tests.shop import shop_log
from tests.tuning.test_tune import study_in

TWO = {"model": "markov", "workers": 2}


def workers_of(folder):
    """Processes that work for the study in a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "nextbuy.tuning.worker" in words and str(Path(folder) / "split") in words:
            found.append(process)
    return found


def test_two_workers_do_what_one_does_and_leave_nothing_behind(tmp_path):
    found = tune(shop_log(), tmp_path / "two", config=TuningConfig.of(**TWO, trials=4))
    assert found.trials == {"complete": 4, "pruned": 0, "fail": 0}
    tune(shop_log(), tmp_path / "one", config=TuningConfig.of(model="markov", trials=2))
    two, one = (
        {trial.number: trial for trial in finished_trials(study_in(tmp_path / name))}
        for name in ("two", "one")
    )
    assert two[0].user_attrs["default"]
    assert len({str(trial.params) for trial in two.values()}) == 4
    assert found.best["validation"]["loss"] == min(trial.value for trial in two.values())
    # The first draw knows the default alone, however many workers there are.
    assert two[1].params == one[1].params
    assert two[1].value == pytest.approx(one[1].value, rel=1e-9)
    assert not (tmp_path / "two" / "split").exists()
    assert workers_of(tmp_path / "two") == []


def test_trials_whose_worker_is_killed_are_tried_once_more(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTBUY_FAILPOINT", "worker_trial:2")  # each worker ends in its second
    found = tune(shop_log(), tmp_path, config=TuningConfig.of(**TWO, trials=5))
    assert found.trials == {"complete": 5, "pruned": 0, "fail": 0}
    again = [t for t in study_in(tmp_path).get_trials() if "again" in t.user_attrs]
    assert again
    assert len({str(trial.params) for trial in finished_trials(study_in(tmp_path))}) == 5


def test_parameters_that_kill_their_worker_twice_have_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTBUY_FAILPOINT", "worker_trial:1")
    found = tune(shop_log(), tmp_path, config=TuningConfig.of(**TWO, trials=2))
    assert found.trials == {"complete": 1, "pruned": 0, "fail": 1}


def test_workers_that_cannot_begin_end_the_search_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "save_split", lambda *_: None)
    with pytest.raises(TrainingError, match="before it could begin"):
        tune(shop_log(), tmp_path, config=TuningConfig.of(**TWO, trials=3))


def test_a_killed_search_takes_its_workers_along_and_goes_on(tmp_path):
    log, folder = tmp_path / "log.csv", tmp_path / "out"
    shop_log().write_csv(log)
    options = ["--model", "gru", "--epochs", "2", "--trials", "3", "--workers", "2"]
    process = subprocess.run(
        [sys.executable, "-m", "nextbuy", "tune", str(log), "--out", str(folder), *options],
        env={**os.environ, "NEXTBUY_FAILPOINT": "mid_parallel:1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=120,
    )
    assert process.returncode == -signal.SIGKILL
    psutil.wait_procs(workers_of(folder), timeout=60)
    assert workers_of(folder) == []
    before = [(trial.params, trial.value) for trial in finished_trials(study_in(folder))]
    assert len(before) == 1
    config = TuningConfig.of(model="gru", epochs=2, trials=3, workers=2)
    found = tune(log, folder, config=config)
    after = [(trial.params, trial.value) for trial in finished_trials(study_in(folder))]
    assert after[:1] == before
    assert sum(found.trials.values()) == 3
