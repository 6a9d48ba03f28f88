"""What is due again, as a user of the library sees it."""

import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nextbuy import Predictor, PredictorConfig
from nextbuy.data.encoding import encode
from nextbuy.data.reading import read_purchases
from nextbuy.errors import ConfigError
from nextbuy.predictor.budget import TimeBudget
from nextbuy.predictor.cadence_fit import cadences_of
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.splitting.temporal import split_by_time
from tests.shop import EPOCH, shop_log

FAST = PredictorConfig(models=("personal-frequency",), time_limit=600)
COLUMNS = [
    "user_id", "item_id", "platform", "category", "times_bought", "days_since_last",
    "typical_gap_days", "p_due_now", "days_until_due_p10", "days_until_due_p50",
    "days_until_due_p90", "p_due_within",
]  # fmt: skip
END = EPOCH + timedelta(days=300)


def regular_log():
    """Coffee about each 28 days, bread each 4, a lamp once; 50 users, each some days apart; `u0`
    bought coffee 30 days before the end, `last` bread once, `twice` coffee twice."""
    rows, rng = [], np.random.default_rng(1)
    for user in range(50):
        for item, gap, since in (
            ("coffee", 28, 30 if user == 0 else user % 28),
            ("bread", 4, user % 4),
        ):
            day = since
            while day < 300:
                rows.append((f"u{user}", item, END - timedelta(days=day, hours=-1)))
                day += max(round(gap * np.exp(0.15 * rng.normal())), 1)
        rows.append((f"u{user}", "lamp", EPOCH + timedelta(days=3 * user)))
    rows += [("twice", "coffee", END - timedelta(days=d)) for d in (40, 12)]
    rows.append(("last", "bread", END + timedelta(hours=3)))
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="module")
def fitted():
    return Predictor.fit(regular_log(), config=FAST)


def reasons_of(table, user):
    rows = table.filter(user_id=user)
    return dict(zip(rows["item_id"], rows["reason"], strict=True))


def test_reasons_tell_the_rhythm_and_how_long_ago(fitted):
    found = fitted.predict(["u0", "twice", "last"], k=3)
    of_u0 = reasons_of(found, "u0")
    assert re.fullmatch(
        r"about every 2[6-9] days, last 30 days ago \(2025-09-28\)", of_u0["coffee"]
    )
    assert of_u0["bread"] == "about every 4 days, last today (2025-10-28)"
    assert of_u0["lamp"] == "bought 1x, last 300 days ago (2025-01-01)"
    assert reasons_of(found, "twice")["coffee"] == "bought 2x, last 12 days ago (2025-10-16)"
    assert reasons_of(found, "twice")["lamp"] == "new to this user"


def test_reasons_count_from_the_moment_of_the_question(fitted):
    asked = np.array([int((END - timedelta(days=29)).timestamp() * 1e6)])
    found = reasons_of(fitted.predict(["u0"], k=3, as_of=asked), "u0")
    assert found["coffee"].endswith(" days, last 1 day ago")
    raw, _ = fitted.encode_histories(regular_log().with_columns(
        pl.col("timestamp") + timedelta(days=100)))  # fmt: skip
    later = reasons_of(fitted.predict(raw, k=3), "u0")
    assert later["bread"] == "about every 4 days, last today (2026-02-05)"


def test_without_dates_reasons_only_count():
    lists = pl.DataFrame(
        [(f"u{u}", item, n) for u in range(30) for n, item in enumerate(["a", "b", "a", "c"])],
        schema=["user_id", "item_id", "timestamp"], orient="row",
    )  # fmt: skip
    found = Predictor.fit(lists, config=FAST)
    assert reasons_of(found.predict(["u1", "x"], k=2), "u1") == {
        "a": "bought 2x before", "b": "bought 1x before",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"cannot tell what is due: time is only an order"):
        found.due()


def test_what_is_due_is_one_tidy_table_the_most_probable_first(fitted):
    found = fitted.due(["u0", "twice", "nobody"], within_days=14, k=2)
    assert found.columns == COLUMNS
    assert found["user_id"].to_list() == ["u0", "u0", "twice"]
    assert found["item_id"].to_list() == ["bread", "coffee", "coffee"]
    coffee = found.row(1, named=True)
    assert coffee["days_since_last"] == 30
    assert coffee["typical_gap_days"] == pytest.approx(28, abs=2)
    assert coffee["p_due_now"] > 0.5 and coffee["p_due_within"] > 0.7
    days = found.select(COLUMNS[8:11]).to_numpy()
    assert (np.diff(days, axis=1) >= 0).all() and (days >= 0).all()
    assert fitted.due()["user_id"].unique(maintain_order=True).to_list() == list(
        fitted.histories.user_ids
    )


def test_more_days_are_more_probable_and_the_past_is_asked_as_it_was(fitted):
    short, long = (fitted.due(["u0"], within_days=days, k=3) for days in (2, 60))
    by_item = short.join(long, on="item_id", suffix="_long")
    assert by_item.height == 3
    assert (by_item["p_due_within"] < by_item["p_due_within_long"]).all()
    early = END - timedelta(days=80)
    cut, _ = fitted.encode_histories(regular_log().filter(pl.col("timestamp") < early))
    assert_frame_equal(fitted.due(["u0"], as_of=early), fitted.due(cut.take([0]), as_of=early))


@pytest.mark.parametrize("wrong", [{"within_days": 0}, {"within_days": float("nan")}, {"k": 0}])
def test_numbers_out_of_range_are_refused(fitted, wrong):
    with pytest.raises(ConfigError, match="Days are more than 0"):
        fitted.due(**wrong)


def test_clocks_come_back_from_disk_and_older_bundles_say_what_to_do(fitted, tmp_path):
    fitted.save(tmp_path)
    loaded = Predictor.load(tmp_path)
    assert_frame_equal(loaded.due(), fitted.due())
    assert_frame_equal(loaded.predict(["u0"]), fitted.predict(["u0"]))
    old = Predictor(
        config=fitted.config, catalog=fitted.catalog, histories=fitted.histories,
        models=fitted.models, facts={k: v for k, v in fitted.facts.items() if k != "cadence"},
    )  # fmt: skip
    with pytest.raises(ConfigError, match="before items had clocks; train it again"):
        old.due()
    assert (
        reasons_of(old.predict(["u0"]), "u0")["coffee"]
        == "bought 10x, last 30 days ago (2025-09-28)"
    )


def test_a_cooldown_by_own_clocks_keeps_back_what_was_just_bought():
    config = FAST.model_copy(update={"repeat": "cooldown:own"})
    found = Predictor.fit(regular_log(), config=config)
    offered = {u: set(found.predict([u], k=3)["item_id"]) for u in ("u0", "u1", "u27", "nobody")}
    assert "coffee" in offered["u0"] and "coffee" in offered["u27"]
    assert "coffee" not in offered["u1"]
    assert offered["nobody"] == {"coffee", "bread", "lamp"}
    assert found.facts["protocol"]["repeat"] == "cooldown:own"
    assert found.facts["evaluation"]


def test_clocks_know_what_models_know_and_nothing_of_the_test_period():
    log = encode(read_purchases(shop_log(200)))
    split = split_by_time(log.catalog, log.histories)
    start = int(split.test.as_of[0])
    moved = log.histories.times.copy()
    moved[moved >= start] += (moved.max() - moved[moved >= start]) // 2
    other = split_by_time(log.catalog, replace(log.histories, times=moved), test_start=start)
    own = RepeatPolicy.parse("cooldown:own")
    found = [cadences_of(s, own, TimeBudget(), refitted=True) for s in (split, other)]
    assert found[0][1].facts == found[1][1].facts
    assert found[0][0].facts["num_gaps"] < found[0][1].facts["num_gaps"]
    alone = cadences_of(split, RepeatPolicy.ALLOW, TimeBudget(), refitted=False)
    assert alone[0].facts == alone[1].facts == found[0][0].facts
    soon = TimeBudget.of(10, time.monotonic())
    late = cadences_of(split, RepeatPolicy.ALLOW, soon, refitted=False)[1]
    assert late.facts["reason"] == "the time limit left no time for it"


def test_a_moment_may_be_told_in_any_zone(fitted):
    at = datetime(2025, 10, 1, tzinfo=UTC)
    assert_frame_equal(
        fitted.due(["u0"], as_of=at), fitted.due(["u0"], as_of=at.replace(tzinfo=None))
    )
