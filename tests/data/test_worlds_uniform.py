"""world:uniform: the limit is H(47)/47 and ln(47!)/47, and nothing but chance remains."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import precision_score, recall_score

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories, offsets_of
from nextbuy.data.worlds import UniformConfig, UniformWorld
from nextbuy.errors import ConfigError, DataError


@dataclass(frozen=True)
class Asked:
    histories: Histories
    as_of: None = None
    until: None = None
    target_times: None = None

    def __len__(self):
        return len(self.histories)


def catalog_of(names):
    size = len(names)
    return Catalog(
        table=pl.DataFrame(
            {
                "item_id": names,
                "platform": names,
                "category": [None] * size,
                "price": [None] * size,
                "num_purchases": [1] * size,
            },
            schema_overrides={"category": pl.String, "price": pl.Float64},
        )
    )


def all_but_last(world, catalog):
    """Each user's history without the last purchase, and the last purchase."""
    frame = world.purchases().frame
    items = catalog.indices(frame["item_id"].to_list())
    lengths = frame.group_by("user_id", maintain_order=True).len()["len"].to_numpy()
    offsets = offsets_of(lengths)
    last = offsets[1:] - 1
    keep = np.ones(len(items), dtype=bool)
    keep[last] = False
    full = Histories(
        user_ids=pl.Series("user_id", frame["user_id"].unique(maintain_order=True)),
        items=items,
        times=frame["timestamp"].to_numpy(),
        baskets=frame["timestamp"].to_numpy().astype(np.int32),
        offsets=offsets,
        time_kind="order",
    )
    return full.keep(keep), items[last]


def test_users_buy_on_distinct_platforms_and_every_number_of_them_occurs():
    world = UniformWorld(UniformConfig(num_users=4_000), seed=3)
    bought = world.purchases()
    by_user = bought.frame.group_by("user_id").agg(
        pl.len(), pl.col("item_id").n_unique().alias("distinct"), pl.col("timestamp").max()
    )
    assert by_user.height == 4_000
    assert (by_user["len"] == by_user["distinct"]).all()
    assert (by_user["timestamp"] == by_user["len"].cast(pl.Int64) - 1).all()
    assert by_user["len"].unique().sort().to_list() == list(range(1, 48))
    assert (bought.frame["item_id"] == bought.frame["platform"]).all()
    assert (bought.time_kind, bought.basket_kind) == ("order", "none")
    assert bought.counts.kept == bought.frame.height


def test_first_and_last_platforms_are_uniform():
    frame = UniformWorld(UniformConfig(num_users=20_000)).purchases().frame
    for rows in (
        frame.filter(pl.col("timestamp") == 0),
        frame.group_by("user_id").agg(pl.col("item_id").last()),
    ):
        counts = rows["item_id"].value_counts()["count"].to_numpy()
        chi_square = ((counts - 20_000 / 47) ** 2 / (20_000 / 47)).sum()
        assert len(counts) == 47
        assert chi_square < 46 + 5 * math.sqrt(2 * 46)


def test_a_seed_gives_the_same_log_and_another_seed_another():
    config = UniformConfig(num_users=300)
    first, again, other = (UniformWorld(config, seed=s).purchases().frame for s in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_the_truth_is_uniform_over_the_unseen_platforms_in_any_catalog_order():
    world = UniformWorld()
    names = sorted(world.platforms)
    catalog = catalog_of(names)
    seen = [1, 5, 47]
    log_p = world.true_log_probabilities(Histories.from_lists([seen, []]), catalog, None)
    assert log_p.dtype == np.float32
    assert log_p.shape == (2, 48)
    assert np.isneginf(log_p[0, [0, *seen]]).all()
    unseen = [index for index in range(1, 48) if index not in seen]
    assert log_p[0, unseen] == pytest.approx(math.log(1 / 44))
    assert log_p[1, 1:] == pytest.approx(math.log(1 / 47))


def test_a_platform_missing_from_the_catalog_is_left_out_and_the_row_sums_to_1():
    world = UniformWorld()
    catalog = catalog_of(list(world.platforms[:10]))
    log_p = world.true_log_probabilities(Histories.from_lists([[1, 2]]), catalog, None)
    assert log_p[0, 3:] == pytest.approx(math.log(1 / 8))
    # 8 of 45 unseen platforms are in the catalog: a miss is likely, the loss is over the hits.
    limit = world.limit(Asked(Histories.from_lists([[1, 2]])), catalog)
    assert limit["accuracy"] == pytest.approx(1 / 45)
    assert limit["hit_rate@10"] == pytest.approx(8 / 45)
    assert limit["loss"] == pytest.approx(math.log(8))


def test_limit_by_hand_for_two_users():
    world = UniformWorld()
    catalog = catalog_of(list(world.platforms))
    histories = Histories.from_lists([list(range(1, 46)), list(range(1, 47))])
    limit = world.limit(Asked(histories), catalog)  # 2 and 1 platforms are left: 46, 47 and 47
    assert limit["loss"] == pytest.approx(math.log(2) / 2)
    assert limit["accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    assert limit["hit_rate@10"] == pytest.approx(1)
    assert limit["mrr@10"] == pytest.approx(((1 + 1 / 2) / 2 + 1) / 2)
    assert limit["ndcg@10"] == pytest.approx(((1 + 1 / math.log2(3)) / 2 + 1) / 2)
    assert limit["recall_weighted"] == pytest.approx(3 / 4)
    # Told: 46 or 47, then 47. Item 46 is told in 1/2 case and right in 1/4; 47 in 3/2 and 5/4.
    # Item 46 is told with probability 1/2, and told or an answer with probability 3/4.
    assert limit["precision"] == pytest.approx((1 / 2 * 1 / 2 + 1 * 5 / 6) / (3 / 4 + 1))
    # 46 is the answer of case 1 in 1/2, told then in 1/2. 47 is told and the answer of case 2, and
    # with case 1: share 1 of 1 (answer 46), 2 of 2 (answer 47, told 47) or 1 of 2 (told 46).
    assert limit["recall"] == pytest.approx((1 / 4 + (1 / 2 + 1 / 4 + 1 / 8)) / (3 / 4 + 1))


def test_precision_and_recall_are_what_scikit_learn_gives_on_drawn_answers():
    world = UniformWorld(UniformConfig(num_users=3_000), seed=8)
    catalog = catalog_of(list(world.platforms))
    histories, _ = all_but_last(world, catalog)
    limit = world.limit(Asked(histories), catalog)
    p = np.exp(world.true_log_probabilities(histories, catalog, None))
    rng = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {name: [] for name in ("precision", "recall", "weighted")}
    for _ in range(20):
        answers = (rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(1, 47)
        told = np.where(p == p.max(axis=1, keepdims=True), rng.random(p.shape), -1).argmax(axis=1)
        for name, score, average in (
            ("precision", precision_score, "macro"),
            ("recall", recall_score, "macro"),
            ("weighted", precision_score, "weighted"),
        ):
            drawn[name].append(score(answers, told, average=average, zero_division=0))
    for name, values in drawn.items():
        key = "precision_weighted" if name == "weighted" else name
        error = np.std(values) / math.sqrt(len(values))
        assert limit[key] == pytest.approx(np.mean(values), abs=4 * error), name


def test_population_limit_is_the_harmonic_number_and_the_log_factorial():
    limit = UniformWorld().population_limit()
    harmonic = sum(Fraction(1, m) for m in range(1, 48))
    assert limit["accuracy"] == pytest.approx(float(harmonic / 47))
    assert limit["accuracy"] == pytest.approx(0.0944, abs=5e-5)
    assert limit["loss"] == pytest.approx(sum(math.log(m) for m in range(1, 48)) / 47)
    assert limit["loss"] == pytest.approx(2.911, abs=5e-4)
    assert limit["hit_rate@10"] == pytest.approx(
        float((10 + sum(Fraction(10, m) for m in range(11, 48))) / 47)
    )


def test_the_limit_of_a_sample_is_the_populations_within_chance_and_so_is_the_realised_score():
    world = UniformWorld(UniformConfig(num_users=20_000), seed=5)
    catalog = catalog_of(list(world.platforms))
    histories, answers = all_but_last(world, catalog)
    limit, population = world.limit(Asked(histories), catalog), world.population_limit()
    for name, value in population.items():
        spread = 1.3 if name == "loss" else 0.5  # standard deviation over users, at most
        assert limit[name] == pytest.approx(value, abs=5 * spread / math.sqrt(20_000)), name
    log_p = world.true_log_probabilities(histories, catalog, None)
    losses = -log_p[np.arange(len(answers)), answers]
    assert abs(losses.mean() - population["loss"]) < 4 * losses.std() / math.sqrt(len(losses))
    hits = log_p[:, 1:].argmax(axis=1) + 1 == answers
    assert abs(hits.mean() - limit["accuracy"]) < 4 * hits.std() / math.sqrt(len(hits))


def test_after_every_platform_the_row_is_uniform_rather_than_undefined():
    world = UniformWorld()
    full = Histories.from_lists([list(range(1, 48))])
    log_p = world.true_log_probabilities(full, catalog_of(list(world.platforms)), None)
    assert log_p[0, 1:] == pytest.approx(math.log(1 / 47))


def test_no_users_are_refused():
    with pytest.raises(ConfigError, match="at least 1 user"):
        UniformConfig(num_users=0)


def test_a_history_of_another_log_is_refused():
    catalog = catalog_of(["Flipkart", "Corner Shop"])
    with pytest.raises(DataError, match="1 of 2 purchases"):
        UniformWorld().true_log_probabilities(Histories.from_lists([[1, 2]]), catalog, None)


def test_a_catalog_that_hides_the_platform_is_refused():
    hidden = Catalog(table=catalog_of(["fashion"]).table, level="category")
    with pytest.raises(ConfigError, match="level 'item'"):
        UniformWorld().limit(Asked(Histories.from_lists([[1]])), hidden)


def test_limit_without_questions_is_nan():
    world = UniformWorld()
    nothing = Asked(Histories.from_lists([]))
    assert math.isnan(world.limit(nothing, catalog_of(list(world.platforms)))["loss"])


def test_the_true_probabilities_of_answers_average_to_the_limit_for_the_best():
    world = UniformWorld(UniformConfig(num_users=10))
    catalog = catalog_of(list(world.platforms))
    asked = Asked(Histories.from_lists([[1, 2], [], list(range(1, 47))]))
    told = np.array([3, 47, 1], dtype=np.int32)  # 1 of 45 unseen, 1 of 47, seen already
    found = world.probabilities_of(told, asked, catalog)
    assert found == pytest.approx([1 / 45, 1 / 47, 0])
    best = np.array([3, 47, 47], dtype=np.int32)
    limit = world.limit(asked, catalog)["accuracy"]
    assert world.probabilities_of(best, asked, catalog).mean() == pytest.approx(limit)
