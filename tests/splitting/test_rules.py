"""Rules of the shop: by hand, against a plain walk down the list, and the same in scores."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextbuy import Predictor, PredictorConfig
from nextbuy.cli.app import main
from nextbuy.data.catalog import Catalog
from nextbuy.errors import ConfigError
from nextbuy.evaluation.evaluate import evaluate
from nextbuy.models.protocol import top_k
from nextbuy.splitting.rules import Rules
from tests.evaluation.table_model import TableModel, cases_of
from tests.shop import shop_log
from tests.splitting.small_logs import catalog_of

CATEGORIES = ["food", "food", "toys", "food", None]
CATALOG = Catalog(
    table=catalog_of(5).table.with_columns(
        item_id=pl.Series(["a", "b", "c", "d", "e"]),
        category=pl.Series(CATEGORIES),
        price=pl.Series([1.0, 5.0, 20.0, None, 3.0]),
    )
)
P = np.array([0.4, 0.3, 0.15, 0.1, 0.05])


def ruled(rules, p=P, catalog=CATALOG):
    with np.errstate(divide="ignore"):
        rows = np.log(np.concatenate([[[0.0]], [p]], axis=1)).astype(np.float32)
    return np.exp(Rules.of(rules).for_catalog(catalog).apply(rows))[0, 1:]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, P),
        ({"allow": ["b", "c", "unknown"]}, np.array([0, 2 / 3, 1 / 3, 0, 0])),
        ({"exclude": ["a"]}, np.array([0, 0.3, 0.15, 0.1, 0.05]) / 0.6),
        ({"lowest_price": 3, "highest_price": 10}, np.array([0, 0.3, 0, 0, 0.05]) / 0.35),
        ({"per_category": 1}, np.array([0.4, 0, 0.15, 0, 0.05]) / 0.6),
        ({"per_category": 2}, np.array([0.4, 0.3, 0.15, 0, 0.05]) / 0.9),
        ({"boost_items": {"e": 2}}, np.array([0.4, 0.3, 0.15, 0.1, 0.1]) / 1.05),
        ({"boost_categories": {"toys": 4}}, np.array([0.4, 0.3, 0.6, 0.1, 0.05]) / 1.45),
        ({"boost_categories": {"food": 0.5}, "boost_items": {"a": 2.0}},
         np.array([0.4, 0.15, 0.15, 0.05, 0.05]) / 0.8),
        ({"per_category": 1, "exclude": ["a"]}, np.array([0, 0.3, 0.15, 0, 0.05]) / 0.5),
    ],
)  # fmt: skip
def test_each_rule_by_hand(rules, expected):
    np.testing.assert_allclose(ruled(rules), expected, rtol=1e-5)


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, 2.0, 5.0]), min_size=8, max_size=8).filter(any),
    st.lists(st.sampled_from(["x", "y", None]), min_size=8, max_size=8),
    st.integers(1, 4),
)
def test_a_cap_is_what_a_walk_down_the_list_would_take(weights, categories, most):
    table = catalog_of(8).table.with_columns(category=pl.Series(categories, dtype=pl.String))
    p = np.array(weights) / sum(weights)
    found = ruled({"per_category": most}, p, Catalog(table=table))
    taken, kept = {}, []
    for item in sorted(range(8), key=lambda i: (-p[i], i)):
        name = categories[item]
        taken[name] = taken.get(name, 0) + 1
        if (name is None or taken[name] <= most) and p[item] > 0:
            kept.append(item)
    assert np.flatnonzero(found).tolist() == sorted(kept)
    np.testing.assert_allclose(found[kept], p[kept] / p[kept].sum(), rtol=1e-5)


def test_what_rules_forbid_is_a_miss_and_the_rest_is_ranked_without_it():
    cases = cases_of([[]] * 3, [[1], [2], [5]])
    plain = evaluate(TableModel([P] * 3), cases, CATALOG, num_resamples=0)
    found = evaluate(
        TableModel([P] * 3), cases, CATALOG, rules=Rules(exclude=("a",)), num_resamples=0
    )
    assert plain.metrics["accuracy"] == found.metrics["accuracy"] == pytest.approx(1 / 3)
    assert found.first_offers.tolist() == [2, 2, 2]
    assert found.protocol["excluded_target_share"] == pytest.approx(1 / 3)
    assert found.protocol["rules"] == {"exclude": ("a",)}
    assert found.metrics["loss"] == pytest.approx(-(np.log(0.5) + np.log(0.05 / 0.6)) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"surplus": 1}, "surplus: Extra inputs"),
        ({"per_category": 0}, "per_category: "),
        ({"lowest_price": 5, "highest_price": 1}, "no price is at least 5.0 and at most 1.0"),
        ({"boost_items": {"a": 0}}, "factor of 'a' is 0.0; it has to be above 0"),
        ({"boost_items": {"a": float("inf")}}, "has to be above 0"),
        ([1], "valid dictionary"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules, reason):
    with pytest.raises(ConfigError, match=reason):
        Rules.of(rules)


def test_rules_that_leave_nothing_are_refused():
    with pytest.raises(ConfigError, match="none of the 5 items"):
        Rules(allow=("nothing",)).for_catalog(CATALOG)


def test_lists_never_break_a_rule_from_training_to_answers(tmp_path):
    """The rules of the config hold in scores, in answers, and after loading."""
    log = shop_log().with_columns(
        category=pl.when(pl.col("item_id").is_in(["tea", "milk", "0042"]))
        .then(pl.lit("drinks")).otherwise(pl.lit("else"))
    )  # fmt: skip
    rules = Rules(exclude=("0042",), per_category=2)
    config = PredictorConfig(models=("popularity", "personal-frequency"), rules=rules)
    fitted = Predictor.fit(log, config=config)
    for row in fitted.leaderboard:
        assert fitted.catalog.ids(row.test.first_offers)["item_id"].to_list().count("0042") == 0
    fitted.save(tmp_path)
    loaded = Predictor.load(tmp_path)
    assert loaded.config.rules == rules
    answers = loaded.predict(loaded.histories.user_ids, k=6)
    assert "0042" not in set(answers["item_id"])
    counts = answers.group_by("user_id", "category").len()
    assert counts["len"].max() == 2
    free = loaded.predict(["u1"], k=6, rules=Rules())
    assert free.height == 6


def test_a_file_of_rules_on_the_command_line(tmp_path, capsys):
    shop_log().write_csv(tmp_path / "log.csv")
    (tmp_path / "rules.json").write_text(json.dumps({"exclude": ["tea"]}))
    (tmp_path / "wrong.json").write_text(json.dumps({"without": ["tea"]}))

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        return left.value.code, capsys.readouterr()

    out = tmp_path / "b"
    code, _ = run("train", tmp_path / "log.csv", "--out", out, "--models", "popularity", "--json")
    assert code == 0
    code, shown = run("predict", out, "--user", "u1", "--rules", tmp_path / "rules.json", "--json")
    assert code == 0
    items = [row["item_id"] for row in json.loads(shown.out)["predictions"]]
    assert len(items) == 5
    assert "tea" not in items
    code, shown = run("predict", out, "--user", "u1", "--rules", tmp_path / "wrong.json")
    assert code == 1
    assert "The rules cannot be followed. without: Extra inputs are not permitted" in shown.err


def test_rules_leave_what_they_are_given_as_it_was():
    rows = np.log(np.array([[1e-9, 0.5, 0.3, 0.1, 0.05, 0.05]], dtype=np.float32))
    before = rows.copy()
    found = Rules(exclude=("a",), per_category=1).for_catalog(CATALOG).apply(rows)
    np.testing.assert_array_equal(rows, before)
    items, _ = top_k(found, 2)
    assert items.tolist() == [[2, 3]]
