"""A run that was killed ends with the same bytes as one that was not (T01 to T16)."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nextbuy import storage
from nextbuy.errors import DamagedError, ResumeError, RunLockedError, TrainingError
from nextbuy.training.checkpoint import Checkpoints, TrainingState, run_lock
from nextbuy.training.loop import train
from nextbuy.training.schedule import EarlyStopping

SCRIPT = Path(__file__).with_name("small_run.py")
ENGINES = ["torch", pytest.param("tensorflow", marks=pytest.mark.tensorflow)]


def start(folder, engine="torch", *options, failpoint="", env=None):
    environment = {**os.environ, "NEXTBUY_FAILPOINT": failpoint, **(env or {})}
    command = [sys.executable, str(SCRIPT), str(folder), engine, *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(folder, engine="torch", *options, env=None):
    process = start(folder, engine, *options, env=env)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out)


def wait_for_first_checkpoint(process, folder):
    while process.poll() is None and not list(Path(folder).glob("checkpoints/step-*")):
        time.sleep(0.01)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Final hashes of a run that nobody disturbed, by engine."""
    found = {}

    def hashes(engine):
        if engine not in found:
            found[engine] = finish(tmp_path_factory.mktemp("whole") / "run", engine)
        return found[engine]

    return hashes


@pytest.mark.parametrize("engine", ENGINES)
def test_T01_killed_at_random_moments_ends_with_equal_bytes(engine, tmp_path, uninterrupted):
    rng = random.Random(0)
    kills = 0
    for _ in range(4 if engine == "torch" else 2):
        process = start(tmp_path / "run", engine)
        wait_for_first_checkpoint(process, tmp_path / "run")
        time.sleep(rng.uniform(0.0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills > 0
    assert finish(tmp_path / "run", engine) == uninterrupted(engine)


@pytest.mark.parametrize("failpoint", [
    # Checkpoints are found by name, without a pointer; tests/test_storage.py kills the others.
    f"{name}:2" for name in storage.FAILPOINTS if "latest" not in name
] + ["after_step:7", "before_epoch_save:2"])  # fmt: skip
def test_T01_killed_inside_a_save_ends_with_equal_bytes(failpoint, tmp_path, uninterrupted):
    process = start(tmp_path / "run", failpoint=failpoint)
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    assert finish(tmp_path / "run") == uninterrupted("torch")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["T02", "T03"]
)
def test_T02_T03_a_signal_saves_and_the_run_goes_on_later(number, code, tmp_path, uninterrupted):
    process = start(tmp_path / "run")
    wait_for_first_checkpoint(process, tmp_path / "run")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"Stopped by {number.name}" in err
    assert "same command again" in err
    assert finish(tmp_path / "run") == uninterrupted("torch")


def a_state(step=1, weights=None):
    return TrainingState(
        step=step,
        stopping=EarlyStopping(patience=3, best_score=1.5, best_epoch=0, epoch=0),
        weights=weights or {"w": np.ones(3, "f4")},
        optimizer={"m": np.zeros(3, "f4")},
        best_weights={"w": np.ones(3, "f4")},
    )


def test_T04_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, {"seed": 1})
    checkpoints.save(a_state(step=1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(storage.StorageError, match=r"[Ss]pace"):
        checkpoints.save(a_state(step=2))
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000000001-0000"]
    newest = checkpoints.newest(patience=3)
    assert newest is not None
    assert newest.step == 1


def test_T05_a_full_disk_under_the_log_costs_lines_and_not_the_training(tmp_path, caplog):
    from nextbuy.training.log import TrainingLog

    log = TrainingLog(Path("/dev/full"))
    for step in range(3):
        log.write(step=step)
    log.close()
    assert [r.message for r in caplog.records if "log cannot be written" in r.message]
    assert len(caplog.records) == 1


class BrokenEngine:
    """Loses its mind in its third step."""

    def __init__(self, losses):
        self.losses, self.steps = losses, 0

    def prepare(self, batch, step):
        return batch

    def step(self, batch, *, learning_rate, step):
        self.steps += 1
        return self.losses[step]

    def weights(self):
        return {"w": np.full(2, self.steps, "f4")}

    def optimizer_state(self):
        return {}

    def restore(self, weights, optimizer_state):
        self.steps = int(weights["w"][0])


def run_broken(engine, folder=None, **config):
    from nextbuy.training.engine import TrainingConfig
    from tests.training.small_run import small_histories

    settings = TrainingConfig(
        **({"tokens": 128, "learning_rate": 0.01, "epochs": 2, "checkpoint_seconds": 0} | config)
    )
    return train(engine, small_histories(60), None, settings, seed=0, run_folder=folder)


def test_T07_a_nan_loss_stops_and_names_step_and_batch(tmp_path):
    from nextbuy.errors import NonFiniteLossError

    engine = BrokenEngine([2.0, 1.9, float("nan"), 1.8])
    with pytest.raises(NonFiniteLossError, match=r"nan in step 2 \(epoch 0, batch 2\)"):
        run_broken(engine, tmp_path)
    newest = Checkpoints(tmp_path, {}).newest(patience=3)
    assert newest is not None
    assert newest.step == 2


@pytest.mark.parametrize("engine_name", ENGINES)
def test_T07_an_engine_does_not_take_a_step_with_a_nan_loss(engine_name):
    from nextbuy.nn.recurrent import LstmRnnShape, initial_weights
    from nextbuy.training.batches import Batch
    from nextbuy.training.engine import TrainingConfig, create_engine

    shape = LstmRnnShape(num_items=3, embedding_size=2, lstm_size=2, rnn_size=2)
    weights = initial_weights(shape, seed=0, item_counts=np.ones(3, int), longest=3)
    weights["dense.bias"][0] = np.nan
    engine = create_engine(
        engine_name, shape, TrainingConfig(),
        weights=weights, item_counts=np.ones(3, int), seed=0,
    )  # fmt: skip
    row = np.array([[1, 2]])
    loss = engine.step(
        Batch(inputs=row, marks=row * 0, targets=row, openings=row * 0), learning_rate=0.1, step=0
    )
    assert np.isnan(loss)
    for name, array in engine.weights().items():
        np.testing.assert_array_equal(array, weights[name])


def test_T08_weights_that_are_not_finite_are_never_saved(tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(a_state(step=1))
    with pytest.raises(TrainingError, match="w has values that are not finite after step 2"):
        checkpoints.save(a_state(step=2, weights={"w": np.array([1, np.inf], "f4")}))
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_T09_out_of_memory_names_the_way_out():
    class Hungry(BrokenEngine):
        def step(self, batch, *, learning_rate, step):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(TrainingError, match=r"Out of memory in step 0 .* fewer --tokens than 128"):
        run_broken(Hungry([]))


def test_T10_a_run_goes_on_with_another_number_of_threads(tmp_path, uninterrupted):
    process = start(tmp_path / "run")
    wait_for_first_checkpoint(process, tmp_path / "run")
    process.kill()
    process.communicate()
    hashes = finish(tmp_path / "run", env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    assert hashes.keys() == uninterrupted("torch").keys()


def test_T11_another_command_is_refused_with_the_difference(tmp_path):
    Checkpoints(tmp_path, {"seed": 1, "lr": 0.1}).save(a_state())
    with pytest.raises(ResumeError, match=r"lr: was 0.1, asked 0.2") as caught:
        Checkpoints(tmp_path, {"seed": 1, "lr": 0.2}).newest(patience=3)
    assert "seed" not in str(caught.value)


def test_T12_another_version_is_refused_with_both_versions(tmp_path):
    Checkpoints(tmp_path, {"nextbuy": "0.0.9"}).save(a_state())
    with pytest.raises(ResumeError, match=r"was '0.0.9', asked '0.1.0'"):
        Checkpoints(tmp_path, {"nextbuy": "0.1.0"}).newest(patience=3)


def test_T13_a_second_run_in_a_folder_is_told_who_is_there(tmp_path):
    process = start(tmp_path / "run", "torch", "--epochs", "500")
    wait_for_first_checkpoint(process, tmp_path / "run")
    try:
        with (
            pytest.raises(RunLockedError, match=f"pid {process.pid} on "),
            run_lock(tmp_path / "run"),
        ):
            pass
    finally:
        process.kill()
        process.communicate()
    with run_lock(tmp_path / "run"):
        pass  # the lock died with its owner


def damage(folder):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_T14_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, {})
    for step in (1, 2):
        checkpoints.save(a_state(step=step))
    damage(tmp_path / "checkpoints" / "step-000000002-0000")
    newest = checkpoints.newest(patience=3)
    assert newest is not None
    assert newest.step == 1
    assert "step-000000002-0000 is damaged" in caplog.text


def test_T15_only_damaged_checkpoints_are_an_error_and_never_a_fresh_start(tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    for step in (1, 2):
        checkpoints.save(a_state(step=step))
    for folder in (tmp_path / "checkpoints").iterdir():
        damage(folder)
    with pytest.raises(DamagedError, match="All 2 checkpoints"):
        checkpoints.newest(patience=3)


def test_T16_the_order_of_checkpoints_is_that_of_steps_and_not_of_clocks(tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    for step in (9, 10):
        checkpoints.save(a_state(step=step))
    os.utime(tmp_path / "checkpoints" / "step-000000010-0000", (1, 1))  # long before the other
    newest = checkpoints.newest(patience=3)
    assert newest is not None
    assert newest.step == 10


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Kolkata"},
        {"PYTHONHASHSEED": "2", "TZ": "America/New_York", "LC_ALL": "C"},
    ],
)
def test_T19_hash_seed_time_zone_and_locale_change_nothing(environment, tmp_path, uninterrupted):
    assert finish(tmp_path / "run", env=environment) == uninterrupted("torch")


@pytest.mark.parametrize("name", ["with space", "new\nline", "ünïcødé-注文", "x" * 200])
def test_T20_odd_folder_names_work(name, tmp_path, uninterrupted):
    assert finish(tmp_path / name) == uninterrupted("torch")


def test_T18_no_home_and_few_file_handles_are_enough(tmp_path, uninterrupted):
    wrapper = f"ulimit -n 64; unset HOME; exec {sys.executable} {SCRIPT} {tmp_path / 'run'} torch"
    done = subprocess.run(["bash", "-c", wrapper], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == uninterrupted("torch")


def test_another_seed_ends_elsewhere(tmp_path, uninterrupted):
    other = finish(tmp_path / "run", "torch", "--seed", "1")
    assert other["weights.safetensors"] != uninterrupted("torch")["weights.safetensors"]


def test_early_stopping_keeps_the_best_epoch_and_stops_after_its_patience(tmp_path):
    validation = iter([3.0, 2.0, 2.5, 2.5, 2.5, 2.5])
    from nextbuy.training.engine import TrainingConfig
    from tests.training.small_run import small_histories

    engine = BrokenEngine([1.0] * 1000)
    config = TrainingConfig(tokens=128, learning_rate=0.01, epochs=6, patience=2)
    result = train(
        engine, small_histories(60), lambda _: next(validation), config, seed=0,
        run_folder=tmp_path,
    )  # fmt: skip
    assert (result.num_epochs, result.best_epoch, result.best_score) == (4, 1, 2.0)
    assert result.weights["w"][0] == result.num_steps / 4 * 2
    shutil.rmtree(tmp_path)
