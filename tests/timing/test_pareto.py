"""Pareto/NBD against integrals in many digits, finite differences and simulation."""

import mpmath
import numpy as np
import pytest
from scipy.special import hyp2f1

from nextbuy.timing import pareto
from nextbuy.timing.pareto_nbd import ParetoNbd
from tests.timing.purchases import counts_of

ROWS = [(0, 0, 30.0), (1, 3.5, 30.0), (4, 29.0, 30.0), (7, 10.0, 40.0), (0, 0, 0.0), (2, 2.0, 2.0)]
PLACES = [
    {"r": 0.55, "alpha": 10.6, "s": 0.6, "beta": 11.7},
    {"r": 0.55, "alpha": 11.7, "s": 0.6, "beta": 10.6},
    {"r": 2.0, "alpha": 5.0, "s": 0.6, "beta": 5.0},
    {"r": 0.05, "alpha": 0.01, "s": 0.1, "beta": 500.0},
    {"r": 3.0, "alpha": 300.0, "s": 0.02, "beta": 0.01},
    {"r": 60.0, "alpha": 90.0, "s": 40.0, "beta": 900.0},
    {"r": 0.3, "alpha": 2.0, "s": 1.0, "beta": 2e4},
]


def columns(rows):
    return np.array(rows, dtype=np.float64).T


def log_likelihood_by_mpmath(p, x, t_x, T):
    with mpmath.workdps(40):
        r, alpha, s, beta, t_x, T = (mpmath.mpf(v) for v in (p.r, p.alpha, p.s, p.beta, t_x, T))
        k = r + x
        points = [
            t_x + (T - t_x) * mpmath.mpf(f)
            for f in ("0", "1e-4", "1e-3", "1e-2", "0.1", "0.4", "1")
        ]
        dropped = mpmath.quad(lambda t: (alpha + t) ** -k * (beta + t) ** -(s + 1), points)
        inside = (alpha + T) ** -k * (beta + T) ** -s + s * dropped
        log_gammas = mpmath.loggamma(k) - mpmath.loggamma(r)
        return float(log_gammas + r * mpmath.log(alpha) + s * mpmath.log(beta) + mpmath.log(inside))


@pytest.mark.parametrize("place", PLACES)
def test_the_likelihood_is_that_of_40_digits(place):
    p = pareto.Parameters(**place)
    rows = [*ROWS, (300, 99.0, 100.0), (5000, 77.0, 77.5)]
    expected = [log_likelihood_by_mpmath(p, *row) for row in rows]
    seen = pareto.log_likelihood(p, *columns(rows))
    assert seen == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_likelihood_is_that_of_the_literature():
    """Fader and Hardie 2005, "A note on deriving the Pareto/NBD model", for alpha >= beta."""
    p = pareto.Parameters(r=0.6, alpha=12.0, s=0.7, beta=9.0)
    x, t_x, T = columns([(2, 5.0, 20.0)])

    def a(time):
        power = p.r + p.s + x
        hyper = hyp2f1(power, p.s + 1, power + 1, (p.alpha - p.beta) / (p.alpha + time))
        return hyper / (p.alpha + time) ** power

    active = 1 / ((p.alpha + T) ** (p.r + x) * (p.beta + T) ** p.s)
    inside = active + p.s / (p.r + p.s + x) * (a(t_x) - a(T))
    gammas = p.r * (p.r + 1)  # Gamma(r + 2) / Gamma(r)
    expected = gammas * p.alpha**p.r * p.beta**p.s * inside
    assert np.exp(pareto.log_likelihood(p, x, t_x, T)) == pytest.approx(expected, rel=1e-10)
    assert pareto.p_active(p, x, t_x, T) == pytest.approx(active / inside, rel=1e-10)


@pytest.mark.parametrize("place", PLACES)
def test_the_likelihood_that_nothing_ever_follows_is_that_of_dropping_out_first(place):
    p, (x, t_x, T) = pareto.Parameters(**place), columns(ROWS)
    forever = pareto.log_likelihood(p, x, t_x, np.full_like(T, np.inf))
    # what is left after e^60 times the age, where nearly every active user has bought
    far = pareto.log_likelihood(p, x, t_x, np.full_like(T, 1e30))
    assert (forever <= far + 1e-9).all()
    assert (forever > far - 0.1).all()


@pytest.mark.parametrize("place", PLACES)
def test_the_next_purchase_is_the_fall_of_the_likelihood(place):
    p, (x, t_x, T), h = pareto.Parameters(**place), columns(ROWS), 1e-4
    T = T + 1
    now, above, below = (pareto.log_likelihood(p, x, t_x, T + s) for s in (0, h, -h))
    seen = np.exp(pareto.log_next(p, x, T) - now)
    assert seen == pytest.approx((below - above) / (2 * h), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("place", PLACES)
def test_the_gradient_is_that_of_finite_differences(place):
    data = counts_of([*ROWS, (9, 8.0, 9.0)], weights=[1, 2, 3, 1, 1, 5, 2]).collapsed()
    at = np.log(list(place.values()))
    value, gradient = pareto.mean_log_likelihood(at, data)
    rows = pareto.log_likelihood(pareto.Parameters(**place), data.repeats, data.last, data.age)
    assert value == pytest.approx(rows @ data.weights / data.weights.sum(), rel=1e-12)
    for number in range(4):
        step = np.zeros(4)
        step[number] = 1e-5
        above, below = (pareto.mean_log_likelihood(at + s, data)[0] for s in (step, -step))
        assert gradient[number] == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("s", [0.6, 1.0, 1.0 + 1e-9, 3.0])
def test_expected_purchases_are_the_integral_of_the_rate(s):
    """Of an active user: the mean rate times P(still active), over the horizon."""
    p = pareto.Parameters(r=0.55, alpha=10.6, s=s, beta=11.7)
    x, t_x, T = columns(ROWS)
    grid = np.linspace(0, 13.0, 20_001)
    active = ((p.beta + T[:, None]) / (p.beta + T[:, None] + grid)) ** s
    expected = (p.r + x) / (p.alpha + T) * np.trapezoid(active, grid, axis=1)
    expected *= pareto.p_active(p, x, t_x, T)
    seen = pareto.expected_purchases(p, x, t_x, T, np.array(13.0))
    assert seen == pytest.approx(expected, rel=1e-7)


def test_a_fit_finds_the_parameters_that_made_the_purchases():
    truth = {"r": 0.8, "alpha": 5.0, "s": 1.5, "beta": 20.0}
    rng = np.random.default_rng(8)
    rows = []
    for _ in range(4000):
        rate = rng.gamma(truth["r"], 1 / truth["alpha"])
        end = min(60.0, rng.exponential(1 / rng.gamma(truth["s"], 1 / truth["beta"])))
        times = np.sort(rng.uniform(0, end, rng.poisson(rate * end)))
        rows.append((len(times), times[-1] if len(times) else 0.0, 60.0))
    data = counts_of(rows)
    model = ParetoNbd().fit_counts(data)
    place, h = np.log(list(model.parameters.model_dump().values())), 1e-4
    collapsed = data.collapsed()
    hessian = np.array(
        [
            (model.mean_log_likelihood(place + s, collapsed)[1]
             - model.mean_log_likelihood(place - s, collapsed)[1]) / (2 * h)
            for s in np.eye(4) * h
        ]
    )  # fmt: skip
    errors = np.sqrt(np.diag(np.linalg.inv(-hessian * len(data))))
    assert (np.abs(place - np.log(list(truth.values()))) < 3.5 * errors).all()
    assert (errors < 0.6).all()
