"""Who will buy: what users of `Predictor.audience` rely on."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from nextbuy import Predictor, PredictorConfig
from nextbuy.audience import study
from nextbuy.data.catalog import Catalog
from nextbuy.errors import BundleError, ConfigError
from nextbuy.predictor import audience
from nextbuy.predictor.audience import calibration_of, held_out
from tests.shop import EPOCH, shop_log

FAST = PredictorConfig.of(models=["personal-frequency"])


def known_buyers(num_users=200, days=120, seed=4):
    """Every user buys on each day with a chance of their own, tea or milk with a taste of theirs.

    Odd users buy on a fifth of the days, even ones on a twentieth; every third user likes tea.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        buys = rng.random(days) < (0.2 if user % 2 else 0.05)
        for day in np.flatnonzero(buys):
            tea = rng.random() < (0.9 if user % 3 == 0 else 0.1)
            when = EPOCH + timedelta(days=int(day), hours=10)
            rows.append((f"u{user}", "tea" if tea else "milk", when, 2.0 if tea else 1.0, "Corner"))
    return pl.DataFrame(
        rows, schema=["user_id", "item_id", "timestamp", "price", "platform"], orient="row"
    )


def altered(predictor, **parts):
    """The same predictor with other parts."""
    names = ("config", "catalog", "histories", "models", "facts", "forecaster")
    same = {name: getattr(predictor, name) for name in names}
    same["models"] = {n: m for n, m in predictor.models.items() if n != "blend"}
    return Predictor(**same | parts)


@pytest.fixture(scope="module")
def fitted():
    return Predictor.fit(known_buyers(), config=FAST)


def truth_within(user_ids, days):
    """1 - (1 - P(a day with tea))^days."""
    user = user_ids.str.slice(1).cast(pl.Int64).to_numpy()
    day = np.where(user % 2, 0.2, 0.05) * np.where(user % 3, 0.1, 0.9)
    return 1 - (1 - day) ** days


@pytest.mark.parametrize("days", [7, 14])
def test_the_chances_are_near_the_truth_that_made_the_log(fitted, days):
    found = fitted.audience(item="tea", within_days=days)
    truth = truth_within(found["user_id"], days)
    assert found["probability"].mean() == pytest.approx(truth.mean(), abs=0.05)
    assert np.corrcoef(found["probability"], truth)[0, 1] > 0.9
    # The best tenth are those who buy often and like tea.
    assert truth[:20].mean() > 0.9 * np.sort(truth)[::-1][:20].mean()


def test_everything_of_a_platform_is_any_purchase(fitted):
    any_purchase = fitted.audience(platform="Corner", within_days=7)
    forecast = fitted.forecast().select("user_id", "p_buy_7d")
    joined = any_purchase.join(forecast, on="user_id")
    assert (joined["probability"] - joined["p_buy_7d"]).abs().mean() < 0.05


def test_spend_is_purchases_times_the_price_of_the_target(fitted):
    found = fitted.audience(item="tea", within_days=14)
    assert (found["expected_value"] / found["expected_purchases"]).to_numpy() == pytest.approx(2.0)
    assert (found["expected_purchases"] >= found["probability"] - 1e-12).all()


def test_longer_is_likelier(fitted):
    week, month = (
        fitted.audience(item="tea", within_days=days).sort("user_id") for days in (7, 30)
    )
    assert (month["probability"] >= week["probability"] - 1e-9).all()


def test_limits_keep_the_head_of_the_list(fitted):
    whole = fitted.audience(item="tea", within_days=7)
    assert whole["rank"].to_list() == list(range(1, whole.height + 1))
    assert (whole["probability"].diff().drop_nulls() <= 0).all()
    assert_frame_equal(fitted.audience(item="tea", within_days=7, size=25), whole.head(25))
    likely = fitted.audience(item="tea", within_days=7, min_probability=0.3)
    assert_frame_equal(likely, whole.filter(pl.col("probability") >= 0.3))
    worth = fitted.audience(item="tea", within_days=7, min_expected_value=1.0)
    assert 0 < worth.height == whole.filter(pl.col("expected_value") >= 1.0).height < whole.height
    gone = whole["user_id"].head(3).to_list()
    rest = fitted.audience(item="tea", within_days=7, exclude=gone)
    assert rest["user_id"].to_list() == whole["user_id"].to_list()[3:]


def test_who_had_not_bought_by_then_is_not_in_it(fitted):
    early = fitted.audience(item="tea", within_days=7, as_of=EPOCH + timedelta(days=3))
    log = known_buyers()
    before = log.filter(pl.col("timestamp") < EPOCH + timedelta(days=3))["user_id"]
    assert set(early["user_id"]) == set(before)
    nobody = fitted.audience(item="tea", within_days=7, as_of=EPOCH - timedelta(days=1))
    assert nobody.height == 0


def test_purchases_at_or_after_the_moment_change_nothing(fitted):
    moment = EPOCH + timedelta(days=80)
    before = fitted.histories.times < moment.timestamp() * 1e6
    cut = altered(fitted, histories=fitted.histories.keep(before))
    asked = {"item": "tea", "within_days": 7, "as_of": moment}
    assert_frame_equal(fitted.audience(**asked), cut.audience(**asked))


def test_users_asked_a_few_at_a_time_get_the_same_answers(fitted, monkeypatch):
    asked = {"item": "tea", "within_days": 7}
    whole = fitted.audience(**asked)
    monkeypatch.setattr(audience, "_CHUNK", 7)
    monkeypatch.setattr(study, "_CHUNK_VALUES", 6)
    assert_frame_equal(fitted.audience(**asked), whole, abs_tol=1e-9)


def test_a_saved_predictor_names_the_same_users(fitted, tmp_path):
    fitted.save(tmp_path)
    asked = {"item": "tea", "within_days": 14, "size": 50, "holdout_share": 0.2}
    assert_frame_equal(Predictor.load(tmp_path).audience(**asked), fitted.audience(**asked))


@given(st.lists(st.text(max_size=5), unique=True, max_size=30), st.integers(0, 5))
def test_who_is_held_out_depends_on_seed_and_id_alone(ids, seed):
    alone = [held_out(pl.Series([user]), 0.4, seed)[0] for user in ids]
    assert held_out(pl.Series(ids, dtype=pl.String), 0.4, seed).to_list() == alone
    more = held_out(pl.Series(ids, dtype=pl.String), 0.7, seed).to_list()
    assert all(b for a, b in zip(alone, more, strict=True) if a)  # a larger group has the smaller


def test_the_holdout_group_is_as_large_as_asked_and_no_different():
    ids = pl.Series([f"u{n}" for n in range(20_000)])
    held = held_out(ids, 0.1, 0)
    assert held.mean() == pytest.approx(0.1, abs=0.01)
    assert not held_out(ids, 0.0, 0).any()
    assert held.head(10_000).mean() == pytest.approx(held.tail(10_000).mean(), abs=0.015)
    assert (held & held_out(ids, 0.1, 1)).mean() == pytest.approx(0.01, abs=0.003)


def test_what_was_said_at_the_test_is_kept_for_the_report(fitted):
    facts = fitted.facts["audience"]
    assert facts["reason"] is None
    assert facts["calibration"]["horizons"] == [7]
    test = facts["test"]
    assert [row["name"] for row in test["targets"]] == ["Corner"]
    row = test["targets"][0]
    assert row["probability"] == pytest.approx(row["bought"], abs=0.12)
    assert test["ece"] == {"7": row["ece"]}
    assert row["audience"]["gain"][-1] == 1.0
    assert row["audience"]["revenue"][-1] == 1.0
    assert set(row) >= {"frequency", "recency", "ece", "bought", "probability", "num_buyers"}


def test_the_test_period_teaches_nothing():
    log = known_buyers(40)
    first = Predictor.fit(log, config=FAST)
    start = first.split.test.as_of[0] / 1e6
    late = pl.col("timestamp").dt.epoch("s") >= start
    other = log.with_columns(
        pl.when(late & (pl.col("item_id") == "tea")).then(pl.lit("milk")).otherwise("item_id")
        .alias("item_id")
    )  # fmt: skip
    second = Predictor.fit(other, config=FAST)
    learnt = [p.facts["audience"]["calibration"] for p in (first, second)]
    assert learnt[0] == learnt[1]


def test_under_another_split_the_formula_answers_and_it_is_said():
    config = PredictorConfig.of(models=["personal-frequency"], split="leave-last-out")
    found = Predictor.fit(shop_log(), config=config)
    facts = found.facts["audience"]
    assert facts["reason"] == "chances are learnt under a temporal split, not leave-last-out"
    assert facts["calibration"]["horizons"] == [] and facts["test"] is None
    assert found.audience(item="tea", within_days=7).height == 60


def test_purchases_in_order_alone_are_refused():
    lists = pl.DataFrame(
        [(f"u{u}", item, n) for u in range(30) for n, item in enumerate(["a", "b", "a", "c"])],
        schema=["user_id", "item_id", "timestamp"], orient="row",
    )  # fmt: skip
    found = Predictor.fit(lists, config=FAST)
    with pytest.raises(ConfigError, match="cannot name audiences: time is only an order"):
        found.audience(item="a", within_days=7)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"item": "tea"}, "within_days"),
        ({"item": "tea", "within_days": 0}, "within_days"),
        ({"item": "tea", "platform": "Corner", "within_days": 7}, "item 'tea' and platform"),
        ({"item": "coffee", "within_days": 7}, "'coffee' is not among the 2"),
        ({"item": "tea", "within_days": 7, "colour": "red"}, "colour"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_reason(fitted, asked, reason):
    with pytest.raises(ConfigError, match=reason):
        fitted.audience(**asked)


def test_money_that_is_not_known_is_no_limit(fitted):
    table = fitted.catalog.table.with_columns(pl.lit(None, pl.Float64).alias("price"))
    found = altered(fitted, catalog=Catalog(table=table))
    assert found.audience(item="tea", within_days=7)["expected_value"].null_count() == 200
    with pytest.raises(ConfigError, match="the price of what was asked for is not known"):
        found.audience(item="tea", within_days=7, min_expected_value=1.0)


def test_facts_that_are_no_calibration_are_said():
    with pytest.raises(BundleError, match="no calibration"):
        calibration_of({"audience": {"calibration": {"half_life": -1}}})
    assert calibration_of({}).horizons == ()
