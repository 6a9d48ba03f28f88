"""Amounts, against integrals and simulation."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from nextbuy.data.histories import Histories
from nextbuy.errors import BundleError, DataError, EmptyDataError, NotFittedError
from nextbuy.timing.gamma_gamma import (
    GammaGamma,
    GammaGammaConfig,
    GammaGammaParameters,
    Spend,
    mean_log_likelihood,
    spend_before,
)
from tests.timing.purchases import bought_on, moment


def priced(days, prices, quantities=None, **more):
    log = Histories.from_lists(
        [[1] * len(row) for row in days],
        times=[[moment(day) for day in row] for row in days], prices=prices, **more,
    )  # fmt: skip
    if quantities is None:
        return log
    return replace(log, quantities=np.array([q for row in quantities for q in row], dtype="f4"))


@pytest.mark.parametrize(("x", "z"), [(1, 0.7), (3, 2.0), (8, 0.4)])
def test_the_likelihood_is_the_integral_over_users(x, z):
    """The mean of x Gamma(p, v) values is Gamma(p x, v x)."""
    p, q, gamma = 2.3, 3.1, 1.4

    def given(v):
        return stats.gamma.pdf(z, p * x, scale=1 / (v * x)) * stats.gamma.pdf(v, q, scale=1 / gamma)

    expected = np.log(integrate.quad(given, 0, np.inf, epsabs=0, epsrel=1e-10)[0])
    value, _ = mean_log_likelihood(np.log([p, q, gamma]), np.array([float(x)]), np.array([z]))
    assert value == pytest.approx(expected, abs=1e-8)


def test_the_gradient_is_that_of_finite_differences():
    x, z, place = np.array([1.0, 2.0, 50.0]), np.array([0.2, 3.0, 1.1]), np.array([0.5, 1.2, -0.3])
    _, gradient = mean_log_likelihood(place, x, z)
    for number in range(3):
        step = np.eye(3)[number] * 1e-5
        above, below = (mean_log_likelihood(place + s, x, z)[0] for s in (step, -step))
        assert gradient[number] == pytest.approx((above - below) / 2e-5, rel=1e-6)


def test_expected_spend_is_the_mean_shrunk_towards_that_of_all():
    model = GammaGamma()
    model.parameters = GammaGammaParameters(p=2.0, q=3.0, gamma=5.0)
    spend = Spend(counts=np.array([0.0, 1.0, 4.0, 1e6]), mean=np.array([0.0, 11.0, 11.0, 11.0]))
    # 2 * 5 / 2; 2 (5 + 11) / 4; 2 (5 + 44) / 10; nearly 11
    assert model.expected_spend_of(spend) == pytest.approx([5, 8, 9.8, 11], rel=1e-4)


def test_a_fit_finds_the_parameters_that_made_the_values_in_any_currency():
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 9, 3000).astype(float)
    rates = rng.gamma(4.0, 1 / 20.0, 3000)
    spend = Spend(counts=counts, mean=rng.gamma(6.0 * counts) / (rates * counts))
    found = GammaGamma().fit_spend(spend).parameters
    assert [found.p, found.q, found.gamma] == pytest.approx([6.0, 4.0, 20.0], rel=0.12)
    cents = GammaGamma().fit_spend(Spend(counts=counts, mean=spend.mean * 100)).parameters
    expected = [found.p, found.q, 100 * found.gamma]
    assert [cents.p, cents.q, cents.gamma] == pytest.approx(expected, rel=1e-6)


def test_events_are_worth_the_sum_of_their_rows():
    nan = float("nan")
    log = priced(
        [[0.1, 0.2, 3, 5, 9], [1, 2], [4]], [[2, 3, 10, 0, 7], [nan, 8], [nan]],
        quantities=[[1, 2, nan, 1, 1], [1, 1], [1]],
    )  # fmt: skip
    spend = spend_before(log, moment(8))
    assert spend.counts.tolist() == [2, 1, 0]  # of the first, 8 and 10; 0 tells nothing
    assert spend.mean.tolist() == [9, 8, 0]
    repeats = spend_before(log, moment(8), first_purchase=False)
    assert repeats.counts.tolist() == [1, 1, 0] and repeats.mean.tolist() == [10, 8, 0]


def test_the_first_purchase_counts_or_not():
    log = priced([[0, 3], [1, 6], [2, 9]], [[50, 4], [50, 5], [50, 7]])
    both = [
        GammaGamma(GammaGammaConfig(first_purchase=first)).fit(log, moment(20)).expected_spend(
            log, moment(20)
        )
        for first in (True, False)
    ]  # fmt: skip
    assert (both[0] > 15).all() and (both[1] < 8).all()


def test_what_is_stored_is_what_is_loaded(tmp_path):
    model = GammaGamma(GammaGammaConfig(first_purchase=False))
    with pytest.raises(NotFittedError):
        model.save(tmp_path)
    model.parameters = GammaGammaParameters(p=0.1 + 0.2, q=3.0, gamma=5.0)
    model.save(tmp_path)
    loaded = GammaGamma.load(tmp_path)
    assert loaded.parameters == model.parameters and loaded.config == model.config
    stored = json.loads((tmp_path / "timing.json").read_text())
    for key, value in (("z", 1), ("p", -1)):
        changed = stored | {"parameters": stored["parameters"] | {key: value}}
        (tmp_path / "timing.json").write_text(json.dumps(changed))
        with pytest.raises(BundleError, match="gamma-gamma"):
            GammaGamma.load(tmp_path)


def test_amounts_need_prices():
    with pytest.raises(DataError, match="price column"):
        GammaGamma().fit(bought_on([1, 2]), moment(5))
    with pytest.raises(EmptyDataError, match="above 0"):
        GammaGamma().fit(priced([[1, 2]], [[0, 0]]), moment(5))
