"""The network as a model: what it looks at, what both engines agree on, what it refuses."""

import subprocess
import sys

import numpy as np
import pytest

from nextbuy.data.encoding import encode
from nextbuy.data.histories import Histories
from nextbuy.data.worlds import UniformConfig, UniformWorld
from nextbuy.errors import ConfigError, MissingExtraError
from nextbuy.evaluation.evaluate import evaluate
from nextbuy.models.lstm_rnn import LstmRnn, LstmRnnConfig
from nextbuy.models.popularity import Popularity
from nextbuy.models.protocol import FitOptions
from nextbuy.splitting.held_out_users import hold_out_users
from nextbuy.testing.contract import cases_of, small_catalog
from nextbuy.training.engine import TrainingConfig
from nextbuy.training.order import order_test

NOTHING = cases_of(Histories.from_lists([]), [], as_of=None)
SMALL = {"embedding_size": 8, "lstm_size": 16, "rnn_size": 16}


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


def test_what_lies_before_the_window_changes_nothing():
    model = fit(circle(), epochs=1, training={"tokens": 128, "longest_window": 8})
    newest = [1, 2, 3, 4, 5, 6, 1, 2]
    far = [p_next(model, [*old, *newest]) for old in ([3, 3], [6, 5, 4, 3], [2] * 50)]
    np.testing.assert_array_equal(far[0], far[1])
    np.testing.assert_array_equal(far[0], far[2])
    assert not np.array_equal(far[0], p_next(model, [1, *newest[1:-1], 5]))


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


def test_the_shuffling_that_was_asked_for_is_done():
    sequential = fit(circle(), training={"tokens": 128, "shuffle": "baskets"})
    shuffled = fit(circle(), training={"tokens": 128, "shuffle": "histories"})
    assert p_next(sequential, [1, 2, 3])[4] > 0.8
    assert p_next(shuffled, [1, 2, 3])[4] < 0.5


def test_T22_a_last_batch_of_one_and_a_catalog_of_one_item_are_trained():
    model = fit(Histories.from_lists([[1] * 9]), num_items=1, epochs=1, training={"tokens": 4})
    assert p_next(model, [1]) == pytest.approx([0.0, 1.0])


def test_T23_a_device_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"'cuda:7' is not here; there is cpu"):
        fit(circle(9), epochs=1, device="cuda:7")
    with pytest.raises(ConfigError, match="trains on the CPU only"):
        fit(circle(9), epochs=1, device="cuda", engine="tensorflow")


def test_without_tensorflow_it_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match="tensorflow"):
        fit(circle(9), epochs=1, engine="tensorflow")


def test_a_learning_rate_that_is_told_is_used():
    slow = fit(circle(), epochs=2, training=TrainingConfig(tokens=128, learning_rate=1e-6))
    assert p_next(slow, [1, 2, 3])[1:] == pytest.approx([1 / 6] * 6, abs=0.15)
