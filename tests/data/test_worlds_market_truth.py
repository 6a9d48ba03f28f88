"""The vectorised truth against plain Python, against the simulator, and against more nodes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_ndtr

from nextbuy.data.histories import Histories
from nextbuy.data.worlds.market_parameters import (
    START_US,
    MarketConfig,
    draw_parameters,
    season_shares,
)
from nextbuy.data.worlds.market_simulation import Users, next_days, next_items, simulate
from nextbuy.data.worlds.market_truth import (
    Window,
    filtered_log_posterior,
    item_probabilities,
    next_time,
)
from nextbuy.data.worlds.normal import NormalTail
from tests.data import market_twin as twin

LAWS = draw_parameters(MarketConfig(num_segments=4), 5)
TAIL = NormalTail()


def micros(days):
    return np.asarray(np.round(np.asarray(days) * twin.DAY_US), dtype=np.int64) + START_US


def drawn_histories(num_users, seed, before=math.inf):
    """Drawn users in the world's numbering, cut off at a day; who had not bought has none."""
    owners, days, items, _ = simulate(LAWS, num_users, np.random.default_rng(seed))
    rows = [(owners == user) & (days < before) for user in range(num_users)]
    return Histories.from_lists(
        [items[mine].tolist() for mine in rows],
        times=[micros(days[mine]).tolist() for mine in rows],
    )


HISTORIES = drawn_histories(40, seed=1, before=400.0)
SHORT_TO_LONG = [
    int(np.abs(np.where(HISTORIES.lengths > 0, HISTORIES.lengths, 999) - wanted).argmin())
    for wanted in (1, 4, 9, 31, 35, 60)
]


def truth(user, window):
    one = HISTORIES.take(np.array([user]))
    return item_probabilities(LAWS, one, next_time(LAWS, one, window, TAIL))[0]


def at(day):
    return micros([day])


def test_the_posterior_is_that_of_plain_python():
    log_posterior = filtered_log_posterior(LAWS, HISTORIES)
    fast = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
    fast /= fast.sum(axis=1, keepdims=True)
    assert len({int(HISTORIES.lengths[user]) for user in SHORT_TO_LONG}) >= 5
    for user in SHORT_TO_LONG:
        slow = twin.posterior(LAWS, twin.history_of(HISTORIES, user))
        assert fast[user] == pytest.approx(slow, rel=1e-6, abs=1e-12)


def test_the_prediction_at_a_known_time_is_that_of_plain_python():
    for user in SHORT_TO_LONG:
        history = twin.history_of(HISTORIES, user)
        day = history[-1][0] + 9.5
        belief = twin.posterior(LAWS, history)
        gap = math.log(9.5)
        belief = [share * twin.gap_law(LAWS, z).pdf(gap) for z, share in enumerate(belief)]
        pairs = [[(share / sum(belief), day)] for share in belief]
        items = sorted(
            {item for _, item in history[-40:]} | set(range(0, len(LAWS.popularity), 97))
        )
        fast = truth(user, Window(as_of=at(day), is_at_as_of=True))
        assert fast.sum() == pytest.approx(1)
        assert fast[items] == pytest.approx(twin.next_item(LAWS, history, pairs, items), rel=1e-5)


@pytest.mark.parametrize(("wait", "length"), [(0.0, math.inf), (5.0, 20.0), (40.0, 300.0)])
def test_the_prediction_in_a_window_is_that_of_a_fine_sum_in_plain_python(wait, length):
    for user in SHORT_TO_LONG[:4]:
        history = twin.history_of(HISTORIES, user)
        low, high = history[-1][0] + wait, history[-1][0] + wait + min(length, 1e6)
        pairs = twin.possible_days(LAWS, history, low, high, steps=300)
        items = sorted({item for _, item in history[-10:]} | {0, 500, 2_000})
        until = None if math.isinf(length) else int(at(high)[0])
        fast = truth(user, Window(as_of=at(low), until=until))
        assert fast.sum() == pytest.approx(1)
        assert fast[items] == pytest.approx(
            twin.next_item(LAWS, history, pairs, items), abs=2e-3, rel=2e-2
        )


def test_who_has_not_bought_is_asked_about_the_platforms_of_the_season():
    nobody = Histories.from_lists([[]], times=[[]])
    time = next_time(LAWS, nobody, Window(as_of=at(100.0), until=int(at(160.0)[0])), TAIL)
    p = item_probabilities(LAWS, nobody, time)[0]
    middles = [100 + (i + 0.5) * 60 / 400 for i in range(400)]
    for item in (0, 4, 777, len(p) - 1):
        slow = sum(
            share * twin.item_probability(LAWS, z, [], day, item) / len(middles)
            for z, share in enumerate(LAWS.prior)
            for day in middles
        )
        assert p[item] == pytest.approx(slow, rel=1e-4)
    assert np.isnan(time.log_gap_density).all()


def test_the_prediction_is_what_the_simulator_goes_on_to_do():
    """A user's history, continued 150,000 times by the simulator."""
    rng = np.random.default_rng(2)
    for user, wait, length in ((SHORT_TO_LONG[2], 0.0, math.inf), (SHORT_TO_LONG[3], 6.0, 25.0)):
        history = twin.history_of(HISTORIES, user)
        size = 150_000
        segments = rng.choice(len(LAWS.prior), size=size, p=twin.posterior(LAWS, history))
        users = Users.new(segments)
        for day, item in history:
            users.remember(np.full(size, day), np.full(size, item))
        days = next_days(LAWS, users, rng)
        low, high = history[-1][0] + wait, history[-1][0] + wait + length
        inside = np.flatnonzero((days >= low) & (days < high))
        items = next_items(LAWS, users.take(inside), days[inside], rng)
        counts = np.bincount(items, minlength=len(LAWS.popularity))
        until = None if math.isinf(high) else int(at(high)[0])
        p = truth(user, Window(as_of=at(low), until=until))
        assert len(inside) > 20_000
        spread = np.sqrt(p * (1 - p) * len(inside)) + 3  # Poisson counts of rare items
        assert (np.abs(counts - p * len(inside)) < 5 * spread).all()
        often = p * len(inside) > 10
        chi_square = ((counts - p * len(inside)) ** 2 / (p * len(inside)))[often].sum()
        assert chi_square < often.sum() + 5 * math.sqrt(2 * often.sum())


def test_doubling_the_nodes_changes_no_probability_by_more_than_two_thousandths():
    histories = drawn_histories(150, seed=3, before=600.0)
    histories = histories.take(np.flatnonzero(histories.lengths))
    cut = np.full(len(histories), at(600.0)[0])
    for window in (Window(), Window(as_of=cut, until=int(at(660.0)[0]))):
        usual, double = (
            item_probabilities(
                LAWS, histories, next_time(LAWS, histories, window, TAIL, num_nodes=nodes)
            )
            for nodes in (24, 48)
        )
        assert np.abs(usual - double).max() < 2e-3
        entropies = [-(p * np.log(p)).sum(axis=1).mean() for p in (usual, double)]
        assert entropies[0] == pytest.approx(entropies[1], abs=2e-4)


def test_batch_equals_one_by_one():
    users = np.array([0, 7, 3, 21])
    some = HISTORIES.take(users)
    window = Window(as_of=np.full(4, at(420.0)[0]), until=int(at(480.0)[0]))
    together = item_probabilities(LAWS, some, next_time(LAWS, some, window, TAIL))
    for row, user in enumerate(users.tolist()):
        alone = truth(user, window.part(slice(row, row + 1)))
        assert alone == pytest.approx(together[row], rel=1e-9)


@given(st.floats(-8.5, 36.5))
def test_the_normal_tail_and_its_inverse(z):
    log_tail = float(TAIL.log_tail(np.array([z]))[0])
    assert log_tail == pytest.approx(float(log_ndtr(-z)), abs=1.3e-7)
    assert float(TAIL.z_of(np.array([log_tail]))[0]) == pytest.approx(z, abs=1e-6)


@given(st.floats(-1_000, 1_000))
def test_the_seasons_sum_to_one(day):
    shares = season_shares(np.array([day]))[0]
    assert shares.sum() == pytest.approx(1)
    assert shares == pytest.approx(twin.season(day), abs=1e-9)
