"""Large tables are drawn, copied and added up in pieces, and nobody can tell by the numbers."""

from types import SimpleNamespace

import numpy as np
import torch

from nextbuy.memory import resident_bytes
from nextbuy.nn import item_table, network, transformer
from nextbuy.nn.item_table import ItemTable
from nextbuy.nn.transformer import TransformerNetwork, TransformerShape, initial_weights
from nextbuy.training import loop
from nextbuy.training.checkpoint import Checkpoints
from nextbuy.training.engine import TrainingConfig
from nextbuy.training.row_adam import RowAdam
from nextbuy.training.torch_engine import network_of
from tests.training.small_run import small_histories

SHAPE = TransformerShape(num_items=10, width=4, attributes=(3, 2), repeats=True)
CODES = np.array([[0, 1, 2, 1, 2, 1, 0, 0, 2, 1, 1], [0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1]])


def first_weights():
    return initial_weights(SHAPE, seed=1, item_counts=np.arange(10))


def test_weights_that_are_drawn_in_pieces_are_those_drawn_at_once(monkeypatch):
    whole = first_weights()
    monkeypatch.setattr(transformer, "_DRAWN", 7)
    pieces = first_weights()
    assert whole.keys() == pieces.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, pieces[name])


def test_weights_are_loaded_in_pieces_from_arrays_that_must_not_be_written_to(monkeypatch):
    monkeypatch.setattr(network, "_COPIED", 3)
    weights = first_weights()
    for array in weights.values():
        array.flags.writeable = False
    filled = network_of(SHAPE, CODES)
    filled.load_weights(weights)
    for name, array in filled.weights().items():
        np.testing.assert_array_equal(array, weights[name])


def test_a_network_that_torch_did_not_draw_answers_like_one_that_it_did():
    drawn = TransformerNetwork(SHAPE, torch.from_numpy(CODES))
    for each in (filled := network_of(SHAPE, CODES), drawn):
        each.load_weights(first_weights())
    for mine, theirs in zip(filled.output(), drawn.output(), strict=True):
        assert torch.equal(mine, theirs)


def test_vectors_of_items_are_the_same_in_pieces(monkeypatch):
    table = ItemTable(10, 4, (3, 2), torch.from_numpy(CODES))
    for shared in table.shared:
        torch.nn.init.normal_(shared, generator=torch.Generator().manual_seed(0))
    at_once = table(torch.arange(1, 11))
    monkeypatch.setattr(item_table, "_PIECE", 3)
    with torch.no_grad():
        assert torch.equal(table.rows(), at_once)


def test_moments_take_memory_only_for_the_rows_that_are_touched():
    """A gibibyte of moments, of which one page is written to."""
    table = torch.nn.Parameter(torch.empty(2**21, 64))
    before = resident_bytes()
    adam = RowAdam({"table": table}, beta2=0.99, weight_decay=0.0)
    adam.step("table", torch.tensor([5]), torch.ones(1, 64), learning_rate=0.1)
    assert resident_bytes() - before < 2**27


class CountingEngine:
    """Each step takes a second of `clock`."""

    def __init__(self, clock):
        self.clock = clock

    def prepare(self, batch, step):
        return batch

    def step(self, batch, *, learning_rate, step):
        self.clock.now += 1.0
        return 1.0

    def weights(self):
        return {"w": np.zeros(1, "f4")}

    def optimizer_state(self):
        return {}


def test_after_a_checkpoint_that_took_long_training_goes_on_for_longer(monkeypatch, tmp_path):
    clock, saved = SimpleNamespace(now=0.0), []

    def save(_, state):
        saved.append(state.step)
        clock.now += 2.0

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(Checkpoints, "save", save)
    config = TrainingConfig(tokens=8, learning_rate=0.01, epochs=1, checkpoint_seconds=5)
    result = loop.train(
        CountingEngine(clock), small_histories(60), None, config, seed=0, run_folder=tmp_path
    )
    # The first after 5 seconds; then nine times the two seconds that it took.
    assert saved == [*range(5, result.num_steps, 18), result.num_steps]
