"""Popularity and personal frequency, by hand and against a plain twin."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy.data.histories import UNKNOWN, Histories
from nextbuy.models.personal_frequency import PersonalFrequency, PersonalFrequencyConfig
from nextbuy.models.popularity import Popularity, PopularityConfig
from nextbuy.models.protocol import FitOptions
from nextbuy.testing.contract import cases_of, small_catalog

NOTHING = cases_of(Histories.from_lists([]), [], as_of=None)


def fitted(model, train, validation=NOTHING, num_items=4):
    histories = Histories.from_lists(train)
    return model.fit(histories, validation, small_catalog(num_items), FitOptions())


def probabilities(model, *histories):
    return np.exp(model.log_probabilities(Histories.from_lists(list(histories)), None))[:, 1:]


def test_popularity_by_hand():
    model = fitted(Popularity(), [[1, 1, 2], [1, 3]])  # 3, 1, 1, 0 and one more each: of 9
    expected = [4 / 9, 2 / 9, 2 / 9, 1 / 9]
    np.testing.assert_allclose(probabilities(model, [], [4, 4]), [expected] * 2, rtol=1e-6)


def test_smoothing_changes_popularity():
    model = fitted(Popularity(PopularityConfig(smoothing=0.5)), [[1, 1, 2], [1, 3]])
    assert probabilities(model, [])[0, 3] == pytest.approx(0.5 / 7)


def test_personal_frequency_by_hand():
    config = PersonalFrequencyConfig(trust=0.8, half_length=2.0, decay=1.0)
    model = fitted(PersonalFrequency(config), [[1, 1, 2], [1, 3]])
    popular = np.array([4, 2, 2, 1]) / 9
    own = 0.8 * 4 / (4 + 2)
    expected = (1 - own) * popular + own * np.array([0, 0, 1, 3]) / 4
    np.testing.assert_allclose(probabilities(model, [4, 3, 4, 4])[0], expected, rtol=1e-5)
    np.testing.assert_allclose(probabilities(model, [])[0], popular, rtol=1e-5)


def test_what_was_bought_lately_counts_more():
    config = PersonalFrequencyConfig(trust=0.5, half_length=0.0, decay=0.5)
    model = fitted(PersonalFrequency(config), [[1, 2, 3, 4]])  # all as popular
    histories = Histories.from_lists([[1, 2, 2]], baskets=[[0, 1, 1]])
    found = np.exp(model.log_probabilities(histories, None))[0, 1:]
    # The older basket counts 1/2, both purchases of the newer count 1.
    np.testing.assert_allclose(found, 1 / 8 + 0.5 * np.array([0.5, 2, 0, 0]) / 2.5, rtol=1e-5)


def test_what_is_chosen_has_the_best_validation_likelihood():
    """A slow twin looks at every choice of a finer grid, too; none is better by much."""
    rng = np.random.default_rng(0)
    train = [rng.choice([1, 2, 3, 4], rng.integers(1, 9)).tolist() for _ in range(30)]
    targets = [[row[-1] if rng.random() < 0.7 else int(rng.integers(1, 5))] for row in train]
    targets[0] = [UNKNOWN]
    validation = cases_of(Histories.from_lists(train), targets, as_of=None)
    model = fitted(PersonalFrequency(), train, validation)

    def frequency(row, target, decay):
        weights = [decay ** (len(row) - 1 - place) for place in range(len(row))]
        matching = sum(w for w, item in zip(weights, row, strict=True) if item == target)
        return matching / sum(weights)

    def loss(trust, half, decay):
        counts = Counter(item for row in train for item in row)
        total = 0.0
        for row, (target,) in zip(train, targets, strict=True):
            if target == UNKNOWN:
                continue
            own = trust * len(row) / (len(row) + half)
            popular = (counts[target] + 1) / (sum(counts.values()) + 4)
            total -= math.log((1 - own) * popular + own * frequency(row, target, decay))
        return total / 29

    found = model.config
    chosen = loss(found.trust, found.half_length, found.decay)
    halves = [0, *np.geomspace(0.3, 1000, 15)]
    grid = itertools.product(np.linspace(0.01, 0.99, 15), halves, np.linspace(0.5, 1.0, 11))
    assert chosen <= min(loss(*told) for told in grid) + 0.01
    assert chosen < loss(0.0, 1.0, 1.0)  # better than popularity
    assert found.decay < 1.0  # the last of each row was made to return


def test_where_nobody_repeats_the_own_history_is_not_trusted():
    train = [[1, 2], [2, 3], [3, 4], [4, 1]] * 10
    targets = [[3], [4], [1], [2]] * 10
    validation = cases_of(Histories.from_lists(train), targets, as_of=None)
    model = fitted(PersonalFrequency(), train, validation)
    assert probabilities(model, [1, 2])[0] == pytest.approx([0.25] * 4, abs=0.01)


def loss(model, validation):
    """Mean of -log p over the targets, in plain Python."""
    log_p = model.log_probabilities(validation.histories, None)
    found = [
        float(log_p[case, item])
        for case, (start, end) in enumerate(itertools.pairwise(validation.target_offsets))
        for item in validation.target_items[start:end]
    ]
    return -sum(found) / len(found)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 4), max_size=6),
            st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_chosen_is_the_best_of_any_told_and_never_worse_than_popularity(log):
    """The same choice made the slow way: fit once for each pair that could be told."""
    train = [row for row, _ in log]
    validation = cases_of(Histories.from_lists(train), [basket for _, basket in log], as_of=None)
    chosen = fitted(PersonalFrequency(), train, validation)
    told = [
        fitted(PersonalFrequency(PersonalFrequencyConfig(trust=t, half_length=h, decay=d)), train)
        for t in (0.001, 0.05, 0.5, 0.95, 0.99)
        for h in (0.0, 0.5, 8.0, 1024.0)
        for d in (0.5, 1.0)
    ]
    assert loss(chosen, validation) <= min(loss(model, validation) for model in told) + 1e-5
    # The least trust that is ever given ranks the own items and costs next to nothing.
    assert loss(chosen, validation) <= loss(fitted(Popularity(), train), validation) + 1e-5


@pytest.mark.parametrize(
    "told", [{"trust": 0.0}, {"half_length": 0.0}, {"trust": 0.3}, {"decay": 0.6}]
)
def test_what_is_told_is_kept_with_and_without_validation(told):
    train = [[1, 1], [2, 2], [3, 3], [1, 4]]
    validation = cases_of(Histories.from_lists(train), [[1], [2], [3], [2]], as_of=None)
    for cases in (NOTHING, validation):
        model = fitted(PersonalFrequency(PersonalFrequencyConfig(**told)), train, cases)
        assert model.config.model_dump().items() >= told.items()


def test_without_trust_personal_frequency_is_popularity():
    train = [[1, 1], [2, 2], [1, 3]]
    model = fitted(PersonalFrequency(PersonalFrequencyConfig(trust=0.0)), train)
    expected = probabilities(fitted(Popularity(), train), [2, 2], [])
    np.testing.assert_allclose(probabilities(model, [2, 2], []), expected, rtol=1e-6)


def test_purchases_without_a_target_in_the_catalog_choose_nothing():
    """Two logs that differ only in a case whose answer the catalog lacks."""
    train = [[1, 1], [2, 2], [1, 3]]
    known = cases_of(Histories.from_lists(train), [[1], [2], [1]], as_of=None)
    with_unknown = cases_of(
        Histories.from_lists([*train, [4] * 9]), [[1], [2, UNKNOWN], [1], [UNKNOWN]], as_of=None
    )
    assert (
        fitted(PersonalFrequency(), train, known).config
        == fitted(PersonalFrequency(), train, with_unknown).config
    )
