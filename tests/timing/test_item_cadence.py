"""When an item is due again: gaps by hand, fits beside the truth that made them, clocks on disk."""

import math
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nextbuy.data.catalog import COLUMNS, Catalog
from nextbuy.data.histories import Histories
from nextbuy.errors import BundleError, ConfigError, EmptyDataError, NotFittedError
from nextbuy.splitting.repeat import RepeatPolicy, apply_repeat_policy
from nextbuy.timing.item_cadence import ItemCadence, ItemCadenceConfig
from nextbuy.timing.item_clocks import ItemClocks
from nextbuy.timing.item_gaps import item_gaps
from tests.timing.purchases import moment


def catalog_of(*categories):
    num = len(categories)
    kinds = [pl.String, pl.String, pl.String, pl.Float64, pl.Int64]
    values = [
        [f"i{n}" for n in range(num)],
        [None] * num,
        list(categories),
        [None] * num,
        [1] * num,
    ]
    return Catalog(
        table=pl.DataFrame(
            dict(zip(COLUMNS, values, strict=True)), dict(zip(COLUMNS, kinds, strict=True))
        )
    )


def log_of(*users):
    """Each user a list of (day, item)."""
    return Histories.from_lists(
        [[item for _, item in user] for user in users],
        times=[[moment(day) for day, _ in user] for user in users],
    )


def clocks_of(gap, elapsed_days, *, mean, sd, stop):
    """One clock of given parameters; so many days after a purchase, at midnight."""
    gaps = item_gaps(log_of([(0, 1), (gap, 1)]), moment(gap + elapsed_days))
    return ItemClocks(gaps=gaps, means=np.array([mean]), sds=np.array([sd]), stops=np.array([stop]))


def simulated(rng, *, num_users=400, items=(10.0, 40.0), days=360, sd=0.4, own=0.3, stop=0.1):
    """Users buy each item by a clock of their own around the item's, until they are through."""
    users = []
    for _ in range(num_users):
        rows = []
        for item, gap in enumerate(items, start=1):
            mine, day = math.log(gap) + own * rng.normal(), rng.uniform(0, days / 2)
            while day < days:
                rows.append((day, item))
                if rng.random() < stop:
                    break
                day = math.floor(day) + 0.5 + max(round(math.exp(mine + sd * rng.normal())), 1)
        users.append(sorted(rows))
    return log_of(*users)


@pytest.fixture(scope="module")
def fitted():
    log = simulated(np.random.default_rng(1))
    return ItemCadence().fit(log, catalog_of("a", "b"), moment(360)), log


def test_days_are_counted_by_the_calendar_and_those_of_one_day_once():
    log = log_of([(0.2, 1), (0.9, 1), (3.5, 2), (10.1, 1), (30, 1)], [(5, 2)])
    gaps = item_gaps(log, moment(20))
    assert gaps.owners.tolist() == [0, 0, 1]
    assert gaps.items.tolist() == [1, 2, 2]
    assert gaps.purchases.tolist() == [3, 1, 1]
    assert gaps.counts.tolist() == [1, 0, 0]
    assert gaps.log_sums.tolist() == pytest.approx([math.log(10), 0, 0])
    assert gaps.days_since.tolist() == [10, 17, 15]
    assert gaps.elapsed.tolist() == [9.5, 16.5, 14.5]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3)), max_size=12),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 14),
)
def test_gaps_are_those_of_a_slow_count(users, day):
    users = [sorted(rows) for rows in users]
    expected = []
    for owner, rows in enumerate(users):
        for item in sorted({i for d, i in rows if d < day}):
            days = sorted({d for d, i in rows if i == item and d < day})
            logs = [math.log(b - a) for a, b in pairwise(days)]
            squares = sum(x * x for x in logs)
            expected.append((owner, item, len(logs), sum(logs), squares, day - days[-1]))
    found = item_gaps(log_of(*users), moment(day))
    parts = (found.owners, found.items, found.counts, found.log_sums, found.log_squares)
    rows = np.array([*zip(*parts, found.days_since, strict=True)]).reshape(-1, 6)
    assert rows.ravel().tolist() == pytest.approx(np.array(expected).ravel().tolist())


def test_a_clock_says_what_its_distribution_says():
    clocks = clocks_of(20, 15, mean=math.log(20), sd=0.5, stop=0.25)
    gap = stats.lognorm(s=0.5, scale=20)
    assert clocks.typical_days()[0] == pytest.approx(20)
    assert clocks.gap_days([0.1, 0.9])[0] == pytest.approx(gap.ppf([0.1, 0.9]))
    assert clocks.p_due()[0] == pytest.approx(gap.cdf(14.5))
    left = 0.25 + 0.75 * gap.sf(14.5)
    assert clocks.probability_within(30)[0, 0] == pytest.approx(
        0.75 * (gap.sf(14.5) - gap.sf(44.5)) / left
    )
    within = gap.cdf(14.5 + clocks.days_until([0.1, 0.5, 0.9])[0]) - gap.cdf(14.5)
    assert (within / gap.sf(14.5)).tolist() == pytest.approx([0.1, 0.5, 0.9])


@pytest.mark.parametrize("days", [1, 100, 3_000, 100_000])
def test_long_overdue_items_have_finite_answers(days):
    clocks = clocks_of(20, days, mean=math.log(20), sd=0.3, stop=0.2)
    assert (clocks.days_until([0.1, 0.5, 0.9]) >= 0).all()
    assert np.isfinite(clocks.days_until([0.1, 0.5, 0.9])).all()
    assert 0 <= clocks.probability_within(30)[0, 0] <= 1


def test_the_truth_that_made_a_log_is_found(fitted):
    model, _ = fitted
    found = model.parameters
    assert found.gap_variance == pytest.approx(0.4**2, rel=0.15)
    assert found.pair_variance == pytest.approx(0.3**2, rel=0.25)
    nobody = model.clocks(log_of([(0, 1), (0, 2)]), moment(1))
    assert nobody.typical_days().tolist() == pytest.approx([10, 40], rel=0.1)
    assert nobody.stops.tolist() == pytest.approx([0.1, 0.1], abs=0.04)


def test_open_gaps_count_so_that_a_short_log_does_not_shorten_the_gaps():
    log = simulated(np.random.default_rng(2), items=(60.0,), days=150, stop=0.0, num_users=800)
    seen = item_gaps(log, moment(150))
    complete_alone = math.exp(seen.log_sums.sum() / seen.counts.sum())
    assert complete_alone < 52
    model = ItemCadence().fit(log, catalog_of("a"), moment(150))
    found = model.clocks(log_of([(0, 1)]), moment(1)).typical_days()[0]
    assert found == pytest.approx(60, rel=0.12)


def test_what_is_said_of_the_next_weeks_comes_true():
    log, early = simulated(np.random.default_rng(5), num_users=1_500), moment(300)
    clocks = ItemCadence().fit(log, catalog_of("a", "b"), early).clocks(log, early)
    later = item_gaps(log, moment(330))
    after = dict(zip(zip(later.owners, later.items, strict=True), later.purchases, strict=True))
    pairs = zip(clocks.gaps.owners, clocks.gaps.items, clocks.gaps.purchases, strict=True)
    bought = np.array([after[owner, item] > times for owner, item, times in pairs])
    said = clocks.probability_within(30)[:, 0]
    for low, high in ((0.0, 0.2), (0.2, 0.6), (0.6, 0.85)):
        those = (said >= low) & (said < high)
        assert those.sum() > 300
        assert bought[those].mean() == pytest.approx(said[those].mean(), abs=0.06)
    assert np.mean((said - bought) ** 2) < 0.6 * bought.var()


def test_a_user_has_a_clock_of_their_own_the_more_gaps_the_more(fitted):
    model, _ = fitted
    seldom = [(20.0 * n, 1) for n in range(10)]
    typical = [
        model.clocks(log_of(seldom[:times]), moment(200)).typical_days()[0]
        for times in (1, 2, 4, 10)
    ]
    assert typical == sorted(typical)
    assert typical[0] < 11 and typical[-1] == pytest.approx(20, rel=0.1)
    pooled = ItemCadence(ItemCadenceConfig(personal=False))
    pooled.fit(fitted[1], catalog_of("a", "b"), moment(360))
    same = [pooled.clocks(log_of(seldom[:n]), moment(200)).typical_days()[0] for n in (1, 10)]
    assert same[0] == same[1] == pytest.approx(10, rel=0.15)


def test_an_item_without_a_gap_has_the_clock_of_its_category():
    log = simulated(np.random.default_rng(3), items=(10.0, 10.0, 40.0, 40.0), num_users=150)
    catalog = catalog_of("a", "a", "b", "b", "a", "b")
    model = ItemCadence().fit(log, catalog, moment(360))
    new = model.clocks(log_of([(0, 5), (0, 6)]), moment(1))
    assert new.typical_days()[0] < 15 and new.typical_days()[1] > 28


def test_a_cooldown_by_own_clocks_ends_at_the_early_end_of_the_gap(fitted):
    model, _ = fitted
    policy = RepeatPolicy.parse("cooldown:own").by(model)
    log = log_of([(0, 1), (0, 2)])
    scores = np.log(np.array([[0, 0.5, 0.5]], dtype=np.float32) + 1e-30)
    early = model.clocks(log, moment(1)).gap_days([0.1])[:, 0]
    for item, days in zip((1, 2), early, strict=True):
        for day, offered in ((math.floor(days), False), (math.ceil(days) + 1, True)):
            given = apply_repeat_policy(scores, log, np.array([moment(day)]), policy)
            assert np.isfinite(given[0, item]) == offered
    unasked = apply_repeat_policy(scores, log_of([]), np.array([moment(1)]), policy)
    assert unasked == pytest.approx(scores, abs=1e-6)


def test_own_clocks_are_refused_without_clocks_or_dates():
    policy = RepeatPolicy.parse("cooldown:own")
    scores = np.zeros((1, 2), dtype=np.float32)
    with pytest.raises(ConfigError, match="there are none"):
        apply_repeat_policy(scores, log_of([(0, 1)]), np.array([moment(1)]), policy)
    with pytest.raises(ConfigError, match="cooldown:own needs dates"):
        apply_repeat_policy(scores, Histories.from_lists([[1]]), None, policy)


def test_nothing_is_learnt_where_no_item_was_bought_on_two_days():
    with pytest.raises(EmptyDataError, match=r"None of 2 users .* \(3 pairs"):
        ItemCadence().fit(
            log_of([(0, 1), (5, 2)], [(1.1, 1), (1.9, 1)]), catalog_of("a", "b"), moment(9)
        )
    with pytest.raises(ConfigError, match="only an order"):
        ItemCadence().fit(Histories.from_lists([[1, 1]]), catalog_of("a"), 9)
    with pytest.raises(NotFittedError):
        ItemCadence().clocks(log_of([(0, 1)]), moment(1))


def test_a_cadence_comes_back_from_disk_and_a_damaged_one_does_not(fitted, tmp_path):
    model, log = fitted
    model.save(tmp_path)
    loaded = ItemCadence.load(tmp_path, 2)
    for name in ("means", "sds", "stops"):
        same = [getattr(m.clocks(log, moment(360)), name).tobytes() for m in (model, loaded)]
        assert same[0] == same[1]
    with pytest.raises(BundleError, match="4 finite float64"):
        ItemCadence.load(tmp_path, 3)
    file = tmp_path / "timing.json"
    file.write_text(file.read_text().replace("pair_variance", "other"))
    with pytest.raises(BundleError, match="no item-cadence"):
        ItemCadence.load(tmp_path, 2)


@given(st.floats(0.02, 0.98), st.floats(0.2, 2.0))
def test_the_share_that_is_due_is_that_of_a_normal_of_logs(share, sd):
    days = 14.5 / math.exp(sd * NormalDist().inv_cdf(share))
    clocks = clocks_of(20, 15, mean=math.log(days), sd=sd, stop=0.0)
    assert clocks.p_due()[0] == pytest.approx(share)
