"""The hours of the week: what is counted, and an outlook in the shop's time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nextbuy.timing.blend import TimingBlend
from nextbuy.timing.events import events_before
from nextbuy.timing.mbg_nbd import MbgNbd
from nextbuy.timing.renewal import Renewal, RenewalConfig, RenewalParameters
from nextbuy.timing.scores import score
from nextbuy.timing.waits import waits_after
from nextbuy.timing.week import Week, WeeklyOutlook
from tests.timing.purchases import bought_on, moment  # day 0 is a Monday


def open_on(*hours):
    """Twice an even rate in some hours of the week, and as little less in the others."""
    rates = np.ones(168)
    rates[list(hours)] = 2.0
    rest = np.setdiff1d(np.arange(168), list(hours))
    rates[rest] = (168 - 2.0 * len(hours)) / len(rest)
    return Week(rates=tuple(rates.tolist()))


def daytime_shop(num_users=150, days=150, seed=5):
    """Users buy at random, but only from 9 to 17 and never on Sundays."""
    rng = np.random.default_rng(seed)
    logs = []
    for mean in rng.gamma(2.0, 10.0, num_users):
        day, own = rng.uniform(0, 20), []
        while day < days:
            whole = int(day) + (int(day) % 7 == 6)
            own.append(whole + rng.uniform(9, 17) / 24)
            day = whole + 1 + rng.exponential(mean)
        logs.append(own)
    return bought_on(*logs)


def test_even_days_are_the_sum_of_the_rates_passed():
    week = open_on(0, 1, 30)
    now = np.array([moment(0.5 / 24), moment(20)])  # Monday 00:30; a Sunday
    seen = week.even_days(now, np.array([1.0 / 24, 1.25, 10.0]))
    step = 1 / 24 / 200
    for user, start in enumerate((0.5 / 24, 20.0)):
        for place, length in enumerate((1.0 / 24, 1.25, 10.0)):
            middles = start + step * (np.arange(round(length / step)) + 0.5)
            hours = (middles * 24 % 168).astype(int)
            assert seen[user, place] == pytest.approx(np.array(week.rates)[hours].sum() * step)


@given(
    st.integers(0, 999),
    st.floats(0, 30),
    st.lists(st.floats(0, 1000), min_size=1, max_size=5),
)
@settings(max_examples=40)
def test_a_week_is_a_week_and_days_undo_even_days(seed, start, days):
    rates = np.random.default_rng(seed).lognormal(0.0, 1.5, 168)
    week = Week(rates=tuple((rates / rates.mean()).tolist()))
    now, asked = np.array([moment(start)]), np.array([sorted(days)])
    even = week.even_days(now, asked)
    assert (np.diff(even, axis=1) >= 0).all()
    assert week.days(now, even) == pytest.approx(asked, abs=1e-6)
    later = week.even_days(now, asked + 7.0)
    assert later == pytest.approx(even + 7.0, abs=1e-9)


def test_hours_are_found_where_they_matter_and_only_there():
    found = Week.of(events_before(daytime_shop(), moment(150)))
    rates = np.array(found.rates).reshape(7, 24)
    assert rates.mean() == pytest.approx(1)
    assert rates[:6, 9:17].min() > 2 and rates[6].max() < 0.5 and rates[:, :8].max() < 0.5
    rng = np.random.default_rng(0)
    anytime = bought_on(*[np.sort(rng.uniform(0, 200, 5)).tolist() for _ in range(100)])
    assert Week.of(events_before(anytime, moment(200))) is None


def test_where_only_days_are_known_the_hours_of_a_day_are_alike():
    log = bought_on(*[[1 + 7 * k for k in range(20)] for _ in range(30)])  # every Tuesday
    rates = np.array(Week.of(events_before(log, moment(140))).rates).reshape(7, 24)
    assert (np.ptp(rates, axis=1) < 1e-12).all()
    assert rates[1, 0] > 2 * np.delete(rates[:, 0], 1).max()


def even_and_weekly():
    week = open_on(*range(30, 40))
    model = Renewal(RenewalConfig(distribution="weibull", personal=False, dropout=False))
    model.parameters = RenewalParameters(unit_days=3.0, gap={"shape": 1.5, "rate": 0.8})
    now = np.array([moment(9), moment(12.3)])
    even = model.outlook(bought_on([0, 8], [11]), now)
    return even, WeeklyOutlook(even, week, now), week


def test_the_density_is_what_survival_loses_in_each_hour():
    _, weekly, _ = even_and_weekly()
    middles = (np.arange(24 * 9) + 0.5) / 24  # one user starts at midnight
    lost = weekly.survival(middles - 1e-4) - weekly.survival(middles + 1e-4)
    assert np.exp(weekly.log_density(middles))[0] == pytest.approx(lost[0] / 2e-4, rel=1e-3)


def test_quantiles_and_purchases_are_those_of_even_time_at_another_hour():
    even, weekly, week = even_and_weekly()
    days = weekly.days_to_next([0.1, 0.5, 0.9])
    reached = np.array([weekly.survival(day)[user] for user, day in enumerate(days)])
    assert 1 - reached == pytest.approx(np.array([[0.1, 0.5, 0.9]] * 2), rel=1e-6)
    assert weekly.expected_purchases([7.0, 21.0]) == pytest.approx(
        even.expected_purchases([7.0, 21.0])
    )
    assert (weekly.p_active() == even.p_active()).all()
    assert len(weekly.take(np.array([1, 1, 0]))) == 3
    assert weekly.take(np.array([1])).survival([2.0])[0] == weekly.survival([2.0])[1]
    assert np.isfinite(week.rates).all()


def test_a_blend_that_knows_the_hours_foretells_better(tmp_path):
    log, now, end = daytime_shop(), moment(110), moment(150)
    waits = waits_after(log, now, end)
    blend = TimingBlend({"mbg": MbgNbd().fit(log, now)}).weigh(log, now, waits)
    alone, hours = (
        score(model.outlook(log, now), waits, 40.0, [7]).values["log_likelihood"]
        for model in (blend.members["mbg"], blend)
    )
    # open for 48 of 168 hours: worth up to log 3.5 for each wait that ended
    assert hours > alone + 0.8 * waits.observed.mean()
    blend.save(tmp_path)
    again = TimingBlend.load(tmp_path).outlook(log, now)
    assert (again.survival([3.3]) == blend.outlook(log, now).survival([3.3])).all()


def test_rates_that_are_no_week_are_refused():
    with pytest.raises(ValidationError):
        Week(rates=(1.0,) * 167)
    with pytest.raises(ValidationError):
        Week(rates=(0.0,) * 168)
