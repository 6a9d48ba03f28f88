"""The transformer computes what it says, and sees nothing that it must not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nextbuy.nn.network import Sequences
from nextbuy.nn.transformer import (
    NUM_GAPS,
    TransformerNetwork,
    TransformerShape,
    _CausalFilter,
    initial_weights,
    time_buckets,
    turned,
    turns_of,
    weight_shapes,
)

SHAPE = TransformerShape(
    num_items=9, width=8, blocks=2, heads=2, taps=3, gated=True, marks_baskets=True,
    knows_times=True, dropout=0.5,
)  # fmt: skip
PLAIN = TransformerShape(num_items=9, width=8, blocks=2, heads=2, dropout=0.0)


def network_of(shape, seed=0):
    network = TransformerNetwork(shape)
    rng = np.random.default_rng(seed)
    network.load_weights(
        {n: rng.normal(0, 0.5, s).astype("f4") for n, s in weight_shapes(shape).items()}
    )
    return network


def sequences(items, marks=None, gaps=None, *, states=None):
    items = torch.tensor(items)
    everything = torch.arange(items.numel()) if states is None else torch.tensor(states)
    return Sequences(
        items=items,
        marks=torch.ones_like(items) if marks is None else torch.tensor(marks),
        states=everything,
        gaps=None if gaps is None else torch.tensor(gaps),
        days=None if gaps is None else torch.full(everything.shape, 3.0),
    )


@pytest.mark.parametrize("shape", [SHAPE, PLAIN], ids=["everything", "plain"])
def test_a_state_sees_what_lies_before_it_and_nothing_else(shape):
    network = network_of(shape)
    gaps = [[0, 1, 2, 3, 4, 5]]
    one = network.states(sequences([[0, 1, 2, 3, 4, 5]], gaps=gaps))
    changed = network.states(sequences([[0, 1, 2, 9, 4, 5]], gaps=gaps))
    same = (one == changed).all(1)
    assert same[:3].all()
    assert not same[3:].any()
    longer = network.states(sequences([[0, 1, 2, 3, 4, 5, 6]], gaps=[[*gaps[0], 6]]))
    torch.testing.assert_close(longer[:6], one)


def test_a_state_knows_when_it_is_asked():
    network = network_of(SHAPE)
    asked = sequences([[0, 1, 2]], gaps=[[0, 1, 2]])
    now = network.states(asked)
    unknown = torch.full((3,), torch.nan)
    for days in (asked.days + 30, unknown):
        assert (network.states(replace(asked, days=days)) - now).abs().max() > 1e-3


def test_times_are_told_apart_by_doublings():
    minutes = torch.tensor([0.0, 0.9, 1.0, 3.0, 7.0, 1e12, torch.nan])
    assert time_buckets(minutes / 1440).tolist() == [1, 1, 2, 3, 4, NUM_GAPS - 1, 0]


def test_what_pads_a_row_changes_nothing():
    network = network_of(SHAPE)
    gaps = [[0, 1, 2, 1, 1]]
    alone = network.states(sequences([[0, 1, 2]], gaps=[gaps[0][:3]]))
    padded = network.states(sequences([[0, 1, 2, 0, 0]], [[1, 1, 1, 0, 0]], gaps, states=[0, 1, 2]))
    torch.testing.assert_close(padded, alone)


def test_attention_counts_baskets_not_places():
    """Purchases of one basket have one place: a layer of attention sees no order among them."""
    network = network_of(PLAIN.model_copy(update={"blocks": 1}))
    marks = [[1, 1, 0, 0, 1]]  # the second basket holds three
    one = network.states(sequences([[0, 1, 2, 3, 4]], marks))[-1]
    other = network.states(sequences([[0, 1, 3, 2, 4]], marks))[-1]
    apart = network.states(sequences([[0, 1, 3, 2, 4]]))[-1]
    first = network.states(sequences([[0, 1, 2, 3, 4]]))[-1]
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert (first - apart).abs().max() > 1e-3


def test_rotations_know_distances_alone():
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(at, other):
        places = [turns_of(torch.tensor([[p]]), 8) for p in (at, other)]
        return (turned(q, places[0]) * turned(k, places[1])).sum().item()

    assert product(7, 3) == pytest.approx(product(104, 100), rel=1e-4)
    assert product(7, 3) != pytest.approx(product(8, 3), rel=1e-3)
    assert product(5, 5) == pytest.approx((q * k).sum().item(), rel=1e-5)


def test_a_block_computes_its_equations():
    """One position at a time, one number at a time, for one head without rotation's help."""
    shape = TransformerShape(num_items=3, width=4, blocks=1, heads=1, taps=2, dropout=0.0)
    block = network_of(shape).blocks[0]
    x = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(1))
    turns = turns_of(torch.tensor([[0, 1, 2]]), 4)
    found = block(x, turns, None)[0]

    def norm(v, layer):
        centred = v - v.mean()
        scaled = centred / (centred.square().mean() + 1e-5).sqrt()
        return scaled * layer.weight + layer.bias

    normed = [norm(v, block.norm_mix) for v in x[0]]
    parts = [block.query_key_value(v).view(3, 4) for v in normed]

    def turn(v, place):
        result = v.clone()
        for pair, angle in enumerate((place * 1.0, place * 10_000.0**-0.5)):
            a, b, c, s = v[2 * pair], v[2 * pair + 1], math.cos(angle), math.sin(angle)
            result[2 * pair], result[2 * pair + 1] = a * c - b * s, a * s + b * c
        return result

    taps = torch.softmax(block.filter, 0)
    for place in range(3):
        scores = torch.stack(
            [turn(parts[place][0], place) @ turn(parts[j][1], j) / 2 for j in range(place + 1)]
        )
        shares = torch.softmax(scores, 0)
        attended = block.attended(sum(s * parts[j][2] for j, s in enumerate(shares)))
        low = taps[0] * normed[place] + (taps[1] * normed[place - 1] if place else 0)
        filtered = low + block.high.square() * (normed[place] - low)
        y = x[0, place] + 0.7 * filtered + 0.3 * attended
        inner = torch.nn.functional.gelu(block.up(norm(y, block.norm_feed)), approximate="tanh")
        torch.testing.assert_close(found[place], y + block.down(inner), atol=1e-4, rtol=1e-3)


def test_training_starts_at_popularity_and_from_the_seed_alone():
    counts = np.array([7, 1, 0, 4, 4, 4, 4, 4, 4])
    one, again, other = (initial_weights(SHAPE, seed=s, item_counts=counts) for s in (0, 0, 1))
    assert all((one[n] == again[n]).all() for n in one)
    assert (one["embedding.weight"] != other["embedding.weight"]).any()
    shares = np.exp(one["bias"]) / np.exp(one["bias"]).sum()
    assert shares == pytest.approx((counts + 1) / (counts + 1).sum(), rel=1e-5)
    assert (one["blocks.0.norm_mix.weight"] == 1).all()


def test_dropout_is_drawn_from_the_generator_alone():
    network = network_of(SHAPE)
    asked = sequences([[0, 1, 2]], gaps=[[0, 0, 1]])
    one, again, other = (
        network.states(asked, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(network.states(asked), network.states(asked))


def test_the_filter_and_its_gradient_are_those_of_the_formula():
    torch.manual_seed(0)
    for length in (1, 2, 7):
        x = torch.randn(3, length, 4, dtype=torch.float64, requires_grad=True)
        taps = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(_CausalFilter.apply, (x, taps))
        low = _CausalFilter.apply(x, taps)
        expected = sum(taps[k] * x[:, length - 1 - k] for k in range(min(5, length)))
        torch.testing.assert_close(low[:, -1], expected)
