"""The GRU as a model: it learns order, and each knob does something."""

import numpy as np
import pytest

from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError
from nextbuy.models.gru import Gru, GruConfig
from nextbuy.models.protocol import FitOptions
from nextbuy.testing.contract import cases_of, small_catalog

V = 6
NOTHING = cases_of(Histories.from_lists([]), [], as_of=None)
TRAINING = {"tokens": 128, "shuffle": "baskets"}


def circle(num_users=120):
    """Everybody walks 1, 2, 3, 4, 5, 6, 1 ... from a start of their own; nobody repeats."""
    return Histories.from_lists([[(u + i) % V + 1 for i in range(5)] for u in range(num_users)])


def fit(histories, *, epochs=8, **config):
    model = Gru(GruConfig(**{"training": TRAINING} | config))
    return model.fit(histories, NOTHING, small_catalog(V), FitOptions(epochs=epochs))


def p_next(model, row):
    return np.exp(model.log_probabilities(Histories.from_lists([row]), None)[0])


def test_the_order_of_purchases_is_learnt():
    model = fit(circle())
    for start in range(1, 4):
        assert p_next(model, [start, start + 1, start + 2])[start + 3] > 0.8


def test_more_than_the_last_purchase_is_remembered():
    """After 5, 5, 5 comes what came first: 1 or 2."""
    rows = [[first, 5, 5, 5, first] for first in (1, 2)] * 60
    model = fit(Histories.from_lists(rows), epochs=12)
    assert p_next(model, [1, 5, 5, 5])[1] > 0.8
    assert p_next(model, [2, 5, 5, 5])[2] > 0.8


@pytest.mark.parametrize("size", ["medium", "large"])
def test_larger_sizes_have_more_weights(size):
    small, larger = (fit(circle(4), epochs=1, size=s).weights() for s in ("small", size))
    assert sum(w.size for w in larger.values()) > 3 * sum(w.size for w in small.values())


def test_tensorflow_is_refused():
    with pytest.raises(ConfigError, match="TensorFlow engine trains lstm-rnn only"):
        fit(circle(9), epochs=1, engine="tensorflow")


KNOBS = [{"size": "medium"}, {"dropout": 0.9}, {"temperature": 2.0}, {"item_start": "spectral"}]


@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_every_knob_changes_what_is_learned(knob):
    plain, turned = fit(circle(40), epochs=1), fit(circle(40), epochs=1, **knob)
    assert not np.array_equal(p_next(plain, [1, 2]), p_next(turned, [1, 2]))


def test_no_knob_is_left_out():
    turned = {name for knob in KNOBS for name in knob}
    assert turned | {"engine", "device", "training", "chosen_by"} == set(GruConfig.model_fields)
