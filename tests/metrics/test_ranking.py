import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from nextbuy.data.histories import offsets_of
from nextbuy.metrics import ranking
from nextbuy.metrics.likelihood import log_loss, num_known
from nextbuy.metrics.ranking import MISSED

cases_of_ranks = st.lists(
    st.lists(st.one_of(st.integers(1, 30), st.just(MISSED)), max_size=6, unique=True),
    min_size=1,
    max_size=8,
)


def flat(cases):
    ranks = np.array([r for case in cases for r in case], dtype=np.int64)
    return ranks, offsets_of(np.array([len(case) for case in cases]))


def test_values_by_hand():
    ranks, offsets = flat([[1, 4, 12], [3], [MISSED, 2], [MISSED], []])
    assert ranking.hit_rate(ranks, offsets, 1).tolist()[:4] == [1, 0, 0, 0]
    assert ranking.hit_rate(ranks, offsets, 5).tolist()[:4] == [1, 1, 1, 0]
    assert ranking.recall(ranks, offsets, 5).tolist()[:4] == [2 / 3, 1, 1 / 2, 0]
    assert ranking.reciprocal_rank(ranks, offsets, 5).tolist()[:4] == [1, 1 / 3, 1 / 2, 0]
    assert ranking.reciprocal_rank(ranks, offsets, 2).tolist()[:4] == [1, 0, 1 / 2, 0]
    third, fifth = 1 / math.log2(3), 1 / math.log2(5)
    assert ranking.ndcg(ranks, offsets, 5).tolist()[:4] == pytest.approx(
        [(1 + fifth) / (1 + third + 1 / 2), 1 / 2, third / (1 + third), 0]
    )


def test_a_case_without_targets_is_left_out_of_the_mean():
    ranks, offsets = flat([[1], []])
    for metric in (ranking.hit_rate, ranking.recall, ranking.ndcg, ranking.reciprocal_rank):
        values = metric(ranks, offsets, 10)
        assert math.isnan(values[1])
        assert ranking.mean(values) == 1


def test_nothing_to_find_at_all_is_nan():
    ranks, offsets = flat([[], []])
    assert math.isnan(ranking.mean(ranking.ndcg(ranks, offsets, 10)))


@given(cases_of_ranks, st.sampled_from([1, 5, 10, 20]))
def test_a_slow_walk_over_the_list_finds_the_same(cases, k):
    def walk(case):
        """Hit, recall, NDCG and reciprocal rank, place by place."""
        hits, gain, ideal, first = 0, 0.0, 0.0, 0.0
        for place in range(1, k + 1):
            if place in case:
                hits += 1
                gain += 1 / math.log2(place + 1)
                first = first or 1 / place
            if place <= len(case):
                ideal += 1 / math.log2(place + 1)
        return [float(hits > 0), hits / len(case), gain / ideal, first]

    ranks, offsets = flat(cases)
    metrics = (ranking.hit_rate, ranking.recall, ranking.ndcg, ranking.reciprocal_rank)
    fast = np.stack([metric(ranks, offsets, k) for metric in metrics], axis=1)
    for case, row in zip(cases, fast, strict=True):
        if case:
            assert row.tolist() == pytest.approx(walk(case))
        else:
            assert np.isnan(row).all()


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_ndcg_is_the_one_of_scikit_learn(k):
    rng = np.random.default_rng(k)
    scores = rng.permuted(np.tile(np.arange(50.0), (40, 1)), axis=1)
    relevant = rng.random((40, 50)) < 0.1
    relevant[np.arange(40), rng.integers(0, 50, 40)] = True
    cases = [[int((row > row[t]).sum()) + 1 for t in np.flatnonzero(mask)]
             for row, mask in zip(scores, relevant, strict=True)]  # fmt: skip
    ours = ranking.mean(ranking.ndcg(*flat(cases), k))
    assert ours == pytest.approx(ndcg_score(relevant.astype(float), scores, k=k))


def test_revenue_is_the_money_of_what_was_found():
    ranks, offsets = flat([[1, 11, 2], [3], [4], []])
    values = np.array([2.5, 100.0, np.nan, 7.0, np.nan])
    revenue = ranking.revenue(values, ranks, offsets, 10)
    assert revenue[:2].tolist() == [2.5, 7.0]
    assert np.isnan(revenue[2:]).all()


def test_coverage_counts_items_once_and_padding_never():
    assert ranking.coverage(np.array([[1, 2], [2, 0], [2, 3]]), 12) == 3 / 12
    assert math.isnan(ranking.coverage(np.zeros((0, 0), np.int32), 0))


def test_each_purchase_counts_once_in_the_loss_and_unknown_ones_do_not():
    log_p = np.log(np.array([1 / 2, 1 / 8, 1 / 4, np.nan, np.nan]))
    values = log_loss(log_p, offsets_of(np.array([2, 2, 1])))
    assert values[:2].tolist() == pytest.approx([2 * math.log(2), 2 * math.log(2)])
    assert math.isnan(values[2])
    offsets = offsets_of(np.array([1, 3, 1]))
    sizes = num_known(log_p, offsets)
    assert sizes.tolist() == [1, 2, 0]
    assert ranking.mean(log_loss(log_p, offsets), sizes) == pytest.approx(2 * math.log(2))
    assert math.isnan(ranking.mean(np.zeros(2), np.zeros(2)))


def test_an_impossible_target_costs_infinitely_much():
    values = log_loss(np.array([-np.inf, 0.0]), offsets_of(np.array([1, 1])))
    assert values.tolist() == [math.inf, 0]
