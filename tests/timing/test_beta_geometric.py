"""BG/NBD and MBG/NBD against integrals, mpmath, finite differences and simulation."""

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

from nextbuy.timing import beta_geometric as bg
from nextbuy.timing.bg_nbd import BgNbd
from nextbuy.timing.mbg_nbd import MbgNbd
from tests.timing.purchases import counts_of, simulated_counts

ROWS = [(0, 0, 30.0), (1, 3.5, 30.0), (4, 29.0, 30.0), (7, 10.0, 40.0), (0, 0, 0.0), (2, 2.0, 2.0)]
VALUES = {"r": 0.24, "alpha": 4.4, "a": 0.79, "b": 2.4}


def parameters(first, **changes):
    return bg.Parameters(**(VALUES | changes), first=first)


def columns(rows):
    return np.array(rows, dtype=np.float64).T


def likelihood_by_integration(p, x, t_x, T):
    """Over rate and probability, from the story of one user with given rate and probability."""
    chances = x + p.first

    def story(probability, rate):
        active = (1 - probability) ** chances * rate**x * np.exp(-rate * T)
        before = max(chances - 1, 0)
        dropped = probability * (1 - probability) ** before * rate**x * np.exp(-rate * t_x)
        return (active + (dropped if chances else 0)) * stats.gamma.pdf(
            rate, p.r, scale=1 / p.alpha
        )

    def inner(rate):
        return integrate.quad(story, 0, 1, args=(rate,), weight="alg", wvar=(p.a - 1, p.b - 1))[0]

    pieces = [integrate.quad(inner, low, high, epsabs=0, epsrel=1e-10)[0]
              for low, high in ((0, 1), (1, 10), (10, 60))]  # fmt: skip
    return sum(pieces) / float(mpmath.beta(p.a, p.b))


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("row", [(0, 0, 3.0), (1, 1.0, 3.0), (4, 2.9, 3.0)])
def test_the_likelihood_is_the_integral_over_users(first, row):
    p = parameters(first, r=1.7, alpha=1.2)
    expected = likelihood_by_integration(p, *row)
    assert np.exp(bg.log_likelihood(p, *columns([row]))) == pytest.approx([expected], rel=1e-7)


@pytest.mark.parametrize("first", [0, 1])
def test_the_next_purchase_is_the_fall_of_the_likelihood(first):
    p, (x, t_x, T), h = parameters(first), columns(ROWS), 1e-5
    T = T + 1
    above, below = (np.exp(bg.log_likelihood(p, x, t_x, T + s)) for s in (h, -h))
    assert np.exp(bg.log_next(p, x, T)) == pytest.approx((below - above) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("place", [(-1.4, 1.5, -0.2, 0.9), (0.5, -0.3, 1.0, -1.0), (3, 5, -3, 4)])
def test_the_gradient_is_that_of_finite_differences(first, place):
    data = counts_of([*ROWS, (9, 8.0, 9.0)], weights=[1, 2, 3, 1, 1, 5, 2]).collapsed()
    value, gradient = bg.mean_log_likelihood(np.array(place, dtype=float), data, first)
    p = bg.Parameters(**dict(zip(VALUES, np.exp(place), strict=True)), first=first)
    rows = bg.log_likelihood(p, data.repeats, data.last, data.age)
    assert value == pytest.approx(rows @ data.weights / data.weights.sum(), rel=1e-12)
    for number in range(4):
        step = np.zeros(4)
        step[number] = 1e-5
        above, below = (bg.mean_log_likelihood(place + s, data, first)[0] for s in (step, -step))
        assert gradient[number] == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-8)


def expected_by_mpmath(p, x, t_x, T, time):
    """Equation 10 of Fader, Hardie and Lee, in 60 digits; b and x as MBG/NBD shifts them."""
    with mpmath.workdps(60):
        r, alpha, a, T, time = (mpmath.mpf(v) for v in (p.r, p.alpha, p.a, T, time))
        B = mpmath.mpf(p.b) + x + p.first
        k = r + x
        y = time / (alpha + T + time)
        hyper = mpmath.hyp2f1(k, B, a + B - 1, y, maxterms=10**6, maxprec=10**5)
        alive = (a + B - 1) / (a - 1) * (1 - ((alpha + T) / (alpha + T + time)) ** k * hyper)
        dead = a / (B - 1) * ((alpha + T) / (alpha + t_x)) ** k if x + p.first else 0
        return float(alive / (1 + dead))


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"a": 1.0 + 1e-9},
        {"a": 0.02, "b": 0.3},
        {"a": 0.3, "b": 0.7},  # a + b = 1
        {"r": 5.0, "alpha": 0.1},
        {"a": 20.0, "b": 3.0},
        {"a": 200.0, "b": 900.0},
        {"r": 80.0, "alpha": 70.0},
        {"r": 80.0, "alpha": 70.0, "a": 0.01},
        {"a": 1e-3, "b": 50.0},
    ],
)
def test_expected_purchases_are_those_of_60_digits(first, changes):
    p = parameters(first, **changes)
    rows = [*ROWS, (300, 99.0, 100.0), (5000, 77.0, 78.0)]
    times = (0.1, 10.0, 200.0)
    expected = [[expected_by_mpmath(p, *row, time) for time in times] for row in rows]
    x, t_x, T = (v[:, None] for v in columns(rows))
    seen = bg.expected_purchases(p, x, t_x, T, np.array(times))
    assert seen == pytest.approx(np.array(expected), rel=2e-9)


def test_no_time_brings_no_purchases():
    x, t_x, T = columns(ROWS)
    assert bg.expected_purchases(parameters(0), x, t_x, T, np.zeros(())).tolist() == [0.0] * 6


def test_one_purchase_leaves_a_user_active_in_bg_and_perhaps_not_in_mbg():
    x, t_x, T = columns([(0, 0, 30.0)])
    assert bg.p_active(parameters(0), x, t_x, T).tolist() == [1.0]
    # of the two terms of L, (alpha + T)^-r and a / b alpha^-r
    active, dropped = 34.4**-0.24, 0.79 / 2.4 * 4.4**-0.24
    assert bg.p_active(parameters(1), x, t_x, T) == pytest.approx([active / (active + dropped)])


@pytest.mark.parametrize("model_class", [BgNbd, MbgNbd])
def test_a_fit_finds_the_parameters_that_made_the_purchases(model_class):
    truth = {"r": 0.8, "alpha": 5.0, "a": 1.2, "b": 4.0}
    rng = np.random.default_rng(5)

    def dropouts(rng, num_users):
        p = rng.beta(truth["a"], truth["b"], num_users)
        return lambda user, number: (
            (number > 0 or model_class.first == 1) and rng.random() < p[user]
        )

    data = simulated_counts(
        rng, 4000, lambda rng, n: rng.gamma(truth["r"], 1 / truth["alpha"], n), dropouts, age=60.0
    )
    model = model_class().fit_counts(data)
    errors = standard_errors(model, data)
    found = np.log(list(model.parameters.model_dump().values()))
    assert (np.abs(found - np.log(list(truth.values()))) < 3.5 * errors).all()
    assert (errors < 0.6).all()


def standard_errors(model, data):
    """Of log-parameters, from the curvature of the log-likelihood."""
    place = np.log(list(model.parameters.model_dump().values()))
    rows, h = data.collapsed(), 1e-4
    hessian = np.array(
        [
            (model.mean_log_likelihood(place + s, rows)[1]
             - model.mean_log_likelihood(place - s, rows)[1]) / (2 * h)
            for s in np.eye(4) * h
        ]
    )  # fmt: skip
    return np.sqrt(np.diag(np.linalg.inv(-hessian * len(data))))
