"""Training on a device: what it may change, what it must not, and what is said where there is none.

What needs CUDA is left out without it; the rest looks at the same code on the CPU.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from nextbuy.errors import ConfigError, NonFiniteLossError
from nextbuy.models.gru import Gru, GruConfig
from nextbuy.models.lstm_rnn import LstmRnn, LstmRnnConfig
from nextbuy.models.protocol import FitOptions
from nextbuy.models.transformer import Transformer, TransformerConfig
from nextbuy.nn.repeat_head import NUM_KNOTS, OwnTensors, RepeatHead, _due_of_all
from nextbuy.nn.transformer import TransformerShape, initial_weights
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.testing.contract import asked, small_catalog, small_train, small_validation
from nextbuy.training.ahead import ahead
from nextbuy.training.batches import cut_into_windows, epoch_batches
from nextbuy.training.engine import TrainingConfig, create_engine
from nextbuy.training.log import read_log
from nextbuy.training.loop import train
from tests.training.small_run import V, small_histories

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")
HISTORIES = small_histories(60)
COUNTS = np.bincount(HISTORIES.items, minlength=V + 1)[1:]
SHAPE = TransformerShape(num_items=V, width=8, dropout=0.0, marks_baskets=True)
NETWORKS = {
    "transformer": (Transformer, TransformerConfig),
    "gru": (Gru, GruConfig),
    "lstm-rnn": (LstmRnn, LstmRnnConfig),
}


def engine_of(**training):
    config = TrainingConfig(**{"tokens": 128, "learning_rate": 0.01} | training)
    weights = initial_weights(SHAPE, seed=0, item_counts=COUNTS)
    return create_engine("torch", SHAPE, config, weights=weights, item_counts=COUNTS, seed=0)


def some_batches():
    windows = cut_into_windows(HISTORIES, 10)
    return list(epoch_batches(HISTORIES, windows, tokens=128, seed=0, epoch=0))


def fitted(name, **config):
    kind, config_class = NETWORKS[name]
    model = kind(config_class(**config))
    catalog = small_catalog(9)
    return model.fit(small_train(), small_validation(), catalog, FitOptions(epochs=2))


def answers(model):
    now = np.full(len(asked()), 400 * 86_400_000_000)
    blocked = RepeatPolicy.parse("exclude").blocks(asked(), now)
    return model.log_probabilities(asked(), now), *model.top_k(asked(), now, 3, blocked=blocked)


# Made ahead


def test_pieces_come_in_their_order_and_an_error_where_its_piece_would_have_come():
    def pieces():
        yield from range(5)
        raise KeyError("five")

    found = []
    with pytest.raises(KeyError, match="five"):
        found.extend(ahead(pieces()))
    assert found == [0, 1, 2, 3, 4]


def test_no_more_than_two_pieces_are_made_ahead_and_none_after_the_end():
    made = []
    pieces = ahead(made.append(n) or n for n in range(100))
    assert next(pieces) == 0
    pieces.close()
    assert len(made) <= 3


# Losses that come late


class LateEngine:
    """Says its losses when it is asked for them, and remembers how many nobody asked for yet."""

    def __init__(self, losses, *, is_late=True):
        self.losses, self.is_late = losses, is_late
        self.unasked = self.most_unasked = 0

    def prepare(self, batch, step):
        return batch

    def step(self, batch, *, learning_rate, step):
        if not self.is_late:
            return self.losses[step]
        self.unasked += 1
        self.most_unasked = max(self.most_unasked, self.unasked)
        return Late(self, self.losses[step])

    def weights(self):
        return {"w": np.zeros(1, "f4")}

    def optimizer_state(self):
        return {}


class Late:
    def __init__(self, engine, loss):
        self.engine, self.loss = engine, loss

    def __float__(self):
        self.engine.unasked -= 1
        return self.loss


def run(engine, folder):
    config = TrainingConfig(tokens=32, learning_rate=0.01, epochs=2, checkpoint_seconds=1e9)
    return train(engine, HISTORIES, None, config, seed=0, run_folder=folder)


def test_late_losses_give_the_same_log_and_result_as_prompt_ones(tmp_path):
    losses = np.random.default_rng(0).random(500).tolist()
    late, prompt = LateEngine(losses), LateEngine(losses, is_late=False)
    of_late, of_prompt = run(late, tmp_path / "late"), run(prompt, tmp_path / "prompt")
    assert read_log(tmp_path / "late/log.jsonl") == read_log(tmp_path / "prompt/log.jsonl")
    assert of_late.best_score == of_prompt.best_score
    assert late.unasked == 0
    assert 1 < late.most_unasked < 10  # the host goes on, but not for ever


def test_a_late_loss_that_is_not_finite_is_named_by_its_own_step(tmp_path):
    losses = [1.0] * 7 + [float("inf")] + [1.0] * 500
    with pytest.raises(NonFiniteLossError, match=r"inf in step 7 \(epoch 0, batch 7\)"):
        run(LateEngine(losses), tmp_path)


def test_where_the_host_does_not_look_no_step_is_taken_from_a_nan_loss_on():
    """The guard of a GPU, on the CPU."""
    guarded, plain = engine_of(), engine_of()
    guarded._is_broken = torch.zeros(())
    first, second, *_ = some_batches()
    for engine in (guarded, plain):
        engine.step(first, learning_rate=0.01, step=0)
    taken = guarded.weights()
    for name, weight in plain.weights().items():
        np.testing.assert_array_equal(taken[name], weight)
    assert np.abs(taken["bias"] - engine_of().weights()["bias"]).max() > 0
    spoilt = replace(second, weights=np.full(second.inputs.shape, np.nan, np.float32), asked=None)
    assert np.isnan(float(guarded.step(spoilt, learning_rate=0.01, step=1)))
    assert np.isfinite(float(guarded.step(second, learning_rate=0.01, step=2)))
    for name, weight in guarded.weights().items():
        np.testing.assert_array_equal(weight, taken[name])
    state = guarded.optimizer_state()
    assert state["bias/step"] == 1


# Precision


def test_bf16_learns_nearly_the_same():
    losses, weights = {}, {}
    for precision in ("single", "bf16"):
        engine = engine_of(precision=precision)
        losses[precision] = [
            float(engine.step(batch, learning_rate=0.01, step=step))
            for step, batch in enumerate(some_batches())
        ]
        weights[precision] = engine.weights()
    assert losses["bf16"] != losses["single"]
    np.testing.assert_allclose(losses["bf16"], losses["single"], rtol=0.02)
    assert all(weight.dtype == np.float32 for weight in weights["bf16"].values())


def test_auto_is_decided_and_stored():
    assert fitted("transformer").config.training.precision in {"single", "bf16"}
    assert fitted("gru").config.training.precision == "single"


@pytest.mark.parametrize("name", ["gru", "lstm-rnn"])
def test_bf16_is_refused_where_there_is_none(name):
    with pytest.raises(ConfigError, match=r"Recurrent.*precision='bf16'.*transformer"):
        fitted(name, training={"precision": "bf16"})


# Bundles


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_of_a_gpu_that_is_not_here_answers_on_the_cpu_and_says_so(
    name, tmp_path, monkeypatch, caplog
):
    model = fitted(name)
    model.save(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["config"]["device"] = "cuda:3"
    (tmp_path / "config.json").write_text(json.dumps(stored))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    loaded = NETWORKS[name][0].load(tmp_path, small_catalog(9))
    for one, other in zip(answers(model), answers(loaded), strict=True):
        np.testing.assert_array_equal(one, other)
    assert f"{name} was trained on cuda:3, which is not here; it answers on cpu." in caplog.text
    assert loaded.config.device == "cuda:3"  # what was said is kept


def test_ages_that_are_not_there_count_nothing_when_all_are_computed():
    """The way of a GPU, against the way of the CPU, which computes only those that are there."""
    rng = np.random.default_rng(0)
    days = np.where(rng.random((40, 4)) < 0.5, np.inf, rng.exponential(30, (40, 4))).astype("f4")
    days[:3] = np.inf
    own = OwnTensors(
        owners=torch.arange(40),
        items=torch.ones(40, dtype=torch.int64),
        groups=torch.from_numpy(rng.integers(0, 3, 40)),
        features=torch.zeros(40, 1),
        days=torch.from_numpy(days),
        summaries=torch.zeros(40, 1),
    )
    found = []
    for way in (RepeatHead._due, _due_of_all):
        cadence = torch.from_numpy(rng.normal(0, 0.2, (4, NUM_KNOTS)).astype("f4"))
        cadence = found[0][2] if found else cadence
        cadence = cadence.detach().clone().requires_grad_()
        due = way(own, cadence)
        due.square().sum().backward()
        found.append((due.detach(), cadence.grad, cadence))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    assert found[0][1].abs().max() > 0


# With CUDA


@needs_cuda
@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_gpu_a_model_is_trained_validated_and_asked_and_the_cpu_says_the_same(name, tmp_path):
    model = fitted(name, device="cuda")
    assert model._network.device.type == "cuda"
    assert np.isfinite(model.result.best_score)
    model.save(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["config"]["device"] = "cpu"
    (tmp_path / "config.json").write_text(json.dumps(stored))
    loaded = NETWORKS[name][0].load(tmp_path, small_catalog(9))
    here, there = answers(model), answers(loaded)
    np.testing.assert_allclose(here[0][:, 1:], there[0][:, 1:], atol=1e-3)
    np.testing.assert_allclose(here[2], there[2], atol=1e-3)


@needs_cuda
@pytest.mark.parametrize("sample_size", [0, 6])
def test_on_a_gpu_single_precision_has_the_losses_of_the_cpu(sample_size):
    losses = {}
    for device in ("cpu", "cuda"):
        config = TrainingConfig(
            tokens=128, learning_rate=0.01, sample_size=sample_size, precision="single"
        )
        weights = initial_weights(SHAPE, seed=0, item_counts=COUNTS)
        engine = create_engine(
            "torch", SHAPE, config, weights=weights, item_counts=COUNTS, seed=0, device=device
        )
        losses[device] = [
            float(engine.step(batch, learning_rate=0.01, step=step))
            for step, batch in enumerate(some_batches())
        ]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-4)


@needs_cuda
def test_on_a_gpu_no_step_is_taken_from_a_nan_loss_on():
    weights = initial_weights(SHAPE, seed=0, item_counts=COUNTS)
    weights["bias"][0] = np.nan
    config = TrainingConfig(tokens=128, learning_rate=0.01)
    engine = create_engine(
        "torch", SHAPE, config, weights=weights, item_counts=COUNTS, seed=0, device="cuda"
    )
    assert np.isnan(float(engine.step(some_batches()[0], learning_rate=0.01, step=0)))
    for name, weight in engine.weights().items():
        np.testing.assert_array_equal(weight, weights[name])


@needs_cuda
def test_a_gpu_goes_on_from_what_it_was_given_back():
    def engine():
        config = TrainingConfig(tokens=128, learning_rate=0.01, precision="single", ema_decay=0.9)
        weights = initial_weights(SHAPE, seed=0, item_counts=COUNTS)
        return create_engine(
            "torch", SHAPE, config, weights=weights, item_counts=COUNTS, seed=0, device="cuda"
        )

    first, second = engine(), engine()
    batches = some_batches()
    for step in range(3):
        first.step(batches[step], learning_rate=0.01, step=step)
    second.restore(first.weights(), first.optimizer_state())
    for one in (first, second):
        one.step(batches[3], learning_rate=0.01, step=3)
    for name, weight in second.weights().items():
        np.testing.assert_allclose(weight, first.weights()[name], rtol=1e-4, atol=1e-6)
    assert second.optimizer_state()["bias/step"] == 4
