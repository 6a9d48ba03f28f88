"""Targets that are ranked without whole rows stand where whole rows put them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy.data.histories import DAY, PADDING, Histories
from nextbuy.evaluation import scoring
from nextbuy.evaluation.scoring import ranks_of, score
from nextbuy.models import neural_scoring
from nextbuy.models.neural_ranks import ranked
from nextbuy.models.neural_scoring import score_histories, validation_loss
from nextbuy.models.popularity import Popularity
from nextbuy.models.protocol import FitOptions, RanksTargets, top_k
from nextbuy.models.recency_popularity import RecencyPopularity
from nextbuy.models.transformer import Transformer, TransformerConfig
from nextbuy.splitting.repeat import RepeatPolicy, apply_repeat_policy
from nextbuy.testing.contract import V, small_catalog, small_train, small_validation
from tests.models.test_neural_top_k import POLICIES, histories_of, network_of

TARGETS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=9)


def targets_of(pairs, num_users):
    pairs = sorted({(user % num_users, item) for user, item in pairs})
    owners, items = zip(*pairs, strict=True)
    return np.array(owners, np.int64), np.array(items, np.int32)


def assert_ranks_fit(found, rows, owners, targets):
    """Equal to those of whole rows, but for items whose probabilities differ by rounding."""
    own = rows[owners, targets].astype(np.float64)
    np.testing.assert_allclose(
        np.exp(found.target_log_probabilities), np.exp(own), rtol=1e-5, atol=1e-9
    )
    for rank, owner, target in zip(found.target_ranks, owners, targets, strict=True):
        others = np.delete(rows[owner, 1:].astype(np.float64), target - 1)
        mine = rows[owner, target]
        if np.isneginf(mine):
            continue
        surely = np.count_nonzero(others > mine + 2e-5)
        perhaps = np.count_nonzero(others > mine - 2e-5)
        assert 1 + surely <= rank <= 1 + perhaps


def refuse_whole_rows(*_, **__):
    raise AssertionError("whole rows of a large catalog were asked for")


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.lists(st.integers(1, 6), max_size=8), min_size=1, max_size=5),
    pairs=TARGETS, num_items=st.integers(6, 40), k=st.integers(1, 8), seed=st.integers(0, 999),
    policy=st.sampled_from(POLICIES), repeats=st.booleans(),
    temperature=st.sampled_from([1.0, 2.0]),
)  # fmt: skip
def test_a_network_ranks_as_its_whole_rows_do(
    rows, pairs, num_items, k, seed, policy, repeats, temperature
):
    network, histories = network_of(seed, num_items, repeats=repeats), histories_of(rows)
    owners, targets = targets_of(pairs, len(rows))
    now, policy = histories.lengths * DAY, RepeatPolicy.parse(policy)
    told = {"longest": 20, "temperature": temperature, "groups": np.zeros(num_items + 1, np.int64)}
    found = ranked(
        network, histories, now, k, blocked=policy.blocks(histories, now), owners=owners,
        targets=targets, **told,
    )  # fmt: skip
    raw = score_histories(network, histories, now, num_items=num_items, **told)
    whole = apply_repeat_policy(raw, histories, now, policy)
    assert_ranks_fit(found, whole, owners, targets)
    _, expected = top_k(whole, k)
    np.testing.assert_allclose(
        np.exp(found.log_probabilities), np.exp(expected), rtol=1e-5, atol=1e-7
    )


def test_an_own_item_that_is_far_from_the_best_is_ranked_in_a_second_pass():
    """The repeat head gives it little, so that far more than k other items come before it."""
    network = network_of(3, 200, repeats=True, spread=1.5)
    histories = histories_of([[5, 5, 9, 9, 9, 9], [7], []])
    now = histories.lengths * DAY
    told = {"longest": 20, "temperature": 1.0, "groups": np.zeros(201, np.int64)}
    rows = score_histories(network, histories, now, num_items=200, **told)
    owners, targets = np.array([0, 0, 1, 2]), np.array([5, 9, 7, 1], np.int32)
    exact = ranks_of(rows, owners, targets)
    assert exact.max() > 3
    nothing = RepeatPolicy.ALLOW.blocks(histories, now)
    found = ranked(
        network, histories, now, 1, blocked=nothing, owners=owners, targets=targets, **told
    )
    assert found.target_ranks.tolist() == exact.tolist()


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(st.lists(st.integers(1, 6), max_size=8), min_size=1, max_size=5),
    pairs=TARGETS, k=st.integers(1, 9), policy=st.sampled_from(["allow", "exclude"]),
    kind=st.sampled_from([Popularity, RecencyPopularity]),
)  # fmt: skip
def test_a_model_with_one_row_for_all_ranks_as_whole_rows_do(rows, pairs, k, policy, kind):
    histories = Histories.from_lists(rows)
    model = kind().fit(small_train(), small_validation(), small_catalog(V), FitOptions())
    owners, targets = targets_of(pairs, len(rows))
    policy = RepeatPolicy.parse(policy)
    found = model.rank(
        histories, None, k, blocked=policy.blocks(histories, None), owners=owners, targets=targets
    )
    whole = apply_repeat_policy(model.log_probabilities(histories, None), histories, None, policy)
    items, values = top_k(whole, k)
    np.testing.assert_allclose(np.exp(found.log_probabilities), np.exp(values), rtol=1e-5)
    assert (found.items == np.where(np.isneginf(values), PADDING, items)).all()
    allowed = np.isfinite(whole[owners, targets])
    assert (np.isfinite(found.target_log_probabilities) == allowed).all()
    np.testing.assert_allclose(
        found.target_log_probabilities[allowed], whole[owners, targets][allowed], rtol=1e-5
    )
    exact = ranks_of(whole, owners, targets)
    assert found.target_ranks[allowed].tolist() == exact[allowed].tolist()


@pytest.mark.parametrize("policy", ["allow", "exclude"])
@pytest.mark.parametrize("name", ["popularity", "transformer"])
def test_a_large_catalog_has_the_scores_that_whole_rows_give(monkeypatch, name, policy):
    catalog, cases = small_catalog(V), small_validation()
    model = Popularity() if name == "popularity" else Transformer(TransformerConfig(repeats=True))
    model.fit(small_train(), cases, catalog, FitOptions(epochs=1))
    assert isinstance(model, RanksTargets)
    repeat = RepeatPolicy.parse(policy)
    by_rows = score(model, cases, catalog, repeat=repeat, k=3)
    monkeypatch.setattr(scoring, "LARGE_CATALOG", 1)
    monkeypatch.setattr(model, "log_probabilities", refuse_whole_rows)
    by_ranks = score(model, cases, catalog, repeat=repeat, k=3)
    assert by_ranks.ranks.tolist() == by_rows.ranks.tolist()
    assert by_ranks.top_items.tolist() == by_rows.top_items.tolist()
    assert by_ranks.excluded.tolist() == by_rows.excluded.tolist()
    assert by_ranks.repeats.tolist() == by_rows.repeats.tolist()
    np.testing.assert_allclose(by_ranks.log_probabilities, by_rows.log_probabilities, rtol=1e-5)
    np.testing.assert_allclose(
        by_ranks.top_log_probabilities, by_rows.top_log_probabilities, rtol=1e-5
    )


@pytest.mark.parametrize("repeats", [False, True])
def test_the_validation_loss_of_a_large_catalog_is_that_of_whole_rows(monkeypatch, repeats):
    network, cases = network_of(5, V, repeats=repeats), small_validation()
    told = {"longest": 20, "num_items": V, "temperature": 1.5, "groups": np.zeros(V + 1, np.int64)}
    whole = validation_loss(network, cases, **told)
    monkeypatch.setattr(neural_scoring, "LARGE_CATALOG", 1)
    monkeypatch.setattr(neural_scoring, "_scored", refuse_whole_rows)
    assert validation_loss(network, cases, **told) == pytest.approx(whole, rel=1e-6)
