"""Forecasts of what the next purchase holds and costs, from a log to the table."""

import shutil
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nextbuy import Predictor, PredictorConfig
from nextbuy.errors import TrainingError
from nextbuy.predictor import amount_fit
from nextbuy.predictor.amount_fit import next_item_values
from nextbuy.storage import write_json
from nextbuy.timing.amounts import GAMMA_GAMMA, ITEM_PRICES, PERSONAL_MEAN
from nextbuy.timing.gamma_gamma import GammaGamma
from tests.shop import EPOCH, shop_log

CONFIG = PredictorConfig(models=("popularity", "markov"))
VALUE = "expected_value_next_basket"


def alternating_log(num_users=80, seed=2):
    """Everybody buys ink for 2 and a printer for 100 in turn, about once a week; every third user
    buys three of ink at once. What comes next tells the value, the mean of the past does not."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        day, turn, dear = rng.uniform(0, 7), int(rng.integers(2)), rng.uniform(0.8, 1.2)
        while day < 100:
            item, price = (("ink", 2.0), ("printer", 100.0))[turn]
            units = 3 if turn == 0 and user % 3 == 0 else 1
            rows.append((f"u{user}", item, EPOCH + timedelta(days=day), dear * price, units))
            day, turn = day + rng.gamma(3.0, 2.5), 1 - turn
    return pl.DataFrame(
        rows, schema=["user_id", "item_id", "timestamp", "price", "quantity"], orient="row"
    )


@pytest.fixture(scope="module")
def alternating():
    return Predictor.fit(alternating_log(), config=CONFIG)


def test_where_the_next_item_tells_the_value_it_is_listened_to(alternating):
    facts = alternating.facts["timing"]
    assert facts["spend"] == "blend"
    amount = facts["amount"]
    assert amount["weights"][ITEM_PRICES] > 0.8
    test = amount["test"]
    assert test["blend"]["mae"] < 0.7 * test[GAMMA_GAMMA]["mae"]
    last = alternating_log().sort("timestamp").group_by("user_id").agg(pl.col("item_id").last())
    found = alternating.forecast().join(last, on="user_id")
    ink_next = found.filter(item_id="printer")[VALUE].mean()
    printer_next = found.filter(item_id="ink")[VALUE].mean()
    assert printer_next > 2 * ink_next


def test_spend_is_purchases_times_the_value_of_the_next_basket(alternating):
    found = alternating.forecast()
    spend = found["expected_purchases_90d"] * found[VALUE]
    assert found["expected_spend_90d"].to_numpy() == pytest.approx(spend.to_numpy(), rel=1e-12)


def test_units_are_those_that_users_buy_and_items_are_one(alternating):
    found = alternating.forecast()
    assert found["expected_items_next_basket"].to_numpy() == pytest.approx(1.0)
    thirds = found["user_id"].str.slice(1).cast(pl.Int64).to_numpy() % 3 == 0
    units = found["expected_units_next_basket"].to_numpy()
    assert units[thirds] == pytest.approx(2.0, abs=0.2)
    assert units[~thirds] == pytest.approx(1.0, abs=0.1)


def test_the_expectation_over_items_is_the_sum_over_all_of_them(alternating, monkeypatch):
    """Against a plain loop over what `predict` says of every item, in chunks of any size."""
    model, values = alternating.models["markov"], np.array([0.0, 7.0, 11.0], dtype=np.float32)
    who = alternating.histories.take(np.arange(20))
    end = int(alternating.facts["timing"]["observed_until"])
    offers = alternating.predict(who, k=2, model="markov", as_of=np.full(20, end))
    index = {row["item_id"]: n + 1 for n, row in enumerate(alternating.catalog.table.to_dicts())}
    expected = dict.fromkeys(who.user_ids, 0.0)
    for row in offers.to_dicts():
        expected[row["user_id"]] += row["probability"] * float(values[index[row["item_id"]]])
    found = next_item_values(model, who, end, values)
    assert found == pytest.approx(list(expected.values()), rel=1e-5)
    monkeypatch.setattr("nextbuy.audience.study._CHUNK_VALUES", 6)
    assert next_item_values(model, who, end, values) == pytest.approx(found, rel=1e-6)
    moments = np.full(20, end)
    moments[:5] = int(who.times[who.offsets[:5]].max()) + 1
    assert next_item_values(model, who, moments, values)[5:] == pytest.approx(found[5:])


def test_asked_one_by_one_and_after_a_moment_the_values_are_the_same(alternating):
    everybody = alternating.forecast()
    assert_frame_equal(
        alternating.forecast(["u7", "u3"]),
        pl.concat([everybody.filter(user_id=one) for one in ("u7", "u3")]),
    )
    cut, _ = alternating.encode_histories(
        alternating_log().filter(pl.col("timestamp") < EPOCH + timedelta(days=60))
    )
    early = EPOCH + timedelta(days=60)
    assert_frame_equal(
        alternating.forecast(cut.user_ids.to_list(), as_of=early),
        alternating.forecast(cut, as_of=early),
    )


def test_a_saved_predictor_knows_what_items_cost(alternating, tmp_path):
    alternating.save(tmp_path)
    assert_frame_equal(Predictor.load(tmp_path).forecast(), alternating.forecast())


def test_a_bundle_from_before_amounts_forecasts_by_gamma_gamma(alternating, tmp_path):
    """As it was stored before: Gamma-Gamma alone, no sizes of baskets, no facts of amounts."""
    version = alternating.save(tmp_path)
    shutil.rmtree(version / "timing" / "sizes")
    shutil.rmtree(version / "timing" / "amount" / "blend")
    rewrite_manifest(version)
    old = Predictor.load(tmp_path).forecast()
    assert old["expected_items_next_basket"].null_count() == len(old)
    gamma_gamma = alternating.forecaster.amounts.gamma_gamma
    end = int(alternating.facts["timing"]["observed_until"])
    value = gamma_gamma.expected_spend(alternating.histories, end)
    assert old[VALUE].to_numpy() == pytest.approx(value)


def rewrite_manifest(version):
    """As if the version had been published with the files that are left."""
    from nextbuy import storage

    manifest = storage.read_json(version / storage.MANIFEST)
    manifest["files"] = {
        name: entry for name, entry in manifest["files"].items() if (version / name).exists()
    }
    (version / storage.MANIFEST).unlink()
    write_json(version / storage.MANIFEST, manifest)


def test_amounts_that_learn_from_the_whole_log_keep_their_weights():
    config = CONFIG.model_copy(update={"refit_full": True})
    found = Predictor.fit(alternating_log(), config=config)
    amounts = found.forecaster.amounts
    assert amounts.weights == found.facts["timing"]["amount"]["weights"]
    assert len(amounts.item_values) == len(found.catalog) + 1
    assert found.forecast()[VALUE].null_count() == 0


def test_amounts_that_cannot_be_fitted_again_stay_as_they_were(monkeypatch):
    fit, calls = GammaGamma.fit, []

    def fails_on_the_whole_log(self, train, as_of):
        calls.append(as_of)
        if as_of > int(train.times.max()):
            raise TrainingError("no maximum")
        return fit(self, train, as_of)

    monkeypatch.setattr(GammaGamma, "fit", fails_on_the_whole_log)
    config = CONFIG.model_copy(update={"refit_full": True})
    found = Predictor.fit(alternating_log(), config=config)
    assert len(calls) >= 3
    assert len(found.forecaster.amounts.item_values) == len(found.catalog) + 1
    assert found.forecast()[VALUE].null_count() == 0


def test_the_test_period_chooses_no_weights(alternating):
    log, first = alternating_log(), alternating.facts["timing"]
    later = pl.col("timestamp") >= pl.lit(first["test_start"]).str.to_datetime(time_zone="UTC")
    dearer = log.with_columns(pl.when(later).then(pl.col("price") * 9).otherwise("price"))
    second = Predictor.fit(dearer, config=CONFIG).facts["timing"]
    assert second["amount"]["validation"] == first["amount"]["validation"]
    assert second["amount"]["weights"] == first["amount"]["weights"]
    assert second["amount"]["test"]["blend"]["came"] > 8 * first["amount"]["test"]["blend"]["came"]


def test_weights_need_a_temporal_split_and_some_users(monkeypatch):
    by_user = PredictorConfig(models=("popularity",), split="leave-last-out")
    timing = Predictor.fit(shop_log(), config=by_user).facts["timing"]
    assert timing["amount"]["reason"] == (
        "amounts are weighed under a temporal split, not leave-last-out"
    )
    assert timing["spend"] == GAMMA_GAMMA
    monkeypatch.setattr(amount_fit, "_FEWEST_USERS", 1_000)
    few = Predictor.fit(shop_log(), config=CONFIG)
    assert "to weigh, 1000 are needed" in few.facts["timing"]["amount"]["reason"]
    assert few.forecaster.amounts.weights == {GAMMA_GAMMA: 1.0}


def test_scores_say_what_each_member_and_the_blend_were_worth(alternating):
    for period in ("validation", "test"):
        found = alternating.facts["timing"]["amount"][period]
        assert set(found) == {
            GAMMA_GAMMA, PERSONAL_MEAN, ITEM_PRICES, "blend", "items", "units",
        }  # fmt: skip
        best = min(found[name]["deviance"] for name in (GAMMA_GAMMA, PERSONAL_MEAN, ITEM_PRICES))
        if period == "validation":
            assert found["blend"]["deviance"] <= best
        assert found["items"]["said"] == pytest.approx(found["items"]["came"])
        assert {found[name]["num_users"] for name in found} == {found["items"]["num_users"]}
