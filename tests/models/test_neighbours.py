"""Markov, item neighbours, EASE, TIFU-KNN and UP-CF against slow, plain twins."""

from collections import defaultdict

import numpy as np
import pytest

from nextbuy.data.histories import Histories
from nextbuy.models import tifu_knn
from nextbuy.models.ease import Ease, EaseConfig
from nextbuy.models.item_knn import ItemKnn, ItemKnnConfig
from nextbuy.models.markov import Markov, MarkovConfig
from nextbuy.models.protocol import FitOptions
from nextbuy.models.recency_popularity import RecencyPopularity, RecencyPopularityConfig
from nextbuy.models.tifu_knn import TifuKnn, TifuKnnConfig, groups_of
from nextbuy.models.up_cf import UpCf, UpCfConfig
from nextbuy.testing.contract import cases_of, small_catalog

V = 7
DAY = 86_400_000_000
NOTHING = cases_of(Histories.from_lists([]), [], as_of=None)


def random_users(num_users, seed, most_baskets=12):
    """Users as lists of baskets, each a sorted list of distinct items."""
    rng = np.random.default_rng(seed)
    return [
        [
            sorted(rng.choice(np.arange(1, V + 1), rng.integers(1, 4), replace=False).tolist())
            for _ in range(rng.integers(1, most_baskets))
        ]
        for _ in range(num_users)
    ]


def histories_of(users):
    items = [[i for basket in user for i in basket] for user in users]
    baskets = [[number for number, basket in enumerate(user) for _ in basket] for user in users]
    return Histories.from_lists(items, baskets=baskets)


def scores(model, train, asked):
    """What the model scores, before it is made a distribution, [U, V]."""
    arrays = model.learn(histories_of(train), NOTHING, small_catalog(V), FitOptions())
    return model.scores(arrays, histories_of(asked), V)


TRAIN, ASKED = random_users(25, seed=1), [*random_users(8, seed=2), []]


def test_markov_counts_what_follows():
    reach, decay, smoothing = 2, 0.5, 3.0
    counts = defaultdict(float)
    for user in TRAIN:
        for later in range(len(user)):
            for k in (1, 2):
                if later - k >= 0:
                    for i in user[later - k]:
                        for j in user[later]:
                            counts[i, j] += decay ** (k - 1)
    totals = {i: sum(counts[i, j] for j in range(1, V + 1)) + smoothing for i in range(1, V + 1)}
    expected = np.zeros((len(ASKED), V))
    for row, user in enumerate(ASKED):
        for ago, basket in enumerate(reversed(user)):
            if ago < reach:
                for i in basket:
                    for j in range(1, V + 1):
                        expected[row, j - 1] += decay**ago * counts[i, j] / totals[i]
    config = MarkovConfig(reach=reach, decay=decay, smoothing=smoothing)
    np.testing.assert_allclose(scores(Markov(config), TRAIN, ASKED), expected, rtol=1e-4)


def test_item_neighbours_are_those_of_the_formula():
    shrinkage, decay, k = 2.0, 0.8, 3
    buyers = {i: {u for u, user in enumerate(TRAIN) for b in user if i in b}
              for i in range(1, V + 1)}  # fmt: skip
    similarity = np.zeros((V, V))
    for i in range(1, V + 1):
        for j in range(1, V + 1):
            if i != j:
                common = len(buyers[i] & buyers[j])
                norm = np.sqrt(len(buyers[i]) * len(buyers[j]))
                similarity[i - 1, j - 1] = common / (norm + shrinkage)
        kept = np.argsort(-similarity[i - 1], kind="stable")[:k]
        similarity[i - 1, np.setdiff1d(np.arange(V), kept)] = 0
    expected = np.zeros((len(ASKED), V))
    for row, user in enumerate(ASKED):
        newest = {i: ago for ago, basket in reversed(list(enumerate(reversed(user))))
                  for i in basket}  # fmt: skip
        for i, ago in newest.items():
            expected[row] += decay**ago * similarity[i - 1]
    config = ItemKnnConfig(neighbours=k, shrinkage=shrinkage, decay=decay)
    np.testing.assert_allclose(scores(ItemKnn(config), TRAIN, ASKED), expected, rtol=1e-4)


def bought(users):
    matrix = np.zeros((len(users), V))
    for row, user in enumerate(users):
        for basket in user:
            matrix[row, np.array(basket) - 1] = 1
    return matrix


def test_ease_is_the_ridge_regression_of_each_item_on_the_others():
    """The closed form against V separate regressions in float64."""
    penalty = 4.0
    X = bought(TRAIN)
    B = np.zeros((V, V))
    for j in range(V):
        others = np.delete(np.arange(V), j)
        A = X[:, others]
        B[others, j] = np.linalg.solve(A.T @ A + penalty * np.eye(V - 1), A.T @ X[:, j])
    expected = np.maximum(bought(ASKED) @ B, 0)
    config = EaseConfig(penalty=penalty, decay=1.0)
    np.testing.assert_allclose(scores(Ease(config), TRAIN, ASKED), expected, atol=1e-4)
    all_neighbours = EaseConfig(penalty=penalty, decay=1.0, dense_items=1, neighbours=V)
    np.testing.assert_allclose(scores(Ease(all_neighbours), TRAIN, ASKED), expected, atol=1e-4)


def tifu_vector(user, config):
    """As the authors' program does it: lists of arrays, one basket after the other."""
    vectors = []
    for place, basket in enumerate(user):
        vector = np.zeros(V)
        vector[np.array(basket) - 1] = config.within_decay ** (len(user) - 1 - place)
        vectors.append(vector)
    if len(vectors) < config.groups:
        groups = vectors
    else:
        base, extra = divmod(len(vectors), config.groups)
        sizes = [base] * (config.groups - extra) + [base + 1] * extra
        ends = np.cumsum(sizes)
        groups = [np.mean(vectors[e - s : e], axis=0) for s, e in zip(sizes, ends, strict=True)]
    total = sum(
        (vector * config.group_decay ** (config.groups - 1 - g) for g, vector in enumerate(groups)),
        start=np.zeros(V),
    )
    return total / max(1, len(groups))


@pytest.mark.parametrize("num_groups", [1, 3, 7])
def test_tifu_knn_mixes_own_and_neighbours_vectors(num_groups):
    config = TifuKnnConfig(neighbours=4, own_share=0.6, groups=num_groups)
    train = np.array([tifu_vector(user, config) for user in TRAIN])
    expected = []
    for user in ASKED:
        own = tifu_vector(user, config)
        near = np.argsort(((train - own) ** 2).sum(axis=1), kind="stable")[:4]
        expected.append(0.6 * own + 0.4 * train[near].mean(axis=0) if user else np.zeros(V))
    found = scores(TifuKnn(config), TRAIN, ASKED)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_groups_are_nearly_equal_and_the_later_are_larger():
    n = np.full(10, 10)
    group, size = groups_of(np.arange(10), n, 4)
    assert group.tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3, 3]
    assert size.tolist() == [2, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    group, size = groups_of(np.arange(3), np.full(3, 3), 4)
    assert (group.tolist(), size.tolist()) == ([0, 1, 2], [1, 1, 1])


def test_up_cf_adds_what_similar_users_bought_lately():
    config = UpCfConfig(recency=3, asymmetry=0.75, locality=2.0)

    def recent(user):
        shares = np.zeros(V)
        for basket in user[-3:]:
            shares[np.array(basket) - 1] += 1 / len(user[-3:])
        return shares

    expected = []
    for user in ASKED:
        mine = {i for basket in user for i in basket}
        total = recent(user)
        for other in TRAIN:
            theirs = {i for basket in other for i in basket}
            if mine & theirs:
                norm = len(mine) ** 0.75 * len(theirs) ** 0.25
                total += (len(mine & theirs) / norm) ** 2 * recent(other)
        expected.append(total)
    np.testing.assert_allclose(scores(UpCf(config), TRAIN, ASKED), expected, rtol=1e-4)


def test_recency_popularity_by_hand():
    train = Histories.from_lists([[1, 2], [2]], times=[[0, 10 * DAY], [5 * DAY]])
    model = RecencyPopularity(RecencyPopularityConfig(half_life_days=5.0))
    arrays = model.learn(train, NOTHING, small_catalog(3), FitOptions())
    np.testing.assert_allclose(arrays["scores"], [0.25, 1.5, 0.0])


def test_the_half_life_is_the_one_that_suits_validation():
    """Fashion changes every ten days; a year of memory is of no use."""
    items = [[1 + day // 10 % 4 for day in range(100)] for _ in range(5)]
    times = [[day * DAY for day in range(100)] for _ in range(5)]
    train = Histories.from_lists(items, times=times)
    newest = items[0][-1]
    validation = cases_of(train, [[newest]] * 5, as_of=np.full(5, 100 * DAY))
    model = RecencyPopularity().fit(train, validation, small_catalog(4), FitOptions())
    log_p = model.log_probabilities(train, np.full(5, 100 * DAY))
    assert np.exp(log_p[0, newest]) > 0.9


def test_equally_near_neighbours_are_taken_in_their_order(monkeypatch):
    """2, 3, 4 and 5 are as far from 1 as from each other: the first two of them count. Asked in
    blocks or at once, alone or beside others, the answer is the same to the last bit."""
    config = TifuKnnConfig(neighbours=3, own_share=0.5, groups=1)
    train = [[[2]], [[1]], [[3]], [[4]], [[5]]]
    asked = [[[1]], [[6]], [[5]], [[1]]]
    found = scores(TifuKnn(config), train, asked)
    near = {1: (1, 2, 3), 6: (2, 1, 3), 5: (5, 2, 1)}
    for row, user in zip(found, asked, strict=True):
        own = user[0][0]
        expected = np.zeros(V)
        expected[own - 1] = 0.5
        for item in near[own]:
            expected[item - 1] += 0.5 / 3
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    monkeypatch.setattr(tifu_knn, "_BLOCK", 2)
    np.testing.assert_array_equal(scores(TifuKnn(config), train, asked), found)
