"""The network as a model: what it looks at, what both engines agree on, what it refuses."""

import subprocess
import sys

import numpy as np
import pytest

from nextbuy.data.encoding import encode
from nextbuy.data.histories import UNKNOWN, Histories
from nextbuy.data.worlds import UniformConfig, UniformWorld
from nextbuy.errors import ConfigError, MissingExtraError, TrainingError
from nextbuy.evaluation.evaluate import evaluate
from nextbuy.models.lstm_rnn import LstmRnn, LstmRnnConfig
from nextbuy.models.popularity import Popularity
from nextbuy.models.protocol import FitOptions
from nextbuy.nn.recurrent import LstmRnnShape, initial_weights
from nextbuy.splitting.held_out_users import hold_out_users
from nextbuy.testing.contract import cases_of, small_catalog
from nextbuy.training.batches import cut_into_windows, epoch_batches
from nextbuy.training.engine import TrainingConfig, create_engine
from nextbuy.training.order import order_test

NOTHING = cases_of(Histories.from_lists([]), [], as_of=None)
SMALL = {"embedding_size": 8, "lstm_size": 16, "rnn_size": 16}
ENGINES = ["torch", pytest.param("tensorflow", marks=pytest.mark.tensorflow)]


def circle(num_users=150, num_items=6, length=12):
    """Everybody walks round the items; the next one is certain."""
    starts = np.arange(num_users) % num_items
    return Histories.from_lists(
        [(1 + (start + np.arange(length)) % num_items).tolist() for start in starts]
    )


def fit(histories, validation=NOTHING, *, num_items=6, epochs=8, **config):
    model = LstmRnn(LstmRnnConfig(**SMALL, **config))
    return model.fit(histories, validation, small_catalog(num_items), FitOptions(epochs=epochs))


def p_next(model, history):
    return np.exp(model.log_probabilities(Histories.from_lists([history]), None))[0]


def weights_of(model):
    return {name: array.tobytes() for name, array in model.weights().items()}


def test_it_learns_a_circle():
    model = fit(circle(), training={"tokens": 128, "shuffle": "baskets"})
    for last in range(1, 7):
        before = [(last - 3 + i) % 6 + 1 for i in range(3)]
        assert p_next(model, before).argmax() == last % 6 + 1
        assert p_next(model, before).max() > 0.8


def test_the_sampled_loss_learns_it_too():
    training = {"tokens": 128, "shuffle": "baskets", "sample_size": 3}
    model = fit(circle(), training=training)
    assert p_next(model, [1, 2, 3]).argmax() == 4
    assert p_next(model, [1, 2, 3])[4] > 0.6


def test_the_sampled_loss_ends_at_the_true_odds_of_rare_and_frequent_items():
    """Drawn independently, so that the odds are all there is to learn."""
    odds = np.array([0.4, 0.3, 0.15, 0.1, 0.03, 0.02])
    drawn = 1 + np.random.default_rng(0).choice(6, p=odds, size=(400, 10))
    training = {"tokens": 256, "shuffle": "baskets", "sample_size": 3}
    model = fit(Histories.from_lists(drawn.tolist()), epochs=4, training=training)
    mean = np.mean([p_next(model, row[:5].tolist())[1:] for row in drawn[:100]], axis=0)
    assert mean == pytest.approx(odds, abs=0.05)


def test_what_lies_before_the_window_changes_nothing():
    model = fit(circle(), epochs=1, training={"tokens": 128, "longest_window": 8})
    newest = [1, 2, 3, 4, 5, 6, 1, 2]
    far = [p_next(model, [*old, *newest]) for old in ([3, 3], [6, 5, 4, 3], [2] * 50)]
    np.testing.assert_array_equal(far[0], far[1])
    np.testing.assert_array_equal(far[0], far[2])
    assert not np.array_equal(far[0], p_next(model, [3, 3, 4, *newest[1:]]))  # the oldest in it


def test_a_basket_that_the_window_cuts_still_has_no_order():
    histories = Histories.from_lists([[1, 2, 3, 4, 5, 6]] * 20, baskets=[[0, 0, 1, 1, 2, 2]] * 20)
    model = fit(histories, epochs=1, training={"tokens": 128, "longest_window": 4})
    one, two = (
        Histories.from_lists([items], baskets=[[0, 1, 1, 1, 1, 1, 1]])
        for items in ([1, 2, 3, 4, 5, 6, 1], [1, 6, 1, 5, 4, 2, 3])
    )
    np.testing.assert_array_equal(
        model.log_probabilities(one, None), model.log_probabilities(two, None)
    )


@pytest.mark.tensorflow
def test_equal_budgets_end_within_three_hundredths_of_a_nat_on_both_engines():
    world = UniformWorld(UniformConfig(num_users=4000), seed=5)
    encoded = encode(world.purchases())
    split = hold_out_users(encoded.catalog, encoded.histories, seed=0)
    losses = {}
    for engine in ("torch", "tensorflow"):
        model = LstmRnn(LstmRnnConfig(engine=engine))
        model.fit(split.train, split.validation, split.catalog, FitOptions(epochs=2))
        losses[engine] = evaluate(model, split.test, split.catalog, num_resamples=0).metrics["loss"]
    counting = Popularity().fit(split.train, split.validation, split.catalog, FitOptions())
    popularity = evaluate(counting, split.test, split.catalog, num_resamples=0).metrics["loss"]
    assert abs(losses["torch"] - losses["tensorflow"]) < 0.03
    assert max(losses.values()) < popularity - 0.1
    assert min(losses.values()) > world.limit(split.test, split.catalog)["loss"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("sample_size", [0, 4], ids=["full", "sampled"])
def test_both_engines_ask_a_basket_of_the_same_state(sample_size):
    """The same weights and the same batch of baskets cost the same."""
    histories = Histories.from_lists(
        [[1, 2, 3, 4, 5, 6], [6, 5, 4]], baskets=[[0, 0, 0, 1, 1, 2], [0, 1, 1]]
    )
    windows = cut_into_windows(histories, 9)
    (batch,) = epoch_batches(histories, windows, tokens=99, seed=0, epoch=0)
    assert len(batch.questions().states) == 5
    shape = LstmRnnShape(
        num_items=6, embedding_size=8, lstm_size=16, rnn_size=16, marks_baskets=True
    )
    counts = np.array([1, 1, 1, 2, 2, 2])
    weights = initial_weights(shape, seed=1, item_counts=counts, longest=6)
    losses = {}
    for name in ("torch", "tensorflow"):
        engine = create_engine(
            name, shape, TrainingConfig(sample_size=sample_size),
            weights=weights, item_counts=counts, seed=0,
        )  # fmt: skip
        losses[name] = [engine.step(batch, learning_rate=1e-3, step=step) for step in range(3)]
    np.testing.assert_allclose(losses["torch"], losses["tensorflow"], rtol=1e-4)


@pytest.mark.tensorflow
def test_what_tensorflow_trained_is_used_without_tensorflow(tmp_path):
    model = fit(circle(30), epochs=1, engine="tensorflow")
    model.save(tmp_path)
    np.save(tmp_path / "expected.npy", p_next(model, [1, 2, 3]))
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from nextbuy.models.lstm_rnn import LstmRnn\n"
        "from tests.models.test_lstm_rnn import p_next, small_catalog\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "found = p_next(LstmRnn.load(folder, small_catalog(6)), [1, 2, 3])\n"
        "assert np.array_equal(found, np.load(folder / 'expected.npy'))\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_order_matters_on_a_circle_and_not_among_exchangeable_purchases():
    histories = circle(300)
    validation = cases_of(histories, [[1 + i % 6] for i in range(300)], as_of=None)
    assert order_test(histories, validation, num_items=6, seed=0).order_matters

    world = UniformWorld(UniformConfig(num_users=3000), seed=1)
    encoded = encode(world.purchases())
    split = hold_out_users(encoded.catalog, encoded.histories, seed=0)
    test = order_test(split.train, split.validation, num_items=47, seed=0)
    assert test.num_cases >= 100
    assert not test.order_matters


@pytest.mark.parametrize(("kind", "chosen"), [("circle", "baskets"), ("random", "histories")])
def test_auto_shuffles_where_the_order_tells_nothing_and_only_there(kind, chosen):
    if kind == "circle":
        histories = circle(150)
    else:
        rng = np.random.default_rng(0)
        histories = Histories.from_lists([(1 + rng.permutation(6)).tolist() for _ in range(150)])
    last = histories.offsets[1:] - 1
    visible = histories.keep(~np.isin(np.arange(histories.num_purchases), last))
    validation = cases_of(visible, [[int(i)] for i in histories.items[last]], as_of=None)
    by_shuffle = {
        shuffle: weights_of(
            fit(visible, validation, epochs=1, training={"tokens": 128, "shuffle": shuffle})
        )
        for shuffle in ("auto", "baskets", "histories")
    }
    (other,) = {"baskets", "histories"} - {chosen}
    assert by_shuffle["auto"] == by_shuffle[chosen] != by_shuffle[other]


def test_baskets_that_hold_several_purchases_are_never_taken_apart_by_auto():
    rng = np.random.default_rng(0)
    rows = [(1 + rng.permutation(6)).tolist() for _ in range(150)]
    histories = Histories.from_lists([row[:5] for row in rows], baskets=[[0, 0, 1, 1, 2]] * 150)
    validation = cases_of(histories, [row[5:] for row in rows], as_of=None)
    assert not order_test(histories, validation, num_items=6, seed=0).order_matters
    auto, baskets = (
        weights_of(fit(histories, validation, epochs=1, training={"tokens": 128, "shuffle": s}))
        for s in ("auto", "baskets")
    )
    assert auto == baskets


KNOBS = [
    {"embedding_size": 9},
    {"lstm_size": 17},
    {"rnn_size": 17},
    {"dropout": 0.5},
    {"temperature": 2.0},
    {"item_start": "spectral"},
    {"training": {"epochs": 2}},
    {"training": {"learning_rate": 1e-3}},
    {"training": {"tokens": 64}},
    {"training": {"longest_window": 5}},
    {"training": {"beta2": 0.9}},
    {"training": {"weight_decay": 0.5}},
    {"training": {"clip_norm": 1e-3}},
    {"training": {"ema_decay": 0.9}},
    {"training": {"loss": "gbce"}},
    {"training": {"shuffle": "histories"}},
    {"training": {"sample_size": 3}},
]
TESTED_ELSEWHERE = {"engine", "device", "training", "patience", "checkpoint_seconds",
                    "period_days", "precision", "sparse_rows", "chosen_by"}  # fmt: skip


@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_every_knob_changes_what_is_learned(knob):
    base = {"tokens": 128, "epochs": 1}
    plain = fit(circle(40), epochs=None, training=base)
    turned = {**SMALL, **knob, "training": base | knob.get("training", {})}
    other = LstmRnn(LstmRnnConfig(**turned))
    other.fit(circle(40), NOTHING, small_catalog(6), FitOptions())
    assert not np.array_equal(p_next(plain, [1, 2]), p_next(other, [1, 2]))


def test_no_knob_is_left_out():
    turned = {name for knob in KNOBS for name in [*knob, *knob.get("training", {})]}
    fields = {*LstmRnnConfig.model_fields, *TrainingConfig.model_fields}
    assert turned | TESTED_ELSEWHERE == fields


def test_the_start_is_drawn_from_the_seed():
    def trained(seed, **training):
        model = LstmRnn(LstmRnnConfig(**SMALL, training={"tokens": 64, "epochs": 1, **training}))
        return model.fit(circle(12), NOTHING, small_catalog(6), FitOptions(seed=seed)).weights()

    hardly_moved = [trained(seed, learning_rate=1e-9)["embedding.weight"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(hardly_moved[0], hardly_moved[1])
    assert np.abs(hardly_moved[0] - hardly_moved[2]).max() > 0.1


def test_the_weights_of_the_best_epoch_are_kept_and_patience_says_when_to_stop():
    """Validation walks the circle backwards, so that every epoch of learning makes it worse."""
    backwards = Histories.from_lists([[3, 2, 1], [5, 4, 3], [2, 1, 6]])
    validation = cases_of(backwards, [[6], [2], [5]], as_of=None)
    training = {"tokens": 128, "shuffle": "baskets"}
    hasty, patient = (
        fit(circle(), validation, epochs=6, training=training | {"patience": patience})
        for patience in (2, 6)
    )
    assert (hasty.result.best_epoch, hasty.result.num_epochs) == (0, 3)
    assert (patient.result.best_epoch, patient.result.num_epochs) == (0, 6)
    assert weights_of(hasty) == weights_of(patient)


def test_the_shuffling_that_was_asked_for_is_done():
    sequential = fit(circle(), training={"tokens": 128, "shuffle": "baskets"})
    shuffled = fit(circle(), training={"tokens": 128, "shuffle": "histories"})
    assert p_next(sequential, [1, 2, 3])[4] > 0.8
    assert p_next(shuffled, [1, 2, 3])[4] < 0.5


@pytest.mark.parametrize("engine", ENGINES)
def test_T22_a_last_batch_of_one_and_a_catalog_of_one_item_are_trained(engine):
    training = {"tokens": 4}
    model = fit(
        Histories.from_lists([[1, 1]] * 5), num_items=1, epochs=1, engine=engine, training=training
    )
    assert model.result.num_steps == 3  # batches of two, two and one
    assert np.isfinite(model.result.best_score)
    assert p_next(model, [1]) == pytest.approx([0.0, 1.0])


def test_T22_users_who_bought_nothing_change_nothing():
    rows = [[1, 2, 3], [4, 5], [6]]
    alone = fit(Histories.from_lists(rows), epochs=1)
    among = fit(Histories.from_lists([[], *rows[:1], [], [], *rows[1:], []]), epochs=1)
    assert weights_of(among) == weights_of(alone)


def test_T22_nothing_to_train_on_is_said_with_the_number_of_users():
    with pytest.raises(TrainingError, match="No purchase to train on: 3 users"):
        fit(Histories.from_lists([[], [], []]), epochs=1)


def test_a_validation_of_unknown_items_keeps_the_last_epoch_that_training_found_better():
    """The catalog may lack all that the few validation users bought; training goes on without."""
    unknown = cases_of(Histories.from_lists([[1, 2]]), [[UNKNOWN]], as_of=None)
    training = {"tokens": 128, "shuffle": "baskets"}
    model, without = (fit(circle(), v, epochs=4, training=training) for v in (unknown, NOTHING))
    assert weights_of(model) == weights_of(without)
    assert p_next(model, [1, 2, 3]).argmax() == 4


@pytest.mark.parametrize("device", ["cuda:99", "mps", "CPU", "", "meta"])
def test_T23_a_device_that_is_not_there_is_refused_with_those_that_are(device):
    with pytest.raises(ConfigError, match=f"'{device}' is not here; there is cpu"):
        fit(circle(9), epochs=1, device=device)


@pytest.mark.tensorflow
def test_T23_tensorflow_on_another_device_than_the_cpu_is_refused():
    with pytest.raises(ConfigError, match="trains on the CPU only; asked for 'cuda'"):
        fit(circle(9), epochs=1, device="cuda", engine="tensorflow")


def test_without_tensorflow_it_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match="tensorflow"):
        fit(circle(9), epochs=1, engine="tensorflow")


def test_a_learning_rate_that_is_told_is_used():
    slow = fit(circle(), epochs=2, training=TrainingConfig(tokens=128, learning_rate=1e-6))
    assert p_next(slow, [1, 2, 3])[1:] == pytest.approx([1 / 6] * 6, abs=0.15)
