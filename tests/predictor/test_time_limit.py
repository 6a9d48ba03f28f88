"""A limit on time: what is there when it ends, what was left out, and that it is kept."""

import math
import time

import numpy as np
import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.data.encoding import encode
from nextbuy.data.histories import Histories
from nextbuy.data.reading import read_purchases
from nextbuy.errors import ConfigError, TimeIsUpError, TrainingError
from nextbuy.models.lstm_rnn import LstmRnn, LstmRnnConfig
from nextbuy.models.popularity import Popularity
from nextbuy.models.protocol import FitOptions
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.fitting import fit_and_score
from nextbuy.progress import SilentProgress
from nextbuy.splitting.choice import choose_split
from nextbuy.testing.contract import cases_of, small_catalog
from tests.shop import shop_log


@pytest.fixture(scope="module")
def split():
    encoded = encode(read_purchases(shop_log()))
    return choose_split("temporal", encoded.catalog, encoded.histories, seed=0)


class Slow(Popularity):
    """Takes its time to fit, and to answer."""

    def __init__(self, fit=0.0, answer=0.0):
        super().__init__()
        self._fit, self._answer = fit, answer

    def fit(self, train, validation, catalog, options):
        time.sleep(self._fit)
        return super().fit(train, validation, catalog, options)

    def log_probabilities(self, histories, as_of):
        time.sleep(self._answer * len(histories))
        return super().log_probabilities(histories, as_of)


class NeedsAnHour(Popularity):
    def fit(self, train, validation, catalog, options):
        options.check_time(3600)
        raise AssertionError("went on")


def fit(models, split, budget):
    return fit_and_score(
        models, split, PredictorConfig(), run_folder=None, world=None,
        progress=SilentProgress(), budget=budget,
    )  # fmt: skip


def soon(seconds=60.0):
    return TimeBudget.of(seconds, time.monotonic())


def test_what_there_is_no_time_for_is_left_out_with_the_reason(split):
    found = fit({"quick": Popularity(), "long": NeedsAnHour()}, split, soon())
    assert set(found.models) == set(found.members) == {"quick"}
    assert found.skipped["long"].startswith("The time is up: about 3600 s are needed, ")
    assert [row.model for row in found.rows] == ["quick"]
    assert found.scored_share == 1.0


def test_what_comes_after_the_end_of_fitting_is_not_begun(split):
    budget = TimeBudget(fitted=time.monotonic() + 0.2, scored=time.monotonic() + 60)
    models = {"quick": Popularity(), "slow": Slow(fit=0.3), "late": NeedsAnHour()}
    found = fit(models, split, budget)
    assert set(found.members) == {"quick", "slow"}
    assert set(found.skipped) == {"late"}
    assert "blend" in found.models


def test_without_time_for_a_single_model_it_says_so(split):
    with pytest.raises(TrainingError, match="no room for any model; late was first: The time"):
        fit({"late": NeedsAnHour()}, split, soon())


def test_slow_answers_are_asked_of_fewer_cases_and_in_time(split):
    answer = 0.004
    test = split.test.take(np.tile(np.arange(len(split.test)), 20))
    many = type(split)(**{name: getattr(split, name) for name in split.__slots__} | {"test": test})
    started = time.monotonic()
    found = fit({"slow": Slow(answer=answer)}, many, TimeBudget.of(4.0, started))
    assert 0 < found.scored_share < 1
    asked = found.rows[0].test.metrics["num_cases"]
    assert 100 <= asked < len(test)
    assert time.monotonic() - started < 4.0 < answer * len(test)


def test_without_a_limit_all_cases_are_scored(split):
    found = fit({"slow": Slow(answer=0.0001)}, split, TimeBudget())
    assert found.scored_share == 1.0
    assert found.rows[0].test.metrics["num_cases"] == len(split.test)


def test_the_network_stops_in_time_and_keeps_what_it_has():
    items = [(1 + (start + np.arange(40)) % 6).tolist() for start in range(2_000)]
    train = Histories.from_lists(items)
    validation = cases_of(Histories.from_lists(items[:6]), [[1 + (40 + n) % 6] for n in range(6)],
                          as_of=None)  # fmt: skip
    model = LstmRnn(LstmRnnConfig(embedding_size=16, lstm_size=64, rnn_size=64))
    started = time.monotonic()
    options = FitOptions(epochs=10_000, deadline=started + 4.0)
    model.fit(train, validation, small_catalog(6), options)
    assert time.monotonic() - started < 8.0
    assert model.result.num_steps >= 1
    assert model.result.best_score < math.log(6)  # it did learn something


def test_the_network_says_so_when_there_is_no_time_at_all():
    train = Histories.from_lists([[1, 2, 3]] * 10)
    nothing = cases_of(Histories.from_lists([]), [], as_of=None)
    with pytest.raises(TimeIsUpError, match="0 s are left to train"):
        LstmRnn().fit(train, nothing, small_catalog(3), FitOptions(deadline=time.monotonic()))


def test_a_predictor_keeps_its_limit_and_says_what_it_left_out(tmp_path):
    started = time.monotonic()
    predictor = Predictor.fit(
        shop_log(), config=PredictorConfig(preset="balanced", time_limit=12, epochs=100_000)
    )
    predictor.save(tmp_path)
    assert time.monotonic() - started < 12 * 1.1 + 3  # 3 s: other tests run beside this one
    loaded = Predictor.load(tmp_path)
    assert loaded.facts["skipped"] == predictor.facts["skipped"]
    assert loaded.predict(["u1"], k=2).height == 2


@pytest.mark.parametrize("limit", [0, -1.0])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ConfigError, match="time_limit"):
        PredictorConfig.of(time_limit=limit)
