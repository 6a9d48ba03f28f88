"""The average of the weights is that of the formula, is what a run ends with, and is resumed."""

import numpy as np
import pytest
import torch

from nextbuy.errors import ConfigError
from nextbuy.nn.gru import GruShape
from nextbuy.nn.gru import initial_weights as initial_gru
from nextbuy.nn.recurrent import LstmRnnShape, initial_weights
from nextbuy.training.averaging import WeightAverage
from nextbuy.training.engine import TrainingConfig, create_engine
from nextbuy.training.loop import train
from tests.training.small_run import V, final_hashes, small_histories

HISTORIES = small_histories(60)
COUNTS = np.bincount(HISTORIES.items, minlength=V + 1)[1:]
SHAPE = GruShape(num_items=V, width=4, hidden=8, dropout=0.2, marks_baskets=True)


def config_of(**more):
    base = {"epochs": 2, "tokens": 128, "learning_rate": 0.01, "checkpoint_seconds": 0.0}
    return TrainingConfig(**base | more)


def engine_of(config):
    weights = initial_gru(SHAPE, seed=0, item_counts=COUNTS, longest=10)
    return create_engine("torch", SHAPE, config, weights=weights, item_counts=COUNTS, seed=0)


def run(engine, config, folder=None, validate=None):
    return train(engine, HISTORIES, validate, config, seed=0, run_folder=folder)


def test_the_average_of_three_steps_by_hand():
    parameter = torch.nn.Parameter(torch.tensor([100.0]))
    average = WeightAverage({"w": parameter}, decay=0.5)
    assert average.weights()["w"] == 100
    found = []
    for value in (1.0, 4.0, 8.0):
        parameter.data.fill_(value)
        average.update()
        found.append(average.weights()["w"][0])
    assert found == pytest.approx([1, (1 / 2 * 1 + 4) / (3 / 2), (1 / 4 + 4 / 2 + 8) / (7 / 4)])
    assert parameter.item() == 8


class Watched:
    """An engine that remembers the weights after each step, and perhaps stops before one."""

    def __init__(self, engine, stop=None):
        self.engine, self.stop, self.seen = engine, stop, []
        self.weights, self.restore = engine.weights, engine.restore
        self.optimizer_state, self.prepare = engine.optimizer_state, engine.prepare

    def step(self, batch, *, learning_rate, step):
        if step == self.stop:
            raise KeyboardInterrupt
        loss = self.engine.step(batch, learning_rate=learning_rate, step=step)
        self.seen.append(self.engine.weights())
        return loss


def test_validation_and_result_are_of_the_average_and_training_does_not_notice():
    plain, averaged = (Watched(engine_of(config_of(ema_decay=decay))) for decay in (None, 0.9))
    without = run(plain, config_of())
    validated = []

    def validate(weights):
        validated.append(weights)
        return -float(len(validated))

    result = run(averaged, config_of(ema_decay=0.9), validate=validate)
    steps = len(plain.seen)
    shares = 0.9 ** np.arange(steps - 1, -1, -1)
    for name, found in result.weights.items():
        each = np.array([weights[name] for weights in plain.seen], dtype=np.float64)
        expected = np.tensordot(shares / shares.sum(), each, axes=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found, validated[-1][name])
    last = without.weights["embedding.weight"]
    assert np.abs(result.weights["embedding.weight"] - last).max() > 1e-3


def test_an_average_of_no_memory_is_the_newest_weights():
    config = config_of(ema_decay=1e-9, epochs=1)
    forgetful = run(engine_of(config), config)
    plain = run(engine_of(config_of(epochs=1)), config_of(epochs=1))
    for name, found in forgetful.weights.items():
        np.testing.assert_allclose(found, plain.weights[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("stop", "loss"), [(1, "softmax"), (3, "softmax"), (7, "softmax"), (7, "gbce")]
)
def test_a_run_that_stopped_ends_with_equal_bytes(stop, loss, tmp_path):
    config = config_of(ema_decay=0.9, loss=loss, sample_size=6)
    whole = run(engine_of(config), config, tmp_path / "whole")
    assert whole.num_steps > 7
    with pytest.raises(KeyboardInterrupt):
        run(Watched(engine_of(config), stop), config, tmp_path / "stopped")
    run(engine_of(config), config, tmp_path / "stopped")
    assert final_hashes(tmp_path / "stopped") == final_hashes(tmp_path / "whole")


def test_tensorflow_refuses_it_before_it_is_even_loaded(monkeypatch):
    shape = LstmRnnShape(num_items=V, embedding_size=2, lstm_size=2, rnn_size=2)
    weights = initial_weights(shape, seed=0, item_counts=COUNTS, longest=10)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(ConfigError, match=r"no average of the weights.*ema_decay=0\.9.*torch"):
        create_engine(
            "tensorflow", shape, config_of(ema_decay=0.9), weights=weights, item_counts=COUNTS,
            seed=0,
        )  # fmt: skip
