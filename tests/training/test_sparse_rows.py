"""Steps that change only the rows of the items they touch, and how that is like changing all."""

import numpy as np
import pytest
import torch

from nextbuy.data.histories import DAY, Histories
from nextbuy.errors import ConfigError
from nextbuy.nn import gru, recurrent, transformer
from nextbuy.nn.own_items import purchase_facts
from nextbuy.training.batches import cut_into_windows, epoch_batches
from nextbuy.training.engine import TrainingConfig, create_engine
from nextbuy.training.loop import train
from nextbuy.training.row_adam import RowAdam
from tests.training.small_run import final_hashes

V = 40
RATE = 0.01


def some_histories():
    """Of 25 items out of 40, with days."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 12, 40)
    rows = [rng.integers(1, 26, n).tolist() for n in lengths]
    return Histories.from_lists(
        rows, times=[(np.sort(rng.integers(0, 99, n)) * DAY).tolist() for n in lengths]
    )


HISTORIES = some_histories()
COUNTS = np.bincount(HISTORIES.items, minlength=V + 1)[1:]
CODES = np.stack([np.append(0, 1 + np.arange(V) % 3), np.append(0, 1 + np.arange(V) % 7)])
TRANSFORMER = {"num_items": V, "width": 8, "dropout": 0.2, "knows_times": True}
NETWORKS = {
    "transformer": (transformer, transformer.TransformerShape(**TRANSFORMER)),
    "transformer, repeats and attributes": (
        transformer,
        transformer.TransformerShape(
            **TRANSFORMER, repeats=True, num_groups=1, attributes=(4, 8), gated=True
        ),
    ),
    "gru": (gru, gru.GruShape(num_items=V, width=8, hidden=8)),
    "lstm-rnn": (
        recurrent,
        recurrent.LstmRnnShape(num_items=V, embedding_size=8, lstm_size=8, rnn_size=8),
    ),
}


def engine_of(name, **training):
    module, shape = NETWORKS[name]
    told = {} if module is transformer else {"longest": 10}
    weights = module.initial_weights(shape, seed=0, item_counts=COUNTS, **told)
    config = TrainingConfig(
        **{"tokens": 16, "learning_rate": RATE, "sample_size": 3, "epochs": 2,
           "checkpoint_seconds": 0.0} | training
    )  # fmt: skip
    engine = create_engine(
        "torch", shape, config, weights=weights, item_counts=COUNTS, seed=0, codes=CODES
    )
    return engine, config


def batches_of(name):
    shape = NETWORKS[name][1]
    has_repeats = getattr(shape, "repeats", False)
    windows = cut_into_windows(HISTORIES, 10)
    facts = purchase_facts(HISTORIES) if has_repeats else None
    return list(epoch_batches(HISTORIES, windows, tokens=16, seed=0, epoch=0, facts=facts))


@pytest.mark.parametrize("loss", ["softmax", "gbce"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_step_is_that_of_all_rows_but_four_times_as_far(name, loss):
    """No row has moments yet, so that those that are not touched stay where they are either way."""
    if loss == "gbce" and "repeats" in name:
        pytest.skip("there is no such loss for repeats")
    sparse, dense = (
        engine_of(name, sparse_rows=rows, loss=loss, weight_decay=0.0)[0] for rows in (True, False)
    )
    before = dense.weights()
    batch = batches_of(name)[0]
    losses = [float(e.step(batch, learning_rate=RATE, step=0)) for e in (sparse, dense)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    tables = dense._network.item_tables()
    for table, weight in dense.weights().items():
        gone, ours = weight - before[table], sparse.weights()[table] - before[table]
        np.testing.assert_allclose(ours, (4 if table in tables else 1) * gone, rtol=0, atol=2e-4)
    for table in tables:
        assert np.abs(dense.weights()[table] - before[table]).max() > RATE / 2


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_that_a_step_does_not_touch_stay_as_they_are(name):
    engine, _ = engine_of(name, sparse_rows=True, weight_decay=0.1)
    for step, batch in enumerate(batches_of(name)[:5]):
        before = engine.weights()
        engine.step(batch, learning_rate=RATE, step=step)
        after = engine.weights()
        samples = engine._sampler.draw(step) + 1
        touched = set(batch.inputs.ravel()) | set(batch.targets.ravel()) | set(samples)
        if batch.own is not None:
            touched |= set(batch.own.items.tolist())
        for table, first in engine._network.item_tables().items():
            rows = np.flatnonzero(
                (after[table] != before[table]).reshape(len(after[table]), -1).any(1)
            )
            assert len(rows) > 0
            assert set(rows + first) <= touched | {0}
            assert len(touched) < V


def test_each_row_goes_where_adam_would_lead_it_through_the_steps_that_touch_it():
    """Adam of torch, one for each row, in double precision."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=(6, 3)).astype("f4")
    table = torch.nn.Parameter(torch.from_numpy(start.copy()))
    ours = RowAdam({"t": table}, beta2=0.98, weight_decay=0.1)
    alone = [torch.nn.Parameter(torch.from_numpy(row.copy()).double()) for row in start]
    theirs = [
        torch.optim.AdamW([row], lr=1.0, betas=(0.9, 0.98), weight_decay=0.1) for row in alone
    ]
    for step in range(60):
        rate = 0.1 / (1 + step)
        rows = np.flatnonzero(rng.random(6) < [1.0, 0.7, 0.3, 0.1, 0.05, 0.0])
        gradient = rng.normal(0.0, 10.0 ** rng.integers(-3, 3), (len(rows), 3)).astype("f4")
        ours.step("t", torch.from_numpy(rows), torch.from_numpy(gradient), learning_rate=rate)
        for row, g in zip(rows, gradient, strict=True):
            alone[row].grad = torch.from_numpy(g).double()
            theirs[row].param_groups[0]["lr"] = rate
            theirs[row].step()
    expected = torch.stack(alone).detach().numpy()
    np.testing.assert_allclose(table.detach().numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(table[5].detach().numpy(), start[5])
    assert np.abs(expected[:5] - start[:5]).max(axis=1).min() > 1e-3


def test_the_formula_by_hand():
    """One row of one number, touched twice with a gradient of 1, then of 3."""
    table = torch.nn.Parameter(torch.tensor([2.0, 5.0]))
    adam = RowAdam({"b": table}, beta2=0.9, weight_decay=0.5)
    adam.step("b", torch.tensor([0]), torch.tensor([1.0]), learning_rate=0.1)
    first = (1 - 0.1 * 0.5) * 2.0 - 0.1 * 1.0
    assert table.tolist() == pytest.approx([first, 5.0])
    adam.step("b", torch.tensor([0]), torch.tensor([3.0]), learning_rate=0.2)
    m, v = (0.9 * 0.1 + 0.1 * 3) / (1 - 0.81), (0.9 * 0.1 + 0.1 * 9) / (1 - 0.81)
    assert table.tolist() == pytest.approx([(1 - 0.2 * 0.5) * first - 0.2 * m / v**0.5, 5.0])


def test_no_gradient_of_a_whole_table_is_made():
    engine, _ = engine_of("transformer", sparse_rows=True)
    engine.step(batches_of("transformer")[0], learning_rate=RATE, step=0)
    parameters = dict(engine._network.named_parameters())
    assert parameters["embedding.weight"].grad is None
    assert parameters["bias"].grad is None
    assert parameters["norm_last.weight"].grad is not None


class StoppedBefore:
    """An engine that is killed before a step."""

    def __init__(self, engine, stop):
        self.engine, self.stop = engine, stop
        self.weights, self.restore = engine.weights, engine.restore
        self.optimizer_state, self.prepare = engine.optimizer_state, engine.prepare

    def step(self, batch, *, learning_rate, step):
        if step == self.stop:
            raise KeyboardInterrupt
        return self.engine.step(batch, learning_rate=learning_rate, step=step)


@pytest.mark.parametrize("stop", [1, 7, 20])
@pytest.mark.parametrize("name", ["transformer", "lstm-rnn"])
def test_a_run_that_stopped_ends_with_equal_bytes(name, stop, tmp_path):
    def run(folder, stopped):
        engine, config = engine_of(name, sparse_rows=True)
        if stopped:
            engine = StoppedBefore(engine, stop)
        return train(engine, HISTORIES, None, config, seed=0, run_folder=tmp_path / folder)

    assert run("whole", stopped=False).num_steps > stop
    with pytest.raises(KeyboardInterrupt):
        run("stopped", stopped=True)
    run("stopped", stopped=False)
    assert final_hashes(tmp_path / "stopped") == final_hashes(tmp_path / "whole")


def test_a_nan_changes_no_row_where_the_host_does_not_look():
    """The guard of a GPU, on the CPU."""
    table = torch.nn.Parameter(torch.ones(3, 2))
    adam = RowAdam({"t": table}, beta2=0.98, weight_decay=0.1)
    rows = torch.tensor([0, 2])
    adam.step("t", rows, torch.ones(2, 2), learning_rate=0.1, is_broken=torch.tensor(0.0))
    taken, state = table.detach().clone(), adam.state()
    assert taken[0, 0] < 1 == taken[1, 0]
    nan = torch.full((2, 2), torch.nan)
    adam.step("t", rows, nan, learning_rate=0.1, is_broken=torch.tensor(1.0))
    assert torch.equal(table.detach(), taken)
    for name, values in adam.state().items():
        np.testing.assert_array_equal(values, state[name])


def test_the_size_of_the_catalog_decides_unless_it_is_told():
    assert not TrainingConfig().has_sparse_rows(200_000)
    assert TrainingConfig().has_sparse_rows(200_001)
    assert TrainingConfig(sparse_rows=True).has_sparse_rows(10_000)
    assert not TrainingConfig(sparse_rows=False).has_sparse_rows(10**7)
    assert not TrainingConfig(sample_size=0).has_sparse_rows(10**7)
    assert not TrainingConfig(ema_decay=0.9).has_sparse_rows(10**7)


@pytest.mark.parametrize(
    ("told", "said"),
    [({"sample_size": 0}, "the loss is of all 40 items"), ({"ema_decay": 0.9}, r"ema_decay=0\.9")],
)
def test_where_each_step_touches_all_rows_sparse_ones_are_refused(told, said):
    with pytest.raises(ConfigError, match=said):
        engine_of("gru", sparse_rows=True, **told)


def test_tensorflow_refuses_them():
    shape = NETWORKS["lstm-rnn"][1]
    with pytest.raises(ConfigError, match=r"all rows in each step.*torch"):
        create_engine(
            "tensorflow", shape, TrainingConfig(sparse_rows=True, sample_size=3), weights={},
            item_counts=COUNTS, seed=0,
        )  # fmt: skip
