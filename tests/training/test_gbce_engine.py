"""gBCE inside the engine: it learns, with negatives drawn uniformly, where it may."""

import numpy as np
import pytest

from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError
from nextbuy.models.gru import Gru, GruConfig
from nextbuy.models.lstm_rnn import LstmRnn, LstmRnnConfig
from nextbuy.models.protocol import FitOptions
from nextbuy.models.transformer import Transformer, TransformerConfig
from nextbuy.nn.gbce import gbce_loss
from nextbuy.testing.contract import cases_of, small_catalog
from nextbuy.training import torch_engine
from nextbuy.training.engine import ItemSampler, TrainingConfig

V = 6
NOTHING = cases_of(Histories.from_lists([]), [], as_of=None)
TRAINING = {"tokens": 128, "learning_rate": 1e-2, "shuffle": "baskets", "loss": "gbce"}
CIRCLE = Histories.from_lists([[(u + i) % V + 1 for i in range(5)] for u in range(120)])


def fit(model, epochs=8):
    return model.fit(CIRCLE, NOTHING, small_catalog(V), FitOptions(epochs=epochs))


def ranks_first(model, row):
    return model.log_probabilities(Histories.from_lists([row]), None)[0].argmax()


@pytest.mark.parametrize("sample_size", [0, 3], ids=["whole catalog", "sampled"])
@pytest.mark.parametrize("kind", ["gru", "transformer", "lstm-rnn"])
def test_order_is_learnt(kind, sample_size):
    training = TRAINING | {"sample_size": sample_size}
    model = {
        "gru": lambda: Gru(GruConfig(training=training)),
        "transformer": lambda: Transformer(TransformerConfig(training=training, repeats=False)),
        "lstm-rnn": lambda: LstmRnn(
            LstmRnnConfig(training=training, embedding_size=8, lstm_size=16, rnn_size=16)
        ),
    }[kind]()
    fit(model)
    assert [ranks_first(model, [i, i + 1, i + 2]) for i in (1, 2, 3)] == [4, 5, 6]


def test_negatives_are_uniform_whatever_is_bought():
    counts = np.array([1000, 0, 1, 1, 1, 1])
    found = {}
    for loss in ("softmax", "gbce"):
        sampler = ItemSampler.create(TrainingConfig(sample_size=3, loss=loss), counts, seed=0)
        drawn = np.concatenate([sampler.draw(step) for step in range(2_000)])
        found[loss] = np.bincount(drawn, minlength=V) / len(drawn)
    assert found["gbce"] == pytest.approx(np.full(V, 1 / 6), abs=0.02)
    assert found["softmax"][0] > 0.5


def test_each_step_has_negatives_of_its_own(monkeypatch):
    seen = []

    def watched(*arguments, samples_S, **more):
        seen.append(tuple(samples_S.tolist()))
        return gbce_loss(*arguments, samples_S=samples_S, **more)

    monkeypatch.setattr(torch_engine, "gbce_loss", watched)
    fit(Gru(GruConfig(training=TRAINING | {"sample_size": 3})), epochs=2)
    assert len(set(seen)) > len(seen) / 3
    assert all(len(set(samples)) == len(samples) <= 3 for samples in seen)


def test_a_repeat_head_is_refused():
    with pytest.raises(ConfigError, match=r"repeat head.*gbce.*repeats=False"):
        fit(Transformer(TransformerConfig(training=TRAINING, repeats=True)), epochs=1)


def test_tensorflow_refuses_it():
    config = LstmRnnConfig(training=TRAINING, engine="tensorflow")
    with pytest.raises(ConfigError, match="softmax loss only; asked for gbce"):
        fit(LstmRnn(config), epochs=1)
