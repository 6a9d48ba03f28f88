"""Own items of many questions at once, against a loop over each history."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy.data.histories import Histories
from nextbuy.nn.own_items import (
    DECAYS,
    FEATURES,
    FIRST_WEIGHTS,
    HALF_LIVES,
    NUM_DAYS,
    SUMMARIES,
    own_items,
    purchase_facts,
)
from nextbuy.nn.repeat_head import NUM_KNOTS, OwnTensors, RepeatHead

DAY = 86_400_000_000

baskets = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), max_size=7)
logs = st.lists(baskets, min_size=1, max_size=5).filter(any)


def histories_of(users, gaps):
    """Baskets of each user; basket b of any user is bought on the day sum(gaps[:b])."""
    days = np.cumsum(gaps)
    return Histories.from_lists(
        [[i for basket in user for i in sorted(basket)] for user in users],
        times=[[int(days[b] * DAY) for b, basket in enumerate(user) for _ in basket]
               for user in users],
        baskets=[[b for b, basket in enumerate(user) for _ in basket] for user in users],
    )  # fmt: skip


def slow(user, days, basket, moment):
    """Features of each own item before a basket, by the definitions."""
    bought = [(item, b) for b in range(basket) for item in sorted(user[b])]
    found = {}
    for item in {item for item, _ in bought}:
        when = [b for i, b in bought if i == item]
        ago = [basket - b for b in when]
        dates = [days[b] for b in when]
        between = (dates[-1] - dates[0]) / (len(dates) - 1) if len(dates) > 1 else 0.0
        away = moment - dates[-1]
        over = math.log((away + 0.5) / (between + 0.5)) if between > 0 else 0.0
        found[item] = [
            *(math.log(sum(d ** (a - 1) for a in ago)) for d in DECAYS),
            math.log(len(when)), math.log(ago[-1]), float(ago[-1] == 1),
            *(math.log(sum(0.5 ** ((moment - d) / life) for d in dates)) for life in HALF_LIVES),
            math.log1p(away), min(max(over, -4), 4), float(between > 0),
        ]  # fmt: skip
    away = math.log1p(moment - days[basket - 1]) if basket else 0.0
    n = len(bought)
    summary = [math.log1p(n), math.log1p(len(found)), math.log1p(basket), len(found) / max(n, 1),
               away]  # fmt: skip
    return found, summary


@settings(deadline=None, max_examples=60)
@given(users=logs, gaps=st.lists(st.integers(0, 40), min_size=8, max_size=8), data=st.data())
def test_they_are_what_a_loop_finds(users, gaps, data):
    histories = histories_of(users, gaps)
    asked = [(u, data.draw(st.integers(0, len(user)))) for u, user in enumerate(users)] * 2
    days = np.cumsum(gaps).astype(float)
    moments = [days[b - 1] + 2.5 if b else 0.0 for _, b in asked]
    ends = [histories.offsets[u] + sum(len(k) for k in users[u][:b]) for u, b in asked]
    found = own_items(
        histories,
        purchase_facts(histories, np.arange(6) % 3),
        starts=histories.offsets[[u for u, _ in asked]],
        ends=np.array(ends),
        baskets=np.array([b for _, b in asked]),
        moments=(np.array(moments) * DAY).astype(np.int64),
    )
    for number, (user, basket) in enumerate(asked):
        expected, summary = slow(users[user], days, basket, moments[number])
        mine = found.owners == number
        assert sorted(found.items[mine].tolist()) == sorted(expected)
        for item, row in zip(found.items[mine], found.features[mine], strict=True):
            wanted = np.maximum(expected[int(item)], [-12.0] * len(FEATURES))
            np.testing.assert_allclose(row, wanted, atol=2e-4)
        for item, ages, group in zip(
            found.items[mine], found.days[mine], found.groups[mine], strict=True
        ):
            bought = [
                d for b in range(basket) for i in users[user][b] if i == item for d in [days[b]]
            ]
            newest = [moments[number] - day for day in bought[::-1][:NUM_DAYS]]
            wanted = newest + [math.inf] * (NUM_DAYS - len(newest))
            np.testing.assert_allclose(ages, wanted, atol=1e-4)
            assert group == item % 3
        np.testing.assert_allclose(found.summaries[number], summary, atol=1e-4)
        places = found.places_of(np.full(5, number), np.arange(1, 6))
        assert [p >= 0 for p in places] == [i in expected for i in range(1, 6)]
        assert all(found.items[p] == i + 1 for i, p in enumerate(places) if p >= 0)
    some = np.arange(len(asked))[::-2]
    taken = found.take(some)
    for place, number in enumerate(some):
        assert (
            taken.items[taken.owners == place].tolist()
            == found.items[found.owners == number].tolist()
        )


def test_where_time_is_only_an_order_nothing_is_said_of_days():
    histories = Histories.from_lists([[1, 2, 1]])
    found = own_items(
        histories, purchase_facts(histories), starts=np.array([0]), ends=np.array([3]),
        baskets=np.array([3]), moments=None,
    )  # fmt: skip
    assert (found.features[:, FEATURES.index("in the last basket") + 1 :] == 0).all()
    assert found.summaries[0, -1] == 0
    assert np.isinf(found.days).all()


def head_of(num_items=5, width=4):
    torch.manual_seed(0)
    head = RepeatHead(
        num_items=num_items, width=width, num_features=len(FEATURES), num_summaries=len(SUMMARIES)
    )
    return head, torch.randn(num_items + 1, width)


def tensors_of(found):
    return OwnTensors(
        owners=torch.from_numpy(found.owners),
        items=torch.from_numpy(found.items).long(),
        groups=torch.from_numpy(found.groups),
        days=torch.from_numpy(found.days),
        features=torch.from_numpy(found.features),
        summaries=torch.from_numpy(found.summaries),
    )


def two_questions():
    """The first user has items 1 and 2, the second nothing."""
    histories = histories_of([[[1], [2], [1]], []], [1] * 8)
    return own_items(
        histories, purchase_facts(histories), starts=np.array([0, 3]), ends=np.array([3, 3]),
        baskets=np.array([3, 0]), moments=np.array([4 * DAY, 4 * DAY]),
    )  # fmt: skip


def test_the_head_computes_its_formula():
    head, embedding = head_of()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    own, states = tensors_of(two_questions()), torch.randn(2, 4)
    found = head(states, own, embedding[own.items])
    scores = []
    for item, phi in zip(own.items, own.features, strict=True):
        bent = head.outer(torch.nn.functional.silu(head.inner(phi)))
        fits = head.context_scale * (head.context(states[0]) @ embedding[item]) / 2
        scores.append(head.linear(phi) + bent + head.propensity.weight[item] + fits)
    psi = own.summaries[0]
    inner = torch.nn.functional.silu(head.gate_inner(torch.cat([psi, states[0]])))
    r = torch.sigmoid(head.gate_linear(psi) + head.gate_outer(inner))
    expected = r * torch.softmax(torch.cat(scores), 0)
    torch.testing.assert_close(found.log_own.exp(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.log_rest[:1].exp(), 1 - r, rtol=1e-4, atol=1e-6)
    assert found.log_rest[1] == 0  # who bought nothing buys something new
    own_N, rest_N = found.of_targets(torch.tensor([0, -1]), torch.tensor([0, 1]))
    assert own_N[0] == found.log_own[0]
    assert own_N[1] == -math.inf
    assert rest_N.tolist() == found.log_rest.tolist()


def test_each_purchase_proposes_its_item_when_its_time_has_come():
    """A cadence of group 1 that peaks at three days, against sums over purchases by hand."""
    torch.manual_seed(0)
    head = RepeatHead(
        num_items=5, width=4, num_features=len(FEATURES), num_summaries=len(SUMMARIES), num_groups=2
    )
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    knots = 1 / 24 * np.exp(0.1 * np.arange(NUM_KNOTS))

    def kappa(days):
        return -((math.log(days / 3.0) / 0.5) ** 2)

    head.cadence.weight.data[0] = -0.1
    head.cadence.weight.data[2] = torch.tensor([kappa(d) / 10 for d in knots])
    histories = histories_of([[[1], [2], [1]]], [1] * 8)  # on the days 1, 2 and 3
    groups = np.array([0, 0, 1, 0, 0, 0])  # item 2 alone is of the second group
    own = tensors_of(own_items(
        histories, purchase_facts(histories, groups), starts=np.array([0]), ends=np.array([3]),
        baskets=np.array([3]), moments=np.array([5 * DAY]),
    ))  # fmt: skip
    shares = torch.softmax(head(torch.randn(1, 4), own, torch.randn(2, 4)).log_own, 0)
    weights = {1: 1.0 + 2 * math.exp(-1.0), 2: 1.0 + math.exp(-1.0 + kappa(3.0))}
    for item, share in zip(own.items.tolist(), shares.tolist(), strict=True):
        assert share == pytest.approx(weights[item] / sum(weights.values()), rel=1e-2)


def test_the_first_weights_rank_by_decayed_frequency():
    assert len(FIRST_WEIGHTS) == len(FEATURES)
    head, embedding = head_of()
    for name, parameter in head.named_parameters():
        if not name.startswith(("inner", "context.", "gate_inner")):
            torch.nn.init.zeros_(parameter)
    head.linear.weight.data[:] = torch.tensor(FIRST_WEIGHTS)
    own = tensors_of(two_questions())
    shares = torch.softmax(head(torch.randn(2, 4), own, embedding[own.items]).log_own, 0)
    counts = {1: 1 + 0.95**2, 2: 0.95}
    total = sum(counts.values())
    for item, share in zip(own.items.tolist(), shares.tolist(), strict=True):
        assert share == pytest.approx(counts[item] / total, rel=1e-4)


def test_a_very_long_history_is_seen_up_to_ten_thousand_purchases():
    histories = Histories.from_lists([[1] + [2] * 10_000])
    found = own_items(
        histories, purchase_facts(histories), starts=np.array([0]), ends=np.array([10_001]),
        baskets=np.array([10_001]), moments=None,
    )  # fmt: skip
    assert found.items.tolist() == [2]
    assert found.features[0, FEATURES.index("log count")] == pytest.approx(math.log(10_000))
    assert found.summaries[0, 0] == pytest.approx(math.log1p(10_001))
