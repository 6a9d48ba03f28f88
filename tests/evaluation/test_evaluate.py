import json
import math

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, log_loss, precision_score, recall_score

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN
from nextbuy.evaluation.evaluate import evaluate, protocol_of
from nextbuy.splitting.leave_last_out import leave_last_out
from nextbuy.splitting.repeat import RepeatPolicy
from tests.evaluation.table_model import TableModel, cases_of
from tests.splitting.small_logs import DAY, catalog_of, log_of

LISTS = {f"{name}@{k}" for name in ("hit_rate", "recall", "ndcg", "mrr") for k in (1, 5, 10, 20)}
KEYS = LISTS | {
    "loss",
    "accuracy",
    "precision",
    "recall",
    "precision_weighted",
    "recall_weighted",
    "precision_thresholded",
    "recall_thresholded",
    "ece",
    "ece_by_chance",
    "coverage@10",
    "num_cases",
    "unknown_target_share",
}


@pytest.fixture(scope="module")
def single_targets():
    rng = np.random.default_rng(11)
    rows = rng.dirichlet(np.full(12, 0.4), size=300)
    targets = [int(rng.choice(12, p=row)) + 1 for row in rows]
    histories = [rng.integers(1, 13, 5).tolist() for _ in range(300)]
    return rows, histories, targets


def test_with_one_target_a_case_the_scores_are_those_of_scikit_learn(single_targets):
    rows, histories, targets = single_targets
    cases = cases_of(histories, [[t] for t in targets])
    metrics = evaluate(TableModel(rows), cases, catalog_of(12), num_resamples=0).metrics
    offers = rows.argmax(axis=1) + 1
    assert metrics["accuracy"] == accuracy_score(targets, offers)
    assert metrics["loss"] == pytest.approx(log_loss(targets, rows, labels=range(1, 13)), rel=1e-6)
    for name, theirs in (("precision", precision_score), ("recall", recall_score)):
        for ending, average in (("", "macro"), ("_weighted", "weighted")):
            expected = theirs(targets, offers, average=average, zero_division=0)
            assert metrics[name + ending] == pytest.approx(expected)


def test_all_keys_are_there_and_the_whole_comes_before_its_parts(single_targets):
    rows, histories, targets = single_targets
    cases = cases_of(histories, [[t] for t in targets])
    metrics = evaluate(TableModel(rows), cases, catalog_of(12), num_resamples=0).metrics
    assert {key for key in metrics if "/" not in key} == KEYS
    for part in ("repeat", "explore"):
        assert {f"{part}/loss", f"{part}/accuracy", f"{part}/ndcg@10"} < set(metrics)
    first_part = next(i for i, key in enumerate(metrics) if "/" in key)
    assert all("/" in key for key in list(metrics)[first_part:])
    assert json.loads(json.dumps(metrics))["num_cases"] == 300


def test_repeat_and_explore_are_the_targets_in_and_out_of_the_history():
    model = TableModel([[0.6, 0.3, 0.1]] * 3)
    cases = cases_of([[1], [2], [1]], [[1, 2], [3], [UNKNOWN]])
    metrics = evaluate(model, cases, catalog_of(3), num_resamples=0).metrics
    assert metrics["repeat/num_cases"] == 1
    assert metrics["repeat/accuracy"] == 1
    assert metrics["explore/num_cases"] == 3
    assert metrics["explore/mrr@5"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert metrics["explore/loss"] == pytest.approx((-math.log(0.3) - math.log(0.1)) / 2, rel=1e-6)
    assert metrics["unknown_target_share"] == 1 / 4


def test_the_loss_counts_purchases_and_the_ranking_counts_cases():
    """One case with three purchases (one unknown), one with one."""
    model = TableModel([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    cases = cases_of([[1], [1]], [[1, 2, UNKNOWN], [2]])
    found = evaluate(model, cases, catalog_of(3), num_resamples=200)
    expected = -(math.log(0.5) + math.log(0.25) + math.log(0.1)) / 3
    assert found.metrics["loss"] == pytest.approx(expected, rel=1e-6)
    assert found.slices["users: returning"]["loss"] == pytest.approx(expected, rel=1e-6)
    assert found.metrics["accuracy"] == 1 / 2
    first = -(math.log(0.5) + math.log(0.25)) / 2
    assert found.intervals["loss"] == pytest.approx((first, -math.log(0.1)), rel=1e-6)


def test_the_intervals_hold_the_score_and_the_seed_decides_them(single_targets):
    rows, histories, targets = single_targets
    cases = cases_of(histories, [[t] for t in targets])
    first, again, other = (
        evaluate(TableModel(rows), cases, catalog_of(12), seed=seed) for seed in (1, 1, 2)
    )
    assert first.intervals == again.intervals
    assert first.intervals != other.intervals
    for name in ("loss", "accuracy", "ndcg@10", "precision", "recall_thresholded", "repeat/loss"):
        low, high = first.intervals[name]
        assert low < first.metrics[name] < high
    # A share p of n cases has the standard error sqrt(p (1 - p) / n).
    p = first.metrics["accuracy"]
    error = math.sqrt(p * (1 - p) / 300)
    low, high = first.intervals["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_a_right_offer_came_true_as_one_part_of_its_basket():
    """Baskets of 2 and of 1: item 1 was 2 of 3 purchases, and saying so is calibrated."""
    cases = cases_of([[]] * 2, [[1, 2], [1]])
    found = evaluate(TableModel([[2 / 3, 1 / 3]] * 2), cases, catalog_of(2))
    assert found.metrics["accuracy"] == 1.0
    assert found.metrics["ece"] == pytest.approx(0.0, abs=1e-6)
    assert found.reliability.ece == pytest.approx(0.0, abs=1e-6)
    assert found.reliability.counts.sum() == 3
    off = evaluate(TableModel([[0.9, 0.1]] * 2), cases, catalog_of(2))
    assert off.metrics["ece"] == pytest.approx(0.9 - 2 / 3, abs=1e-6)
    assert off.reliability.ece == pytest.approx(off.metrics["ece"])


def test_more_cases_make_the_interval_narrower(single_targets):
    rows, histories, targets = single_targets
    widths = []
    for n in (40, 300):
        cases = cases_of(histories[:n], [[t] for t in targets[:n]])
        low, high = evaluate(TableModel(rows), cases, catalog_of(12)).intervals["loss"]
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_revenue_is_reported_when_money_is_known():
    cases = cases_of([[], []], [[1], [2]], values=[5.0, 2.0])
    metrics = evaluate(TableModel([[0.9, 0.1]] * 2), cases, catalog_of(2), num_resamples=0).metrics
    assert metrics["revenue@10"] == 3.5


def test_calibration_is_that_of_the_first_offer():
    cases = cases_of([[]] * 3, [[1], [2], [1]])
    found = evaluate(TableModel([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]]), cases, catalog_of(2))
    # Said 90 % twice and right once; said 70 % and wrong.
    assert found.metrics["ece"] == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.7, rel=1e-6)
    assert found.reliability.ece == pytest.approx(found.metrics["ece"])
    low, high = found.intervals["ece"]
    assert 0.09 < low < found.metrics["ece"] < high < 0.91


def test_coverage_looks_at_ten_offers():
    rows = np.arange(25, 0, -1.0) / 325
    cases = cases_of([[], []], [[1], [1]])
    metrics = evaluate(
        TableModel([rows, np.roll(rows, 5)]), cases, catalog_of(25), num_resamples=0
    ).metrics
    assert metrics["coverage@10"] == 15 / 25  # items 1-10 and 6-15


def test_excluded_targets_are_misses_and_their_share_is_said():
    cases = cases_of([[1], [1]], [[1], [2]])
    found = evaluate(
        TableModel([[0.5, 0.5]] * 2), cases, catalog_of(2), repeat=RepeatPolicy.parse("exclude")
    )
    assert found.metrics["accuracy"] == 1 / 2
    assert found.metrics["loss"] == pytest.approx(0)
    assert found.protocol["excluded_target_share"] == 1 / 2
    assert found.protocol["repeat"] == "exclude"


def test_no_cases_give_nan_and_no_crash():
    found = evaluate(TableModel(np.zeros((0, 3))), cases_of([], []), catalog_of(3))
    assert found.metrics["num_cases"] == 0
    assert all(math.isnan(found.metrics[key]) for key in ("loss", "accuracy", "precision", "ece"))
    assert found.intervals == {}
    assert found.slices == {}


def test_slices_add_up_to_the_whole():
    table = catalog_of(6).table.with_columns(num_purchases=pl.Series([30, 20, 10, 15, 10, 5]))
    rng = np.random.default_rng(2)
    histories = [[1] * n for n in (0, 0, 1, 4, 5, 19, 20, 120)]
    targets = [[1], [2], [3], [4], [5], [6], [1], [UNKNOWN]]
    found = evaluate(
        TableModel(rng.dirichlet(np.ones(6), size=8)),
        cases_of(histories, targets),
        Catalog(table=table),
        num_resamples=0,
    )
    sizes = {name: row["n"] for name, row in found.slices.items()}
    assert sizes == {
        "users: new": 2,
        "users: returning": 6,
        "history: new (0 purchases)": 2,
        "history: 1-4 purchases": 2,
        "history: 5-19 purchases": 2,
        "history: 20-99 purchases": 1,
        "history: 100+ purchases": 1,
        "basket: 1 item": 8,
        "target: bought before": 1,  # the seventh case
        "target: new to the user": 6,  # the eighth is unknown
        "items: head": 2,  # item 1 makes up the first third of 90 purchases
        "items: middle": 2,  # items 2 and 4 begin in the second third
        "items: tail": 3,
        "items: unknown": 1,
    }
    for prefix in ("users", "history", "items"):
        rows = [row for name, row in found.slices.items() if name.startswith(prefix)]
        hits = sum(row["n"] * row["accuracy"] for row in rows)
        assert hits / 8 == pytest.approx(found.metrics["accuracy"])
        finite = [row for row in rows if not math.isnan(row["loss"])]
        assert finite
    assert math.isnan(found.slices["items: unknown"]["loss"])


def test_slices_by_basket_category_and_platform():
    table = catalog_of(4).table.with_columns(
        category=pl.Series(["food", "food", "toys", None]),
        platform=pl.Series(["shop", "shop", "shop", "shop"]),
    )
    targets = [[1, 2], [3], [4], [1, 2, 3, 4], [UNKNOWN]]
    found = evaluate(
        TableModel([[0.4, 0.3, 0.2, 0.1]] * 5),
        cases_of([[1]] * 5, targets),
        Catalog(table=table),
        num_resamples=0,
    ).slices
    assert {name: row["n"] for name, row in found.items() if name.startswith("basket")} == {
        "basket: 1 item": 3, "basket: 2-4 items": 2,
    }  # fmt: skip
    assert found["category: food"]["n"] == 2  # the first and the fourth case have food
    assert found["category: food"]["accuracy"] == 1.0
    assert found["category: toys"]["n"] == 2
    assert found["category: toys"]["accuracy"] == 0.0
    assert not [name for name in found if name.startswith("platform")]  # one tells nothing apart


def test_slices_by_how_long_a_user_is_away_and_an_item_is_sold():
    log = log_of([(0, [1]), (100, [2])], [(195, [1])], [(50, [3]), (90, [3])])
    found = evaluate(
        TableModel([[0.4, 0.3, 0.2, 0.1]] * 3),
        cases_of(log, [[1, 2], [3], [4, UNKNOWN]], as_of=np.full(3, 200 * DAY)),
        catalog_of(4),
        num_resamples=0,
    ).slices
    days = {name: row["n"] for name, row in found.items() if name.endswith("days ago")}
    assert days == {
        "last purchase: 0-7 days ago": 1,
        "last purchase: 90+ days ago": 2,
        "first sold: 30-180 days ago": 2,  # items 2 and 3
        "first sold: 180+ days ago": 1,  # item 1; nobody bought item 4
    }
    assert found["first sold: 180+ days ago"]["accuracy"] == 1.0


def test_gains_are_the_share_of_targets_in_ever_longer_lists():
    p = np.arange(30, 0, -1) / 465
    cases = cases_of([[]] * 3, [[1, 2], [15], [UNKNOWN]])
    found = evaluate(TableModel([p] * 3), cases, catalog_of(30), num_resamples=0)
    assert found.gains == {1: 0.25, 2: 0.5, 5: 0.5, 10: 0.5, 20: 0.75, 30: 0.75}
    nothing = evaluate(TableModel([p]), cases_of([[]], [[]]), catalog_of(30), num_resamples=0)
    assert nothing.gains == {}


def test_the_protocol_says_how_the_scores_were_obtained():
    split = leave_last_out(catalog_of(2), log_of([(1, [1]), (2, [2]), (3, [1])]))
    found = evaluate(
        TableModel([[0.5, 0.5]]), split.test, split.catalog, protocol=protocol_of(split)
    )
    assert found.protocol["split"] == "leave-last-out"
    assert "leaks time" in found.protocol["warning"]
    assert "2 items" in found.protocol["candidates"]
    json.dumps(found.protocol)
