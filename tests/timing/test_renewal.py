"""Renewal against buy-till-you-die, simulation and its own parts."""

import json

import numpy as np
import pytest

from nextbuy.errors import BundleError, EmptyDataError
from nextbuy.timing.mbg_nbd import MbgNbd
from nextbuy.timing.renewal import Renewal, RenewalConfig, RenewalParameters
from nextbuy.timing.repeat_purchases import repeat_purchases
from tests.timing.purchases import bought_on, moment

LOG = [[0, 3, 10, 40], [5], [2, 60], [20, 21, 22, 23, 30], [7, 50]]
SHAPES = {"log-normal": {"typical": 1.2, "spread": 0.7}, "gamma": {"shape": 2.0, "rate": 1.6},
          "weibull": {"shape": 1.5, "rate": 0.8}}  # fmt: skip
OWN = {"log-normal": {"typical": 1.2, "prior_gaps": 1.5, "a": 30.0, "b": 9.0},
       "gamma": {"shape": 2.0, "a": 3.0, "b": 2.0},
       "weibull": {"shape": 1.5, "a": 3.0, "b": 2.5}}  # fmt: skip


def renewal(distribution, *, personal, dropout=(), gap=None):
    model = Renewal(
        RenewalConfig(distribution=distribution, personal=personal, dropout=bool(dropout))
    )
    a, b = dropout or (None, None)
    values = gap or (OWN if personal else SHAPES)[distribution]
    model.parameters = RenewalParameters(unit_days=20.0, gap=values, dropout_a=a, dropout_b=b)
    return model


def test_exponential_gaps_with_dropout_are_mbg_nbd():
    ours = renewal("weibull", personal=True, dropout=(0.8, 2.5),
                   gap={"shape": 1.0, "a": 0.6, "b": 0.3})  # fmt: skip
    theirs = MbgNbd()
    theirs.parameters = theirs.parameters_class(r=0.6, alpha=0.3 * 20 / 7, a=0.8, b=2.5)
    log, now = bought_on(*LOG), moment(70)
    seen, expected = ours.outlook(log, now), theirs.outlook(log, now)
    days = np.array([0.0, 1.0, 30.0, 400.0, np.inf])
    assert seen.log_survival(days) == pytest.approx(expected.log_survival(days), rel=1e-10)
    assert seen.log_density(days[:4]) == pytest.approx(expected.log_density(days[:4]), rel=1e-10)
    assert seen.p_active() == pytest.approx(expected.p_active(), rel=1e-10)
    # How many: here the dropout probability stays what it is expected to be now.
    short = [1.0, 7.0]
    assert seen.expected_purchases(short) == pytest.approx(
        expected.expected_purchases(short), rel=0.03
    )


def test_a_fit_of_exponential_gaps_with_dropout_is_at_least_as_likely_as_mbg_nbd():
    rng = np.random.default_rng(1)
    days = []
    for rate, p in zip(rng.gamma(0.9, 1 / 20.0, 500), rng.beta(1.0, 3.0, 500), strict=True):
        now, own = 0.0, [0.0]
        while rng.random() > p and (now := now + 1 + rng.exponential(1 / rate)) < 200:
            own.append(now)
        days.append(own)
    log, end = bought_on(*days), moment(200)
    model = Renewal(RenewalConfig(distribution="weibull")).fit(log, end)
    mbg = MbgNbd().fit(log, end)
    # MBG/NBD counts the density in weeks, renewal in its own unit
    per_user = sum(len(own) - 1 for own in days) / len(days)
    weeks = model.maximum.mean_log_likelihood - per_user * np.log(model.parameters.unit_days / 7)
    counts = repeat_purchases(log, end, days_per_unit=7.0)
    other = mbg.log_likelihood(counts.repeats, counts.last, counts.age).mean()
    assert weeks >= other - 1e-6
    assert weeks == pytest.approx(other, abs=0.1)  # at least a day lies between purchases


@pytest.mark.parametrize("distribution", SHAPES)
@pytest.mark.parametrize("dropout", [(), (20.0, 80.0)])
def test_expected_purchases_are_those_of_simulation(distribution, dropout):
    log, now, horizon = bought_on([0, 25]), moment(40), 90.0
    model = renewal(distribution, personal=False, dropout=dropout)
    outlook = model.outlook(log, now)
    seen = outlook.expected_purchases([horizon / 3, horizon])[0]
    rng, runs = np.random.default_rng(4), 40_000
    draw = {
        "log-normal": lambda n: 1.2 * np.exp(0.7 * rng.normal(size=n)),
        "gamma": lambda n: rng.gamma(2.0, 1 / 1.6, n),
        "weibull": lambda n: (rng.exponential(size=n) / 0.8) ** (1 / 1.5),
    }[distribution]
    first = 20 * draw(400_000) - 15
    first = first[first > 0][:runs]
    d = dropout[0] / (sum(dropout) + 1) if dropout else 0.0  # after one gap that did end
    counts = np.zeros((runs, 2))
    at, going = first.copy(), rng.random(runs) < outlook.p_active()[0]
    while (going := going & (at < horizon)).any():
        counts += np.stack([going & (at < horizon / 3), going], axis=1)
        going = going & (rng.random(runs) >= d)
        at = at + 20 * draw(runs)
    errors = counts.std(axis=0) / np.sqrt(runs)
    assert np.abs(seen - counts.mean(axis=0)).max() < (4 * errors + 0.004).max()


@pytest.mark.parametrize("distribution", OWN)
def test_expected_purchases_of_own_gaps_are_those_of_simulation(distribution):
    """Users drawn from the prior who have bought once and waited for 10 days since."""
    outlook = renewal(distribution, personal=True).outlook(bought_on([0]), moment(10))
    rng, users = np.random.default_rng(6), 400_000
    if distribution == "log-normal":
        spread = np.sqrt(9.0 / rng.gamma(30.0, 1.0, users))
        centre = np.log(1.2) + spread / np.sqrt(1.5) * rng.normal(size=users)

        def draw():
            return np.exp(centre + spread * rng.normal(size=users))
    else:
        a, b = (3.0, 2.0) if distribution == "gamma" else (3.0, 2.5)
        rate = rng.gamma(a, 1 / b, users)

        def draw():
            if distribution == "gamma":
                return rng.gamma(2.0, 1 / rate)
            return (rng.exponential(size=users) / rate) ** (1 / 1.5)

    at = 20 * draw() - 10
    alive = at > 0
    counts = np.zeros(users)
    while (at[alive] < 60).any():
        counts += at < 60
        at = at + 20 * draw()
    counts = counts[alive]
    expected = counts.mean()
    seen = outlook.expected_purchases([60.0])[0, 0]
    assert seen == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("every", [1.0, 3.0, 8.0, 30.0])
def test_who_buys_at_random_every_so_many_days_buys_so_often_in_a_year(every):
    """Also who buys nine times within one step of the grid."""
    outlook = renewal(
        "weibull", personal=False, gap={"shape": 1.0, "rate": 20.0 / every}
    ).outlook(bought_on([0, 3]), moment(4))  # fmt: skip
    expected = [90 / every, 365 / every]
    assert outlook.expected_purchases([90.0, 365.0])[0] == pytest.approx(expected, rel=0.015)


def test_a_regular_user_is_expected_when_due():
    """Every 10 days, and 9 have gone: soon. 2 have gone: not yet."""
    log = bought_on(*[np.arange(0, 200, 10.0).tolist()] * 2)
    model = renewal("log-normal", personal=True)
    outlook = model.outlook(log, np.array([moment(199), moment(192)]))
    soon, later = outlook.days_to_next([0.5])[:, 0]
    assert soon < 5 and 5 < later < 12


def test_own_gaps_are_shrunk_towards_those_of_all():
    """One gap of 5 days says less than ten of them; the typical one of all is 24 days."""
    few, many = bought_on([0, 5]), bought_on([5.0 * k for k in range(11)])
    model = renewal("log-normal", personal=True)
    one = model.outlook(few, moment(5) + 1).days_to_next([0.5])[0, 0]
    ten = model.outlook(many, moment(50) + 1).days_to_next([0.5])[0, 0]
    assert 5 < ten < 7 < one < 24


def test_fits_on_at_most_so_many_users():
    log = bought_on(*[[0, 3 + k % 5, 20 + k % 7] for k in range(40)], *[[1]] * 40)
    few = Renewal(RenewalConfig(most_users=10, dropout=False)).fit(log, moment(60))
    all_of_them = Renewal(RenewalConfig(dropout=False)).fit(log, moment(60))
    assert few.parameters != all_of_them.parameters


def test_nobody_who_bought_twice_is_an_error():
    with pytest.raises(EmptyDataError, match="None of 2 users bought on two days"):
        Renewal().fit(bought_on([0, 0.1], [3]), moment(9))


def test_stored_parameters_must_be_those_of_the_family(tmp_path):
    model = renewal("gamma", personal=True, dropout=(1.0, 2.0))
    model.save(tmp_path)
    assert Renewal.load(tmp_path).parameters == model.parameters
    stored = json.loads((tmp_path / "timing.json").read_text())
    for change in (
        {"gap": {"shape": 1.0}},
        {"gap": {"shape": 1.0, "a": -1.0, "b": 1.0}},
        {"dropout_a": None},
        {"unit_days": 0},
    ):
        changed = stored | {"parameters": stored["parameters"] | change}
        (tmp_path / "timing.json").write_text(json.dumps(changed))
        with pytest.raises(BundleError):
            Renewal.load(tmp_path)
