"""The GRU computes its equations, sees nothing that it must not, and starts at popularity."""

import math

import numpy as np
import pytest
import torch

from nextbuy.nn.gru import GruNetwork, GruShape, initial_weights, weight_shapes
from nextbuy.nn.network import Sequences

SHAPE = GruShape(num_items=9, width=4, hidden=6, layers=2, dropout=0.5, marks_baskets=True)


def network_of(shape, seed=0):
    network = GruNetwork(shape)
    rng = np.random.default_rng(seed)
    network.load_weights(
        {n: rng.normal(0, 0.5, s).astype("f4") for n, s in weight_shapes(shape).items()}
    )
    return network


def sequences(items, marks=None):
    items = torch.tensor(items)
    return Sequences(
        items=items,
        marks=torch.ones_like(items) if marks is None else torch.tensor(marks),
        states=torch.arange(items.numel()),
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normed(x, weight, bias):
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * weight + bias


def slow_states(w, items, marks, layers):
    """The network by its equations, one position at a time, in double precision."""
    w = {name: array.astype(float) for name, array in w.items()}
    rows = []
    memory = [np.zeros(w[f"layers.{n}.weight_hh_l0"].shape[1]) for n in range(layers)]
    for item, mark in zip(items, marks, strict=True):
        x = w["embedding.weight"][item] + w["basket.weight"][mark]
        x = normed(x, w["norm_first.weight"], w["norm_first.bias"])
        for n in range(layers):
            of_x = w[f"layers.{n}.weight_ih_l0"] @ x + w[f"layers.{n}.bias_ih_l0"]
            of_h = w[f"layers.{n}.weight_hh_l0"] @ memory[n] + w[f"layers.{n}.bias_hh_l0"]
            (rx, zx, nx), (rh, zh, nh) = np.split(of_x, 3), np.split(of_h, 3)
            reset, update = sigmoid(rx + rh), sigmoid(zx + zh)
            memory[n] = (1 - update) * np.tanh(nx + reset * nh) + update * memory[n]
            x = memory[n]
        back = w["back.weight"] @ x + w["back.bias"]
        rows.append(normed(back, w["norm_last.weight"], w["norm_last.bias"]))
    return np.array(rows)


def test_the_network_computes_its_equations():
    network = network_of(SHAPE)
    items, marks = [0, 3, 5, 1], [1, 0, 1, 1]
    found = network.states(sequences([items], [marks])).detach().numpy()
    assert found == pytest.approx(slow_states(network.weights(), items, marks, 2), abs=1e-5)


def test_a_state_sees_what_lies_before_it_and_nothing_else():
    network = network_of(SHAPE)
    one = network.states(sequences([[0, 1, 2, 3, 4, 5]]))
    changed = network.states(sequences([[0, 1, 2, 9, 4, 5]]))
    assert (one == changed).all(1).tolist() == [True] * 3 + [False] * 3


def test_items_are_scored_by_the_rows_that_they_are_read_by():
    network = network_of(SHAPE)
    rows, bias = network.output()
    assert torch.equal(rows, network.embedding.weight[1:])
    assert bias.shape == (9,)


def test_training_starts_at_popularity_and_from_the_seed_alone():
    counts = np.array([7, 1, 0, 4, 4, 4, 4, 4, 4])
    one, again, other = (
        initial_weights(SHAPE, seed=s, item_counts=counts, longest=50) for s in (0, 0, 1)
    )
    assert all((one[n] == again[n]).all() for n in one)
    assert (one["embedding.weight"] != other["embedding.weight"]).any()
    shares = np.exp(one["bias"]) / np.exp(one["bias"]).sum()
    assert shares == pytest.approx((counts + 1) / (counts + 1).sum(), rel=1e-5)


def test_memory_at_the_start_is_that_of_whole_histories():
    """An update gate of sigmoid(log u) keeps 1 - 1 / (u + 1) of a state at each purchase."""
    shape = GruShape(num_items=3, hidden=1_000)
    weights = initial_weights(shape, seed=0, item_counts=np.ones(3, int), longest=101)
    bias = weights["layers.0.bias_ih_l0"]
    lasts = np.exp(bias[1_000:2_000])
    assert lasts.min() > 1 - 1e-5
    assert lasts.max() < 101
    assert lasts.mean() == pytest.approx(51, abs=3)
    assert not bias[:1_000].any()
    assert not bias[2_000:].any()


def test_dropout_is_drawn_from_the_generator_alone():
    network = network_of(SHAPE)
    asked = sequences([[0, 1, 2]])
    one, again, other = (
        network.states(asked, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(network.states(asked), network.states(asked))
