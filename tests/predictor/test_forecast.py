"""When customers come back: columns, units, refusals, and whether what is said comes true."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nextbuy import Predictor, PredictorConfig
from nextbuy.bundle import load_bundle
from nextbuy.errors import BundleError, ConfigError
from nextbuy.timing import forecaster
from tests.shop import EPOCH, shop_log

FAST = PredictorConfig(models=("popularity",))
COLUMNS = [
    "user_id", "days_to_next_p10", "days_to_next_p50", "days_to_next_p90", "p_buy_7d",
    "p_buy_30d", "p_buy_90d", "p_active", "expected_items_next_basket",
    "expected_units_next_basket", "expected_value_next_basket", "expected_purchases_90d",
    "expected_spend_90d", "lifetime_value_365d", "as_of",
]  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    return Predictor.fit(shop_log(), config=FAST)


def random_buyers(num_users=600, days=400, seed=3):
    """Purchases at random: half of the users every 8 days, half every 40; 10 % leave half-way."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        mean = 8.0 if user % 2 else 40.0
        leaves = days / 2 if rng.random() < 0.1 else days
        day = rng.uniform(0, 20)
        while day < leaves:
            rows.append((f"u{user}", "tea", EPOCH + timedelta(days=day), 2.0 + user % 3))
            day += rng.exponential(mean)
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "price"], orient="row")


@pytest.fixture(scope="module")
def random_shop():
    return Predictor.fit(random_buyers(), config=FAST)


@pytest.fixture(scope="module")
def few_buyers():
    return random_buyers(100)


@pytest.fixture(scope="module")
def few(few_buyers):
    return Predictor.fit(few_buyers, config=FAST)


def test_a_forecast_is_one_tidy_row_for_each_user(fitted):
    found = fitted.forecast()
    assert found.columns == COLUMNS
    assert found["user_id"].to_list() == fitted.histories.user_ids.to_list()
    values = found.select(COLUMNS[1:-1]).drop("expected_units_next_basket")  # no quantities
    assert values.null_count().sum_horizontal().item() == 0
    end = shop_log()["timestamp"].max()
    assert end < found["as_of"][0] <= end + timedelta(days=1)


def test_probabilities_rise_with_the_horizon_and_quantiles_with_the_probability(fitted):
    for found in (fitted.forecast(), fitted.forecast(as_of=datetime(2025, 6, 1, tzinfo=UTC))):
        p = found.select("p_buy_7d", "p_buy_30d", "p_buy_90d").to_numpy()
        assert (p >= 0).all() and (p <= 1).all() and (np.diff(p, axis=1) >= 0).all()
        days = found.select(COLUMNS[1:4]).to_numpy()
        assert (days[:, 0] > 0).all()
        assert (days[:, :2] <= days[:, 1:]).all()
        assert found["p_active"].is_between(0, 1).all()
        assert (found["expected_purchases_90d"] >= 0).all()


def test_asked_one_by_one_the_answers_are_those_of_all(fitted):
    everybody = fitted.forecast()
    some = fitted.forecast(["u7", "u3"])
    expected = pl.concat([everybody.filter(user_id=one) for one in ("u7", "u3")])
    assert_frame_equal(some, expected)
    assert_frame_equal(fitted.forecast(fitted.histories_of(["u7", "u3"])), expected)


def test_a_user_whom_nobody_knows_has_a_row_without_answers(fitted):
    row = fitted.forecast(["nobody", "u1"]).row(0, named=True)
    assert row["user_id"] == "nobody"
    assert all(row[name] is None for name in COLUMNS[1:-1])


def test_only_purchases_before_the_moment_count(fitted):
    early = EPOCH + timedelta(days=40)
    log = shop_log()
    cut, _ = fitted.encode_histories(log.filter(pl.col("timestamp") < early))
    assert_frame_equal(
        fitted.forecast(cut.user_ids.to_list(), as_of=early), fitted.forecast(cut, as_of=early)
    )
    one_each = np.full(len(cut), int(early.timestamp() * 1e6))
    assert_frame_equal(fitted.forecast(cut, as_of=one_each), fitted.forecast(cut, as_of=early))


def test_purchases_of_new_things_tell_when_though_the_catalog_lacks_them(tmp_path):
    """From the middle of the test period on u1 buys, and only what nobody bought before."""
    log = shop_log()
    start = datetime.fromisoformat(
        Predictor.fit(log, config=FAST).facts["timing"]["test_start"]
    ) + timedelta(days=5)  # fmt: skip
    is_new = (pl.col("user_id") == "u1") & (pl.col("timestamp") >= start)
    renamed = log.with_columns(
        pl.when(is_new).then(pl.lit("brand new")).otherwise("item_id").alias("item_id")
    )
    found = Predictor.fit(renamed, config=FAST)
    assert "brand new" not in found.catalog.table["item_id"].to_list()
    plain = Predictor.fit(log, config=FAST)
    assert_frame_equal(found.forecast(["u1", "u2"]), plain.forecast(["u1", "u2"]))
    lost = found.forecast(found.histories_of(["u1"]))
    assert lost["days_to_next_p50"][0] != plain.forecast(["u1"])["days_to_next_p50"][0]
    found.save(tmp_path)
    assert_frame_equal(Predictor.load(tmp_path).forecast(), found.forecast())


def test_another_horizon_has_its_own_columns_and_expects_more_the_longer_it_is(fitted):
    short, long = (fitted.forecast(horizon_days=days) for days in (14, 180))
    assert (short["expected_purchases_14d"] < long["expected_purchases_180d"]).all()
    assert (short["expected_spend_14d"] < long["expected_spend_180d"]).all()
    with pytest.raises(ConfigError, match="The horizon is 0 days"):
        fitted.forecast(horizon_days=0)


def test_a_lifetime_value_is_the_spend_of_its_days_less_the_discount(fitted):
    whole = fitted.forecast(horizon_days=365, discount=0.0)
    assert whole["lifetime_value_365d"].to_numpy() == pytest.approx(
        whole["expected_spend_365d"].to_numpy(), rel=1e-9
    )
    usual = fitted.forecast()["lifetime_value_365d"].to_numpy()
    share = usual / whole["lifetime_value_365d"].to_numpy()
    assert ((share > 1 / 1.1) & (share < 1)).all()  # nothing is later than a year
    longer = fitted.forecast(lifetime_days=730)
    assert (longer["lifetime_value_730d"].to_numpy() > usual).all()
    with pytest.raises(ConfigError, match=r"The lifetime is 0 days; it goes from 1 to 3650"):
        fitted.forecast(lifetime_days=0)
    with pytest.raises(ConfigError, match=r"The discount is -0.5 a year"):
        fitted.forecast(discount=-0.5)


def test_in_chunks_and_threads_the_answers_are_the_same_and_in_order(fitted, monkeypatch):
    whole = fitted.forecast()
    monkeypatch.setattr(forecaster, "_CHUNK", 7)
    assert_frame_equal(fitted.forecast(), whole)
    assert fitted.forecast([]).columns == COLUMNS


def test_a_saved_predictor_forecasts_the_same(fitted, tmp_path):
    fitted.save(tmp_path)
    assert_frame_equal(Predictor.load(tmp_path).forecast(), fitted.forecast())


def test_a_damaged_forecaster_is_refused(fitted, tmp_path):
    version = fitted.save(tmp_path)
    place = next((version / "timing").rglob("timing.json"))
    place.write_text(place.read_text().replace("0", "1"))
    with pytest.raises(BundleError, match=r"timing\.json"):
        load_bundle(tmp_path)


def test_without_prices_spend_is_not_known_and_it_says_so():
    found = Predictor.fit(shop_log().drop("price"), config=FAST)
    assert found.facts["timing"]["spend"] == "the log has no prices"
    table = found.forecast(["u1"])
    assert table["expected_spend_90d"].to_list() == [None]
    assert table["lifetime_value_365d"].to_list() == [None]
    assert table["expected_purchases_90d"][0] > 1


def test_purchases_in_order_alone_are_refused():
    lists = pl.DataFrame(
        [(f"u{u}", item, n) for u in range(30) for n, item in enumerate(["a", "b", "a", "c"])],
        schema=["user_id", "item_id", "timestamp"], orient="row",
    )  # fmt: skip
    found = Predictor.fit(lists, config=FAST)
    with pytest.raises(ConfigError, match=r"cannot forecast: time is only an order"):
        found.forecast()


def test_where_nobody_comes_back_before_validation_there_is_no_forecast_but_a_reason():
    rows = [(f"u{u}", "a", EPOCH + timedelta(days=u % 40)) for u in range(400)]
    rows += [(f"u{u}", "b", EPOCH + timedelta(days=90 + u % 10)) for u in range(0, 200)]
    rows += [(f"u{u}", "b", EPOCH + timedelta(days=81 + u % 9)) for u in range(200, 400)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    found = Predictor.fit(log, config=FAST)
    assert set(found.facts["timing"]["left_out"]) >= {"bg-nbd", "renewal"}
    with pytest.raises(
        ConfigError, match=r"cannot forecast: None of .* bought on two days; .*log\.$"
    ):
        found.forecast()


def test_a_bundle_from_before_forecasts_says_what_to_do(fitted):
    facts = {name: value for name, value in fitted.facts.items() if name != "timing"}
    old = Predictor(
        config=fitted.config, catalog=fitted.catalog, histories=fitted.histories,
        models={"popularity": fitted.models["popularity"]}, facts=facts,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="before there were forecasts; train it again"):
        old.forecast()


def test_what_is_said_about_random_buyers_comes_true(random_shop):
    facts = random_shop.facts["timing"]
    assert facts["horizons"] == [7, 30] and facts["horizons_left_out"] == [90]
    blend = facts["scores"]["blend"]
    for days in (7, 30):
        assert blend[f"p_buy_{days}d"] == pytest.approx(blend[f"bought_{days}d"], abs=0.05)
        assert blend[f"ece_{days}d"] < 0.06
    assert blend["coverage_80"] == pytest.approx(0.8, abs=0.05)


def test_forecasts_of_random_buyers_are_near_the_truth_that_made_them(random_shop):
    """A user who bought lately buys within 7 days with 1 - exp(-7 / mean)."""
    found = random_shop.forecast()
    last = random_buyers().group_by("user_id").agg(pl.col("timestamp").max())
    lately = last.filter(pl.col("timestamp") > EPOCH + timedelta(days=360))["user_id"]
    regular = found.filter(pl.col("user_id").is_in(lately.implode()))
    number = regular["user_id"].str.slice(1).cast(pl.Int64)
    for odd, mean in ((1, 8.0), (0, 40.0)):
        those = regular.filter(number % 2 == odd)
        assert those["p_buy_7d"].mean() == pytest.approx(1 - np.exp(-7 / mean), abs=0.06)
        assert those["p_active"].mean() > 0.85
        assert those["expected_purchases_90d"].mean() == pytest.approx(90 / mean, rel=0.2)


def test_spend_is_purchases_times_what_a_purchase_is_worth(random_shop):
    found = random_shop.forecast()
    value = (found["expected_spend_90d"] / found["expected_purchases_90d"]).to_numpy()
    price = 2.0 + found["user_id"].str.slice(1).cast(pl.Int64).to_numpy() % 3
    assert np.median(np.abs(value / price - 1)) < 0.1


def test_the_test_period_teaches_nothing(few_buyers, few):
    log, first = few_buyers, few
    start = datetime.fromisoformat(first.facts["timing"]["test_start"])
    moved = log.with_columns(
        pl.when(pl.col("timestamp") >= start)
        .then(pl.col("timestamp") + (log["timestamp"].max() - pl.col("timestamp")) / 2)
        .otherwise("timestamp")
        .cast(log.schema["timestamp"])
        .alias("timestamp")
    )
    second = Predictor.fit(moved, config=FAST)
    moments = ("validation_start", "test_start", "learned_until")
    same = [{m: p.facts["timing"][m] for m in moments} for p in (first, second)]
    assert same[0] == same[1]
    assert first.facts["timing"]["weights"] == second.facts["timing"]["weights"]
    asked = first.histories_of(["u1", "u2"])
    at = start - timedelta(days=1)
    assert_frame_equal(first.forecast(asked, as_of=at), second.forecast(asked, as_of=at))


def test_refit_full_learns_from_the_last_days_too(few_buyers, few):
    kept = few
    full = Predictor.fit(few_buyers, config=FAST.model_copy(update={"refit_full": True}))
    assert full.facts["timing"]["learned_until"] > kept.facts["timing"]["learned_until"]
    assert full.facts["timing"]["scores"] == kept.facts["timing"]["scores"]
    assert not full.forecast(["u1"]).equals(kept.forecast(["u1"]))


def test_under_a_time_limit_nothing_is_fitted_again():
    config = FAST.model_copy(update={"time_limit": 60.0})
    facts = Predictor.fit(random_buyers(100), config=config).facts["timing"]
    assert facts["learned_until"] == facts["validation_start"]


def test_a_short_time_limit_leaves_out_what_cannot_be_interrupted():
    config = PredictorConfig.of(models=["popularity"], time_limit=20)
    timing = Predictor.fit(shop_log(), config=config).facts["timing"]
    assert timing["left_out"]["renewal"] == "the time limit left no time for it"
    assert set(timing["weights"]) <= {"bg-nbd", "mbg-nbd", "pareto-nbd"}
    whole = Predictor.fit(shop_log(), config=PredictorConfig.of(models=["popularity"]))
    assert "renewal" not in whole.facts["timing"]["left_out"]


def test_scores_say_what_the_blend_is_worth_beside_its_members(random_shop):
    facts = random_shop.facts["timing"]
    assert set(facts["scores"]) == {"blend", *facts["blend_minus"]}
    for name, found in facts["blend_minus"].items():
        per_wait = [facts["scores"][m]["log_likelihood"] for m in ("blend", name)]
        assert found["difference"] == pytest.approx(per_wait[0] - per_wait[1])
        assert found["low"] <= found["difference"] <= found["high"]
    assert sum(facts["pit"]) == pytest.approx(1)
    assert facts["limit"] is None
    for days in ("7", "30"):
        bins = facts["reliability"][days]
        assert sum(bins["counts"]) == facts["num_users"]


def test_on_a_market_nothing_is_better_than_its_truth():
    predictor = Predictor.fit("world:market", config=FAST, users=300)
    facts = predictor.facts["timing"]
    limit = facts["limit"]
    assert set(limit) == set(facts["scores"]["blend"])
    for found in facts["scores"].values():
        assert found["log_likelihood"] < limit["log_likelihood"] + 0.01
        assert found["quantile_loss"] > limit["quantile_loss"] * 0.98
    assert limit["coverage_80"] == pytest.approx(0.8, abs=0.05)
    assert limit["ece_30d"] < 0.05
