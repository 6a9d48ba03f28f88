"""A limit on memory: what does not fit is left out before it takes the memory, and it is said."""

import numpy as np
import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError, MemoryIsShortError, TrainingError
from nextbuy.memory import MIB, resident_bytes
from nextbuy.models.ease import Ease
from nextbuy.models.protocol import FitOptions
from nextbuy.models.transformer import Transformer, TransformerConfig
from nextbuy.testing.contract import cases_of, small_catalog
from tests.shop import shop_log


def test_memory_that_is_held_is_counted():
    before = resident_bytes()
    held = np.ones(512 * MIB, dtype=np.uint8)
    assert 400 * MIB < resident_bytes() - before < 700 * MIB
    del held


def test_what_does_not_fit_is_refused_before_it_is_taken():
    options = FitOptions(memory_limit=resident_bytes() + 100 * MIB)
    options.check_memory(1 * MIB)
    with pytest.raises(MemoryIsShortError, match=r"about 5,000 MiB are needed, \d+ MiB are left"):
        options.check_memory(5_000 * MIB)
    FitOptions().check_memory(1e30)


@pytest.mark.parametrize(
    ("model", "num_items"),
    [(Ease(), 11_000), (Transformer(TransformerConfig(size="large")), 500_000)],
    ids=["ease", "transformer"],
)
def test_large_models_ask_before_they_begin(model, num_items):
    histories = Histories.from_lists([[1, 2, 3]] * 5)
    cases = cases_of(histories, [[4]] * 5, as_of=None)
    options = FitOptions(memory_limit=resident_bytes() + 300 * MIB)
    with pytest.raises(MemoryIsShortError):
        model.fit(histories, cases, small_catalog(num_items), options)


def test_models_without_room_are_left_out_and_named():
    limit = 1_000_000.0
    config = PredictorConfig.of(models=["popularity", "ease"], memory_limit=limit)
    assert Predictor.fit(shop_log(), config=config).facts["skipped"] == {}
    tight = PredictorConfig.of(models=["popularity", "ease"], memory_limit=1.0)
    predictor = Predictor.fit(shop_log(), config=tight)
    assert [row["model"] for row in predictor.facts["leaderboard"]] == ["popularity"]
    assert "MiB are needed, 0 MiB are left of 1" in predictor.facts["skipped"]["ease"]


def test_no_room_for_any_model_is_an_error():
    config = PredictorConfig.of(models=["ease"], memory_limit=1.0)
    with pytest.raises(TrainingError, match="no room for any model; ease was first: The memory"):
        Predictor.fit(shop_log(), config=config)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_above_nothing(limit):
    with pytest.raises(ConfigError, match="memory_limit"):
        PredictorConfig.of(memory_limit=limit)
