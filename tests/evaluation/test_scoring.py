import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy.data.histories import UNKNOWN
from nextbuy.errors import TrainingError
from nextbuy.evaluation.scoring import score
from nextbuy.metrics.ranking import MISSED
from nextbuy.splitting.repeat import RepeatPolicy
from tests.evaluation.table_model import TableModel, cases_of, random_cases
from tests.splitting.small_logs import DAY, catalog_of, log_of

EXCLUDE = RepeatPolicy.parse("exclude")


def test_ties_are_broken_by_item_index_so_a_constant_model_scores_as_chance():
    model = TableModel(np.full((4, 4), 1 / 4))
    scores = score(model, cases_of([[], [], [], []], [[1], [2], [3], [4]]), catalog_of(4))
    assert scores.ranks.tolist() == [1, 2, 3, 4]
    assert scores.top_items[:, 0].tolist() == [1, 1, 1, 1]


def test_a_target_that_the_catalog_lacks_is_missed_and_costs_no_loss():
    scores = score(TableModel([[1 / 2, 1 / 2]]), cases_of([[1]], [[UNKNOWN, 2]]), catalog_of(2))
    assert scores.ranks.tolist() == [MISSED, 2]
    assert math.isnan(scores.log_probabilities[0])
    assert np.exp(scores.log_probabilities[1]) == pytest.approx(1 / 2)
    assert not scores.repeats.any()


def test_what_was_bought_is_not_offered_under_exclude():
    model = TableModel([[1 / 2, 1 / 4, 1 / 4]] * 2)
    scores = score(model, cases_of([[1], [1, 2, 3]], [[1, 2], [3]]), catalog_of(3), repeat=EXCLUDE)
    assert scores.top_items.tolist() == [[2, 3, 0], [0, 0, 0]]
    assert np.exp(scores.top_log_probabilities).tolist() == [[0.5, 0.5, 0], [0, 0, 0]]
    assert scores.ranks.tolist() == [MISSED, 1, MISSED]
    assert scores.excluded.tolist() == [True, False, True]
    assert np.exp(scores.log_probabilities[1]) == pytest.approx(1 / 2)
    assert np.isnan(scores.log_probabilities[[0, 2]]).all()


def test_a_cooldown_looks_at_each_users_own_moment():
    cases = cases_of(
        log_of([(1, [1])], [(20, [1])]), [[1], [1]], as_of=np.array([30 * DAY, 30 * DAY])
    )
    model = TableModel([[1 / 2, 1 / 2]] * 2)
    scores = score(model, cases, catalog_of(2), repeat=RepeatPolicy.parse("cooldown:20"))
    assert scores.ranks.tolist() == [1, MISSED]


def test_an_impossible_item_ranks_last_and_costs_infinitely_much():
    scores = score(TableModel([[1.0, 0.0]]), cases_of([[]], [[2]]), catalog_of(2))
    assert scores.ranks.tolist() == [2]
    assert scores.log_probabilities.tolist() == [-math.inf]
    assert not scores.excluded.any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.sampled_from(["allow", "exclude"]))
def test_a_slow_walk_over_each_case_finds_the_same_whatever_the_chunk(seed, chunk, policy):
    rows, histories, targets = random_cases(np.random.default_rng(seed), 7, 9)
    model = TableModel(rows)
    scores = score(
        model,
        cases_of(histories, targets),
        catalog_of(9),
        repeat=RepeatPolicy.parse(policy),
        k=4,
        chunk=chunk,
    )
    assert model.most_asked <= chunk
    at = 0
    for c, (row, history, basket) in enumerate(zip(rows, histories, targets, strict=True)):
        offered = [i for i in range(1, 10) if policy == "allow" or i not in history]
        total = sum(row[i - 1] for i in offered)
        best = sorted(offered, key=lambda i: (-row[i - 1], i))
        assert [i for i in scores.top_items[c].tolist() if i] == best[:4]
        assert scores.history_lengths[c] == len(history)
        for target in basket:
            assert scores.repeats[at] == (target in history)
            if target in best:
                assert scores.ranks[at] == best.index(target) + 1
                share = row[target - 1] / total
                assert np.exp(scores.log_probabilities[at]) == pytest.approx(share, rel=1e-5)
            else:
                assert scores.ranks[at] == MISSED
                assert math.isnan(scores.log_probabilities[at])
            at += 1


def test_a_part_keeps_the_cases_and_a_choice_keeps_the_targets():
    scores = score(
        TableModel([[1 / 2, 1 / 2]] * 3), cases_of([[1]] * 3, [[1, 2], [2], [1]]), catalog_of(2)
    )
    assert np.diff(scores.part(scores.repeats).target_offsets).tolist() == [1, 0, 1]
    chosen = scores.take(np.array([2, 0]))
    assert chosen.target_items.tolist() == [1, 1, 2]
    assert chosen.ranks.tolist() == [1, 1, 2]


def test_a_model_that_answers_nan_is_refused_by_name():
    with pytest.raises(TrainingError, match=r"table gave nan .* 1 of 2 histories"):
        score(
            TableModel([[1.0, np.nan], [0.5, 0.5]]), cases_of([[], []], [[1], [1]]), catalog_of(2)
        )


def test_a_model_of_another_catalog_is_refused_with_both_shapes():
    with pytest.raises(TrainingError, match=r"\(1, 3\).*\(1, 6\)"):
        score(TableModel([[0.5, 0.5]]), cases_of([[]], [[1]]), catalog_of(5))
