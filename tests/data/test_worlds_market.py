"""world:market: what it draws, and that its truth is the truth."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import precision_score, recall_score

from nextbuy.data.encoding import encode
from nextbuy.data.histories import Histories
from nextbuy.data.worlds import MarketConfig, MarketWorld
from nextbuy.data.worlds.market_parameters import DAY_US, START_US
from nextbuy.errors import ConfigError, DataError
from nextbuy.splitting.leave_last_out import leave_last_out
from nextbuy.splitting.temporal import split_by_time

CUT = START_US + 670 * DAY_US


@pytest.fixture(scope="module")
def market():
    """A world, its temporal split with the last 60 days as test, and the truth about it."""
    world = MarketWorld(MarketConfig(num_users=2_500), seed=11)
    encoded = encode(world.purchases())
    split = split_by_time(encoded.catalog, encoded.histories, test_start=CUT)
    test = split.test
    log_p = world.true_log_probabilities(test.histories, split.catalog, test.as_of, test.until)
    return SimpleNamespace(
        world=world, encoded=encoded, split=split, test=test, log_p=log_p,
        p=np.exp(log_p.astype(np.float64)), answers=test.target_items,
        limit=world.limit(test, split.catalog),
    )  # fmt: skip


def expected_loss(p, log_q):
    """Mean over cases of the cross-entropy of q under the truth p."""
    return -np.where(p > 0, p * np.where(p > 0, log_q, 0), 0).sum(axis=1).mean()


def test_a_log_has_the_promised_shape(market):
    purchases = market.world.purchases()
    frame = purchases.frame
    assert (purchases.time_kind, purchases.basket_kind) == ("dates", "none")
    assert frame["user_id"].n_unique() == 2_500
    assert frame["platform"].n_unique() == len(market.world.platforms) == 47
    assert frame["item_id"].n_unique() > 2_500
    assert frame.null_count().sum_horizontal()[0] == 0
    times = frame["timestamp"].cast(pl.Int64)
    assert START_US <= times.min() < times.max() < market.world.end
    gaps = frame.select(pl.col("timestamp").diff().over("user_id")).drop_nulls()["timestamp"]
    assert gaps.dt.total_microseconds().min() > 0
    assert frame["price"].min() > 0
    assert set(frame["quantity"].unique()) >= {1.0, 2.0}


def test_a_seed_gives_the_same_log_and_another_seed_another():
    config = MarketConfig(num_users=200)
    first, again, other = (MarketWorld(config, seed=s).purchases().frame for s in (1, 1, 2))
    assert first.equals(again)
    assert not first["item_id"].head(500).equals(other["item_id"].head(500))


def test_the_number_of_users_does_not_change_the_laws():
    small, large = (MarketWorld(MarketConfig(num_users=n), seed=3).parameters for n in (10, 99))
    assert np.array_equal(small.habits, large.habits)
    assert np.array_equal(small.price, large.price)


def test_rows_of_the_truth_are_distributions_over_the_catalog(market):
    assert market.log_p.dtype == np.float32
    assert market.log_p.shape == (len(market.test), len(market.split.catalog) + 1)
    assert np.isneginf(market.log_p[:, 0]).all()
    assert market.p.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_the_truth_is_calibrated(market):
    """Of all (case, item) pairs with about the same true probability, that share comes true."""
    known = market.answers > 0
    p, answers = market.p[known], market.answers[known]
    came = np.zeros(p.shape, dtype=bool)
    came[np.arange(len(p)), answers] = True
    edges = [1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.01]
    checked = 0
    for low, high in pairwise(edges):
        rows = (p >= low) & (p < high)
        expected = p[rows].sum()
        if expected < 10:
            continue
        spread = math.sqrt((p[rows] * (1 - p[rows])).sum())
        assert abs(came[rows].sum() - expected) < 4 * spread, (low, high)
        checked += 1
    assert checked >= 9


def test_the_realised_scores_of_the_truth_are_the_limit_within_chance(market):
    known = market.answers > 0
    answers = np.where(known, market.answers, 1)
    rows = np.arange(len(answers))
    losses = -market.log_p[rows, answers][known]
    assert abs(losses.mean() - market.limit["loss"]) < 4 * losses.std() / math.sqrt(len(losses))
    ranks = (market.p > market.p[rows, answers][:, None]).sum(axis=1) + 1
    in_top = known & (ranks <= 10)
    for name, values in (
        ("accuracy", known & (ranks == 1)),
        ("hit_rate@10", in_top),
        ("recall@10", in_top),
        ("mrr@10", in_top / ranks),
        ("ndcg@10", in_top / np.log2(ranks + 1)),
    ):
        error = values.std() / math.sqrt(len(values))
        assert abs(values.mean() - market.limit[name]) < 4 * error, name


def test_no_model_expects_a_lower_loss_than_the_limit(market):
    p, log_p, catalog = market.p, market.log_p.astype(np.float64), market.split.catalog
    limit = market.limit["loss"]
    assert expected_loss(p, log_p) == pytest.approx(limit, abs=0.003)  # unknown answers weigh in
    rng = np.random.default_rng(0)
    popularity = np.log(catalog.table["num_purchases"] / catalog.table["num_purchases"].sum())
    stranger = MarketWorld(MarketConfig(num_users=1), seed=12)
    models = {
        "flatter": 0.8 * log_p,
        "sharper": 1.2 * log_p,
        "perturbed": log_p + rng.normal(0, 0.3, log_p.shape),
        "of another world": stranger.true_log_probabilities(
            market.test.histories, catalog, market.test.as_of, market.test.until
        ),
        "told a wrong time": market.world.true_log_probabilities(
            market.test.histories, catalog, market.test.histories.times[
                market.test.histories.offsets[1:] - 1] + DAY_US, is_at_as_of=True),
        "popularity": np.broadcast_to(np.concatenate([[-np.inf], popularity]), p.shape),
    }  # fmt: skip
    rows, known = np.arange(len(p)), market.answers > 0
    for name, scores in models.items():
        with np.errstate(invalid="ignore"):
            log_q = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        assert expected_loss(p, log_q) > limit + 0.005, name
        answers = np.where(known, market.answers, 1)
        excess = (log_p[rows, answers] - log_q[rows, answers])[known]
        assert excess.mean() > -4 * excess.std() / math.sqrt(len(excess)), name


def test_there_is_room_between_popularity_personal_frequency_and_the_limit(market):
    histories, answers = market.test.histories, market.answers
    counts = np.zeros(market.p.shape)
    np.add.at(counts, (histories.owners, histories.items), 1)
    popular = counts.sum(axis=0)
    by_popularity = (answers == popular.argmax()).mean()
    by_frequency = (answers == (counts + popular / popular.sum()).argmax(axis=1)).mean()
    assert 0.25 < market.limit["accuracy"] < 0.42
    assert by_popularity < 0.05
    assert by_popularity + 0.05 < by_frequency < 0.75 * market.limit["accuracy"]


def test_precision_and_recall_are_what_scikit_learn_gives_on_drawn_answers(market):
    p, told = market.p, market.p.argmax(axis=1)
    rng = np.random.default_rng(1)
    sums = p.cumsum(axis=1)
    drawn: dict[str, list[float]] = {"precision": [], "recall": [], "precision_weighted": []}
    for _ in range(12):
        answers = (rng.random((len(p), 1)) * sums[:, -1:] > sums).sum(axis=1)
        for name, values in drawn.items():
            score = recall_score if name == "recall" else precision_score
            average = "weighted" if name.endswith("weighted") else "macro"
            values.append(score(answers, told, average=average, zero_division=0))
    for name, values in drawn.items():
        assert market.limit[name] == pytest.approx(np.mean(values), rel=0.03), name


def test_the_gap_likelihood_is_reached_by_the_gaps_that_were_drawn(market):
    """In expectation and, within chance, on the drawn gaps, by the density of the truth."""
    test, world, catalog = market.test, market.world, market.split.catalog
    last = test.histories.times[test.histories.offsets[1:] - 1]
    days = lambda times: (times - last) / DAY_US  # noqa: E731
    below = lambda gap: world.gap_probabilities(test.histories, catalog, gap)  # noqa: E731
    low, high = below(days(test.as_of)), below(days(test.until))
    gap, width = days(test.target_times), 1e-3
    density = (below(gap * (1 + width)) - below(gap)) / math.log1p(width)
    score = np.log(density / (high - low))
    error = score.std() / math.sqrt(len(score))
    assert abs(score.mean() - market.limit["gap_log_likelihood"]) < 4 * error


def test_gaps_are_uniform_in_their_predicted_quantiles(market):
    histories, catalog = market.encoded.histories, market.encoded.catalog
    number = 8  # the gap from the 8th to the 9th purchase, of those who were not cut off by the end
    nth = histories.offsets[:-1] + number
    users = np.flatnonzero(histories.lengths >= number)
    users = users[histories.times[nth[users] - 1] < market.world.end - 230 * DAY_US]
    assert (histories.lengths[users] > number).all()
    first = np.arange(histories.num_purchases) - np.repeat(
        histories.offsets[:-1], histories.lengths
    )
    seen = histories.keep(first < number).take(users)
    gaps = (histories.times[nth[users]] - histories.times[nth[users] - 1]) / DAY_US
    quantiles = np.sort(market.world.gap_probabilities(seen, catalog, gaps))
    size = len(quantiles)
    distance = np.abs(quantiles - (np.arange(size) + 0.5) / size).max()
    assert size > 1_000
    assert distance < 1.95 / math.sqrt(size)  # Kolmogorov, one in a thousand


def test_a_known_time_is_worth_something_and_leave_last_out_gives_it_away(market):
    split = leave_last_out(market.encoded.catalog, market.encoded.histories)
    test = split.test.take(np.arange(0, len(split.test), 2))
    told = market.world.limit(test, split.catalog)
    asked_before = SimpleNamespace(
        histories=test.histories, as_of=test.as_of - 1, until=None, target_times=test.target_times
    )
    untold = market.world.limit(_sized(asked_before), split.catalog)
    assert told["loss"] < untold["loss"] - 0.001
    log_p = market.world.true_log_probabilities(
        test.histories, split.catalog, test.as_of, is_at_as_of=True
    )
    known = test.target_items > 0
    losses = -log_p[np.flatnonzero(known), test.target_items[known]]
    assert abs(losses.mean() - told["loss"]) < 4 * losses.std() / math.sqrt(len(losses))
    assert math.isfinite(told["gap_log_likelihood"])


class _sized(SimpleNamespace):  # noqa: N801
    def __init__(self, question):
        super().__init__(**vars(question))

    def __len__(self):
        return len(self.histories)


def test_items_that_the_catalog_lacks_are_misses_and_leave_the_loss(market):
    world, catalog, test = market.world, market.split.catalog, market.test.take(np.arange(40))
    full = world.limit(test, catalog)
    absent = np.setdiff1d(np.arange(1, len(catalog) + 1), test.histories.items)
    kept = np.setdiff1d(np.arange(1, len(catalog) + 1), absent[::2])
    new_index = np.full(len(catalog) + 1, -1, dtype=np.int32)
    new_index[kept] = np.arange(1, len(kept) + 1)
    smaller = type(catalog)(table=catalog.table[kept - 1])
    histories = test.histories.with_items(new_index[test.histories.items])
    log_p = world.true_log_probabilities(histories, smaller, test.as_of, test.until)
    whole = market.p[:40][:, kept]
    assert np.exp(log_p[:, 1:]) == pytest.approx(
        whole / whole.sum(axis=1, keepdims=True), rel=1e-3, abs=1e-9
    )
    question = SimpleNamespace(
        histories=histories, as_of=test.as_of, until=test.until, target_times=None
    )
    limit = world.limit(_sized(question), smaller)
    assert limit["accuracy"] <= full["accuracy"]
    assert limit["loss"] < full["loss"]


def test_questions_that_have_no_answer_are_refused(market):
    world, catalog, test = market.world, market.split.catalog, market.test.take(np.arange(3))
    order = Histories.from_lists([[1, 2]])
    with pytest.raises(ConfigError, match="needs dates"):
        world.true_log_probabilities(order, catalog, None)
    with pytest.raises(ConfigError, match="before the end"):
        world.true_log_probabilities(test.histories, catalog, test.as_of, int(test.as_of[0]))
    with pytest.raises(DataError, match="does not sell"):
        foreign = type(catalog)(
            table=catalog.table.with_columns(item_id=pl.lit("x") + pl.col("item_id"))
        )
        world.true_log_probabilities(test.histories, foreign, None)
    coarse = encode(world.purchases(), "category")
    with pytest.raises(ConfigError, match="level 'item'"):
        world.limit(SimpleNamespace(histories=coarse.histories), coarse.catalog)
    with pytest.raises(ConfigError, match="0 segments"):
        MarketConfig(num_segments=0)


def test_the_expected_accuracy_of_the_best_answers_is_the_limit_and_of_others_less():
    world = MarketWorld(MarketConfig(num_users=60), seed=4)
    encoded = encode(world.purchases())
    split = split_by_time(encoded.catalog, encoded.histories, test_days=30)
    cases, catalog = split.test, split.catalog
    until = min(cases.until, world.end)
    truth = world.true_log_probabilities(cases.histories, catalog, cases.as_of, until)
    limit = world.limit(cases, catalog)["accuracy"]
    best = truth.argmax(axis=1).astype(np.int32)
    assert world.probabilities_of(best, cases, catalog).mean() == pytest.approx(limit, rel=1e-5)
    assert world.probabilities_of(np.ones_like(best), cases, catalog).mean() < limit
