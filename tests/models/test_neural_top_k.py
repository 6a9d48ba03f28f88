"""The best items of a network, searched, are those of its whole rows."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from nextbuy.data.histories import DAY, PADDING, Histories
from nextbuy.models.gru import Gru
from nextbuy.models.lstm_rnn import LstmRnn, LstmRnnConfig
from nextbuy.models.neural_scoring import score_histories
from nextbuy.models.neural_top_k import best_items
from nextbuy.models.personal_frequency import PersonalFrequency
from nextbuy.models.protocol import FitOptions, top_k
from nextbuy.models.transformer import Transformer, TransformerConfig
from nextbuy.nn.transformer import TransformerNetwork, TransformerShape, weight_shapes
from nextbuy.predictor import answers
from nextbuy.predictor.answers import best_offers
from nextbuy.splitting.repeat import RepeatPolicy, apply_repeat_policy
from nextbuy.splitting.rules import Rules
from nextbuy.testing.contract import asked, small_catalog, small_train, small_validation

V = 9
POLICIES = ["allow", "exclude", "cooldown:2.5"]


def network_of(seed, num_items, *, repeats, spread=0.7):
    """A transformer of random weights; `spread` makes some items far likelier than others."""
    shape = TransformerShape(
        num_items=num_items, width=4, repeats=repeats, knows_times=True, num_groups=1
    )
    network, rng = TransformerNetwork(shape), np.random.default_rng(seed)
    shapes = weight_shapes(shape).items()
    network.load_weights({n: rng.normal(0, spread, s).astype("f4") for n, s in shapes})
    return network


def histories_of(rows):
    return Histories.from_lists(rows, times=[[day * DAY for day in range(len(r))] for r in rows])


def both_ways(network, histories, k, policy, *, num_items, temperature=1.0):
    """By search, and from whole rows of the network: items and probabilities of the best."""
    now = histories.lengths * DAY
    policy = RepeatPolicy.parse(policy)
    groups = np.zeros(num_items + 1, np.int64)
    told = {"longest": 20, "temperature": temperature, "groups": groups}
    found = best_items(network, histories, now, k, blocked=policy.blocks(histories, now), **told)
    raw = score_histories(network, histories, now, num_items=num_items, **told)
    return found, apply_repeat_policy(raw, histories, now, policy)


def assert_same_best(found, rows, k):
    """Equal but for rounding: of two items whose probabilities differ by it, either may lead."""
    items, values = found
    _, expected = top_k(rows, k)
    np.testing.assert_allclose(np.exp(values), np.exp(expected), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        np.take_along_axis(np.exp(rows), items, axis=1), np.exp(expected), rtol=1e-5, atol=1e-7
    )
    for row in items:
        offered = row[row != PADDING]
        assert len(set(offered.tolist())) == len(offered)


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(st.lists(st.integers(1, 6), max_size=8), min_size=1, max_size=5),
    num_items=st.integers(6, 40), k=st.integers(1, 45), seed=st.integers(0, 999),
    policy=st.sampled_from(POLICIES), repeats=st.booleans(),
    temperature=st.sampled_from([1.0, 2.0]),
)  # fmt: skip
def test_the_best_items_are_those_of_whole_rows(
    rows, num_items, k, seed, policy, repeats, temperature
):
    network = network_of(seed, num_items, repeats=repeats)
    found, whole = both_ways(
        network, histories_of(rows), k, policy, num_items=num_items, temperature=temperature
    )
    assert_same_best(found, whole, k)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_blocks_of_the_usual_size_lose_nothing(repeats, policy):
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 40_000, rng.integers(0, 30)).tolist() for _ in range(30)]
    network = network_of(1, 40_000, repeats=repeats)
    for histories, k in ((histories_of(rows), 100), (histories_of(rows[:1]), 7)):
        found, whole = both_ways(network, histories, k, policy, num_items=40_000)
        assert_same_best(found, whole, k)


def test_a_user_who_buys_the_same_for_sure_is_told_of_the_rest_exactly():
    """What is left of the probability is summed, not taken as 1 less what was bought."""
    network = network_of(3, V, repeats=True)
    with torch.no_grad():
        network.repeat_head.gate_linear.bias.fill_(16.0)  # new items: about one in ten million
    found, whole = both_ways(network, histories_of([[1, 2]]), V, "exclude", num_items=V)
    assert_same_best(found, whole, V)
    assert np.exp(found[1].astype(float)).sum() == pytest.approx(1, abs=1e-5)
    assert (found[0][0] == PADDING).sum() == 2


def test_of_equal_probabilities_the_lower_item_wins_and_own_items_are_no_exception():
    network = network_of(0, 40, repeats=False, spread=0.0)
    found, _ = both_ways(network, histories_of([[7], [], [3]]), 5, "allow", num_items=40)
    assert found[0].tolist() == [[1, 2, 3, 4, 5]] * 3
    network = network_of(0, 40, repeats=True, spread=0.0)
    found, _ = both_ways(network, histories_of([[7, 5], []]), 4, "allow", num_items=40)
    assert found[0].tolist() == [[5, 7, 1, 2], [1, 2, 3, 4]]


def test_who_may_be_offered_nothing_gets_nothing():
    network = network_of(0, V, repeats=True)
    everything = histories_of([list(range(1, V + 1)), [1]])
    (items, values), _ = both_ways(network, everything, 3, "exclude", num_items=V)
    assert items[0].tolist() == [PADDING] * 3
    assert values[0].tolist() == [-np.inf] * 3
    assert (items[1] > 1).all()


@pytest.fixture(scope="module", params=["transformer", "gru", "lstm-rnn"])
def fitted(request):
    small = LstmRnnConfig(embedding_size=4, lstm_size=8, rnn_size=8)
    model = {
        "transformer": Transformer(TransformerConfig(repeats=True)),
        "gru": Gru(),
        "lstm-rnn": LstmRnn(small),
    }[request.param]
    return model.fit(small_train(), small_validation(), small_catalog(V), FitOptions(epochs=1))


def offers(model, monkeypatch, *, large, policy="allow", rules=None, k=4):
    monkeypatch.setattr(answers, "_LARGE", large)
    monkeypatch.setattr(answers, "_MOST_USERS", 4)
    now = np.full(len(asked()), 400 * DAY)
    moment = answers.Moment(told=now, assumed=now, cadence=None)
    policy = RepeatPolicy.parse(policy)
    return best_offers(model, asked(), small_catalog(V), moment, k=k, policy=policy, rules=rules)


def refused(*arguments):
    raise AssertionError("a row of the whole catalog was asked for")


@pytest.mark.parametrize("policy", ["allow", "exclude", "cooldown:399"])
def test_a_large_catalog_gets_the_same_offers(fitted, monkeypatch, policy):
    slow = offers(fitted, monkeypatch, large=V + 1, policy=policy)
    monkeypatch.setattr(type(fitted), "log_probabilities", refused)
    fast = offers(fitted, monkeypatch, large=V, policy=policy)
    assert_frame_equal(fast, slow, abs_tol=1e-5)
    assert not fast.is_empty()


def test_rules_are_followed_in_a_large_catalog_too(fitted, monkeypatch):
    rules = Rules(exclude=("i1", "i2"))
    found = offers(fitted, monkeypatch, large=V, rules=rules, k=V)
    assert set(found["item_id"]) == {f"i{item}" for item in range(3, V + 1)}


def test_models_that_know_whole_rows_only_answer_for_large_catalogs_too(monkeypatch):
    model = PersonalFrequency().fit(
        small_train(), small_validation(), small_catalog(V), FitOptions()
    )
    found = offers(model, monkeypatch, large=V)
    assert found.filter(pl.col("user_id") == "u2")["item_id"][0] == "i5"
