"""The network computes what it says, in both engines."""

import math

import numpy as np
import pytest
import torch

from nextbuy.nn.dropout import drop
from nextbuy.nn.losses import full_softmax_loss, sampled_softmax_loss
from nextbuy.nn.recurrent import LstmRnnNetwork, LstmRnnShape, initial_weights, weight_shapes
from nextbuy.training.engine import ItemSampler

SHAPE = LstmRnnShape(num_items=5, embedding_size=3, lstm_size=4, rnn_size=6, marks_baskets=True)


def weights_of(shape, seed=0):
    return initial_weights(shape, seed=seed, item_counts=np.arange(shape.num_items), longest=9)


def network_of(shape, seed=0):
    network = LstmRnnNetwork(shape)
    network.load_weights(weights_of(shape, seed))
    return network


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def slow_log_probabilities(w, inputs, marks):
    """The network by its equations, one number at a time."""
    H, R = w["lstm.weight_hh_l0"].shape[1], w["rnn.weight_hh_l0"].shape[1]
    h, c, s, rows = [0.0] * H, [0.0] * H, [0.0] * R, []
    for item, mark in zip(inputs, marks, strict=True):
        x = [float(a + b) for a, b in zip(w["embedding.weight"][item], w["basket.weight"][mark],
                                          strict=True)]  # fmt: skip
        gates = [
            sum(float(a) * b for a, b in zip(w["lstm.weight_ih_l0"][r], x, strict=True))
            + sum(float(a) * b for a, b in zip(w["lstm.weight_hh_l0"][r], h, strict=True))
            + float(w["lstm.bias_ih_l0"][r])
            for r in range(4 * H)
        ]
        i, f, g, o = (gates[k * H : (k + 1) * H] for k in range(4))
        c = [sigmoid(f[k]) * c[k] + sigmoid(i[k]) * math.tanh(g[k]) for k in range(H)]
        h = [sigmoid(o[k]) * math.tanh(c[k]) for k in range(H)]
        s = [
            math.tanh(
                sum(float(a) * b for a, b in zip(w["rnn.weight_ih_l0"][r], h, strict=True))
                + sum(float(a) * b for a, b in zip(w["rnn.weight_hh_l0"][r], s, strict=True))
                + float(w["rnn.bias_ih_l0"][r])
            )
            for r in range(R)
        ]
        logits = [
            sum(float(a) * b for a, b in zip(row, s, strict=True)) + float(b0)
            for row, b0 in zip(w["dense.weight"], w["dense.bias"], strict=True)
        ]
        total = math.log(sum(math.exp(v) for v in logits))
        rows.append([v - total for v in logits])
    return rows


def test_the_network_computes_its_equations():
    inputs, marks = [0, 3, 5, 1], [1, 0, 1, 1]
    fast = network_of(SHAPE)(torch.tensor([inputs]), torch.tensor([marks]))
    slow = slow_log_probabilities(weights_of(SHAPE), inputs, marks)
    assert fast[0].detach().numpy() == pytest.approx(np.array(slow), abs=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("marks_baskets", [True, False])
def test_equal_weights_give_equal_probabilities_in_tensorflow_and_torch(marks_baskets):
    from nextbuy.training.tensorflow_engine import KerasLstmRnn

    shape = LstmRnnShape(num_items=47, marks_baskets=marks_baskets)
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(0, 0.08, s).astype("f4") for n, s in weight_shapes(shape).items()}
    inputs, marks = rng.integers(0, 48, (8, 40)), rng.integers(0, 2, (8, 40))
    ours = LstmRnnNetwork(shape)
    ours.load_weights(weights)
    keras = KerasLstmRnn(shape)
    keras.load_weights(weights)
    torch_probabilities = ours(torch.tensor(inputs), torch.tensor(marks)).exp().detach().numpy()
    assert np.exp(keras.log_probabilities(inputs, marks)) == pytest.approx(
        torch_probabilities, abs=1e-5
    )
    for name, array in keras.weights().items():
        np.testing.assert_array_equal(array, weights[name])


def test_training_starts_at_popularity():
    shape = LstmRnnShape(num_items=3, embedding_size=4, lstm_size=4, rnn_size=4)
    weights = initial_weights(shape, seed=0, item_counts=np.array([7, 1, 0]), longest=5)
    softmax = np.exp(weights["dense.bias"]) / np.exp(weights["dense.bias"]).sum()
    assert softmax == pytest.approx([8 / 11, 2 / 11, 1 / 11], rel=1e-5)


def test_initial_weights_depend_on_the_seed_and_on_nothing_else():
    one, again, other = weights_of(SHAPE), weights_of(SHAPE), weights_of(SHAPE, seed=1)
    assert all((one[n] == again[n]).all() for n in one)
    assert (one["dense.weight"] != other["dense.weight"]).any()


@pytest.mark.parametrize("field", ["embedding_size", "lstm_size", "rnn_size", "num_items"])
def test_each_size_changes_the_weights(field):
    larger = SHAPE.model_copy(update={field: 9})
    assert weight_shapes(larger) != weight_shapes(SHAPE)


def test_dropout_drops_its_share_and_keeps_the_mean():
    ones = torch.ones(200, 203)
    dropped = drop(ones, 0.25, torch.Generator().manual_seed(0))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert drop(ones, 0.25, None) is ones
    assert drop(ones, 0.0, torch.Generator()) is ones
    assert torch.isfinite(drop(ones, 0.9999, torch.Generator().manual_seed(0))).all()


def test_a_uniform_guess_costs_log_v():
    loss = full_softmax_loss(
        torch.zeros(2, 4), torch.randn(7, 4), torch.zeros(7),
        torch.tensor([0, 1]), torch.tensor([0, 6]),
    )  # fmt: skip
    assert loss.item() == pytest.approx(math.log(7))


def test_a_state_is_asked_once_for_each_purchase_of_its_basket():
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(2, 4), torch.randn(7, 4), torch.randn(7)
    owners, targets = torch.tensor([0, 0, 1]), torch.tensor([3, 5, 0])
    loss = full_softmax_loss(hidden, weight, bias, owners, targets)
    p = torch.softmax(hidden @ weight.T + bias, dim=1)
    expected = -(p[0, 3].log() + p[0, 5].log() + p[1, 0].log()) / 3
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_sampled_loss_estimates_the_full_one():
    """The estimate of the partition function is unbiased, so the loss converges with the sample."""
    rng = np.random.default_rng(0)
    hidden = torch.tensor(rng.normal(size=(4, 8)), dtype=torch.float32)
    weight = torch.tensor(rng.normal(size=(50, 8)), dtype=torch.float32) * 0.5
    bias, targets = torch.zeros(50), torch.tensor([0, 7, 7, 49])
    size, counts = 200_000, np.r_[np.full(25, 3), np.full(25, 1)]
    sampler = ItemSampler(size, counts, 0)
    samples, log_weights = sampler.draw_distinct(0)
    assert len(samples) == 50
    sampled = sampled_softmax_loss(
        hidden, weight, bias, torch.arange(4), targets,
        samples_S=torch.tensor(samples), log_weights_S=torch.tensor(log_weights),
    )  # fmt: skip
    full = full_softmax_loss(hidden, weight, bias, torch.arange(4), targets)
    assert sampled.item() == pytest.approx(full.item(), abs=0.01)


def test_a_sampled_target_does_not_count_against_itself():
    hidden, weight = torch.ones(1, 2), torch.tensor([[3.0, 3.0], [0.0, 0.0]])
    only_itself = sampled_softmax_loss(
        hidden, weight, torch.zeros(2), torch.tensor([0]), torch.tensor([0]),
        samples_S=torch.tensor([0]), log_weights_S=torch.tensor([1.1]),
    )  # fmt: skip
    assert only_itself.item() == pytest.approx(0.0, abs=1e-6)
