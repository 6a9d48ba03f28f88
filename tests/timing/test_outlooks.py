"""What every timing model promises, whatever it says."""

import json
import logging
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy.errors import BundleError, ConfigError, EmptyDataError, NotFittedError
from nextbuy.timing.bg_nbd import BgNbd
from nextbuy.timing.blend import TimingBlend
from nextbuy.timing.dropout import DropoutConfig
from nextbuy.timing.mbg_nbd import MbgNbd
from nextbuy.timing.neural import NeuralTiming, NeuralTimingConfig
from nextbuy.timing.pareto_nbd import ParetoNbd
from nextbuy.timing.protocol import log_likelihood
from nextbuy.timing.renewal import Renewal, RenewalConfig
from nextbuy.timing.waits import waits_after
from tests.timing.purchases import bought_on, counts_of, moment

DROPOUT = [BgNbd, MbgNbd, ParetoNbd]
RENEWAL = [f"{d} {p}" for d in ("log-normal", "gamma", "weibull") for p in ("own", "all")]
NAMES = ["bg-nbd", "mbg-nbd", "pareto-nbd", "neural", "blend", *RENEWAL]
DAYS = np.array([0.0, 0.5, 3.0, 10.0, 45.0, 200.0, 3000.0])


@cache
def shop():
    """60 users with gaps and dropouts of their own."""
    rng = np.random.default_rng(2)
    days = []
    for mean in rng.lognormal(2.5, 0.8, 60):
        own = [rng.uniform(0, 30)]
        while rng.random() > 0.15 and (nxt := own[-1] + 1 + rng.gamma(1.5, mean)) < 120:
            own.append(nxt)
        days.append(own)
    return bought_on(*days)


def unfitted(name):
    if name == "blend":
        return TimingBlend({"first": BgNbd(), "second": Renewal()})
    if name == "neural":
        return NeuralTiming(NeuralTimingConfig(epochs=12, hidden=8, components=3, fewest_gaps=1))
    if " " in name:
        distribution, whose = name.split()
        return Renewal(RenewalConfig(distribution=distribution, personal=whose == "own"))
    return {m.name: m for m in DROPOUT}[name]()


@cache
def fitted(name):
    model = unfitted(name).fit(shop(), moment(90))
    if name == "blend":
        model.weigh(shop(), moment(90), waits_after(shop(), moment(90), moment(120)))
    return model


@cache
def outlook_of(name):
    return fitted(name).outlook(shop(), moment(100))


@pytest.mark.parametrize("name", NAMES)
def test_survival_starts_at_1_and_falls_to_the_share_that_never_comes(name):
    outlook = outlook_of(name)
    survival = outlook.survival(DAYS)
    assert survival.shape == (60, len(DAYS))
    assert survival[:, 0] == pytest.approx(np.ones(60), abs=1e-9)
    assert (np.diff(survival, axis=1) <= 1e-12).all() and (survival >= 0).all()
    never = np.exp(outlook.log_survival(np.array([np.inf])))
    assert (never[:, 0] <= survival[:, -1] + 1e-9).all()
    assert outlook.probability_within(DAYS) == pytest.approx(1 - survival, abs=1e-12)
    assert ((outlook.p_active() >= 0) & (outlook.p_active() <= 1)).all()
    # who has dropped out never comes
    assert (never[:, 0] >= 1 - outlook.p_active() - 1e-9).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_density_integrates_to_what_survival_lost(name):
    outlook = outlook_of(name)
    edges = np.linspace(5.0, 30.0, 2001)
    density = np.exp(outlook.log_density(edges))
    lost = outlook.survival([5.0]) - outlook.survival([30.0])
    assert np.trapezoid(density, edges, axis=1) == pytest.approx(lost[:, 0], rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_quantiles_undo_survival(name):
    outlook, asked = outlook_of(name), np.array([0.02, 0.1, 0.5, 0.9, 0.999])
    days = outlook.days_to_next(asked)
    assert days.shape == (60, 5) and (np.diff(np.nan_to_num(days, posinf=1e300), axis=1) >= 0).all()
    finite = np.isfinite(days)
    reached = outlook.probability_within(np.where(finite, days, 0.0))
    wanted = np.broadcast_to(asked, days.shape)
    assert reached[finite] == pytest.approx(wanted[finite], rel=1e-7)
    at_most = -np.expm1(outlook.log_survival(np.array([np.inf])))
    assert (finite == (wanted < at_most)).all()


@pytest.mark.parametrize("name", NAMES)
def test_expected_purchases_are_at_least_the_probability_of_one(name):
    outlook = outlook_of(name)
    days = [0.0, 1.0, 7.0, 30.0, 90.0]
    expected = outlook.expected_purchases(days)
    assert expected.shape == (60, 5)
    assert expected[:, 0] == pytest.approx(np.zeros(60), abs=1e-12)
    assert (np.diff(expected, axis=1) >= -1e-9).all()
    assert (expected >= outlook.probability_within(days) - 1e-9).all()


@pytest.mark.parametrize("name", NAMES)
def test_many_users_and_horizons_are_as_one_by_one(name):
    outlook, asked = outlook_of(name), np.array([[5.0], [20.0], [80.0]])
    picked = outlook.take(np.array([7, 3, 7]))
    assert len(picked) == 3
    expected = np.array([outlook.survival(float(d))[u, 0] for u, d in ((7, 5), (3, 20), (7, 80))])
    assert picked.survival(asked)[:, 0] == pytest.approx(expected, rel=1e-12)
    one = fitted(name).outlook(shop().take(np.array([3])), moment(100))
    assert one.survival(DAYS)[0] == pytest.approx(outlook.survival(DAYS)[3], rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_users_without_purchases_are_unknown_and_disturb_nobody(name):
    log = bought_on([], [3, 9, 20], [300])
    outlook = fitted(name).outlook(log, moment(30))
    for seen in (
        outlook.survival([5.0]), outlook.days_to_next([0.1, 0.9]),
        outlook.expected_purchases([5.0]), outlook.p_active()[:, None],
    ):  # fmt: skip
        assert np.isnan(seen[[0, 2]]).all() and not np.isnan(seen[1]).any()


@pytest.mark.parametrize("name", NAMES)
def test_odd_histories_have_an_outlook(name):
    """Seen at once, bought for years every day, one purchase long ago, silent for ages."""
    daily = np.arange(0.0, 5001.0).tolist()
    log = bought_on([4999.999], daily, [0], [0, 1, 2, 3, 4, 5])
    outlook = fitted(name).outlook(log, moment(5000) + 1)
    assert np.isfinite(outlook.log_survival(DAYS)).all()
    assert (outlook.survival(DAYS) <= 1).all()
    assert not np.isnan(outlook.days_to_next()).any()
    assert np.isfinite(outlook.p_active()).all()
    assert (outlook.expected_purchases([30.0]) >= 0).all()
    if "all" not in name:  # who takes all users for the same knows nothing of the second
        # a network takes what it has never seen for the nearest that it has: a gap of 2 or 3 days
        least = 0.5 if name == "neural" else 0.6
        assert outlook.probability_within([5.0])[1, 0] > least


@pytest.mark.parametrize("name", NAMES)
def test_likelihood_of_what_came_next(name):
    outlook = outlook_of(name)
    waits = waits_after(shop(), moment(100), moment(120))
    worth = log_likelihood(outlook, waits.days, waits.observed)
    seen = np.flatnonzero(waits.observed)[0]
    missed = np.flatnonzero(~waits.observed)[0]
    h = 1e-4
    around = outlook.survival(np.array(waits.days[:, None] + [-h, h]))[seen]
    assert worth[seen] == pytest.approx(np.log((around[0] - around[1]) / (2 * h)), abs=1e-4)
    assert worth[missed] == pytest.approx(np.log(outlook.survival([20.0])[missed, 0]), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_is_what_is_loaded(name, tmp_path):
    model = fitted(name)
    model.save(tmp_path)
    loaded = type(model).load(tmp_path)
    again = loaded.outlook(shop(), moment(100))
    assert (again.log_survival(DAYS) == outlook_of(name).log_survival(DAYS)).all()
    stored = json.loads((tmp_path / "timing.json").read_text())
    for damaged in (stored | {"more": 1}, stored | {"model": "other"}, []):
        (tmp_path / "timing.json").write_text(json.dumps(damaged))
        with pytest.raises(BundleError):
            type(model).load(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_said_before_fitting_or_of_times_before_now(name):
    with pytest.raises(NotFittedError):
        unfitted(name).outlook(shop(), moment(100))
    with pytest.raises(ConfigError, match="from 0 on"):
        outlook_of(name).survival([-1.0])
    with pytest.raises(ConfigError, match="strictly between"):
        outlook_of(name).days_to_next([0.5, 1.0])


@pytest.mark.parametrize("name", NAMES)
def test_the_future_changes_no_fit_and_nor_does_the_order_of_users(name):
    if name == "blend":
        return
    log = shop()
    order = np.random.default_rng(0).permutation(len(log))
    past = log.before(np.full(len(log), moment(90)))
    assert unfitted(name).fit(past, moment(90)).parameters == fitted(name).parameters
    again = unfitted(name).fit(log.take(order), moment(90)).outlook(log, moment(100))
    assert again.survival(DAYS) == pytest.approx(outlook_of(name).survival(DAYS), abs=1e-4)


@pytest.mark.parametrize("model_class", DROPOUT)
def test_weights_are_as_good_as_repeated_rows(model_class):
    rows = [(0, 0, 9.0), (2, 3.0, 9.0), (1, 8.0, 9.0), (5, 8.5, 9.0), (0, 0, 4.0), (3, 3.5, 4.0)]
    weights = [5, 2, 3, 1, 4, 2]
    repeated = [row for row, weight in zip(rows, weights, strict=True) for _ in range(weight)]
    weighed = model_class().fit_counts(counts_of(rows, weights)).parameters
    assert weighed == model_class().fit_counts(counts_of(repeated)).parameters


@pytest.mark.parametrize("model_class", DROPOUT)
def test_days_and_weeks_are_the_same_model(model_class):
    days = model_class(DropoutConfig(days_per_unit=1)).fit(shop(), moment(90))
    weeks = model_class().fit(shop(), moment(90))
    seen, expected = (m.outlook(shop(), moment(100)).survival(DAYS) for m in (days, weeks))
    assert seen == pytest.approx(expected, abs=1e-4)  # the ridge of the likelihood is flat


@pytest.mark.parametrize("model_class", DROPOUT)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 5000), st.floats(0, 1), st.floats(0, 1e4)), min_size=1, max_size=5
    ),
    place=st.tuples(*[st.floats(-5, 5)] * 4),
)
@settings(max_examples=60, deadline=None)
def test_survival_of_any_user_under_any_parameters(model_class, rows, place):
    counts = counts_of([(x, T * part if x else 0.0, T) for x, part, T in rows])
    model = model_class()
    names = list(model_class.parameters_class.model_fields)
    model.parameters = model_class.parameters_class(**dict(zip(names, np.exp(place), strict=True)))
    outlook = model.outlook_of(counts)
    survival = outlook.survival(DAYS)
    assert ((survival >= 0) & (survival <= 1)).all()
    assert (np.diff(survival, axis=1) <= 1e-9).all()
    active = outlook.p_active()
    assert ((active >= 0) & (active <= 1)).all()
    never = np.exp(outlook.log_survival(np.array([np.inf])))[:, 0]
    assert (never >= 1 - active - 1e-6).all() and (never <= survival[:, -1] + 1e-6).all()


@pytest.mark.parametrize("model_class", DROPOUT)
def test_users_who_are_all_alike_are_fitted_at_the_edge(model_class, caplog):
    caplog.set_level(logging.INFO)
    model = model_class().fit_counts(counts_of([(5, 9.0, 10.0)]))
    assert model.maximum.at_edge and "do not determine" in caplog.text
    expected = model.outlook_of(counts_of([(5, 9.0, 10.0)])).expected_purchases([7.0])[0, 0]
    assert 0.1 < expected < 2.0


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_shop_where_nobody_came_back_is_refused(name):
    with pytest.raises(EmptyDataError, match="learns from repeat purchases"):
        unfitted(name).fit(bought_on([1], [2, 2.1], [3]), moment(9))
