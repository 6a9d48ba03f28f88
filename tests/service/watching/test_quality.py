"""Live hit rates, calibration and drift against numbers worked out by hand."""

import math

import numpy as np
import polars as pl
import pytest

from nextbuy import columns
from nextbuy.data.catalog import COLUMNS, Catalog
from nextbuy.data.histories import DAY, UNKNOWN
from nextbuy.service.store.protocol import ServedOffer
from nextbuy.service.watching.drift import NUM_BINS, binned, drift_of, stability_index
from nextbuy.service.watching.quality import QualityConfig, live_quality
from tests.service.watching.memory_store import MemoryStore

NOW = 100 * DAY


def catalog(rows):
    """Rows of item, platform, category and purchases."""
    table = pl.DataFrame(
        [(item, platform, category, None, count) for item, platform, category, count in rows],
        schema=dict(zip(COLUMNS, (pl.String,) * 3 + (pl.Float64, pl.Int64), strict=True)),
        orient="row",
    )
    return Catalog(table=table)


SHOP = catalog(
    [("tea", "app", "drinks", 6), ("milk", "app", "drinks", 3), ("soap", "web", "home", 1)]
)
INDEX = {"tea": 1, "milk": 2, "soap": 3}


def index_of(purchase):
    return INDEX.get(purchase.item_id, UNKNOWN)


def served(user, day, items, probabilities, version="000001"):
    platforms = {"tea": "app", "milk": "app", "soap": "web"}
    return ServedOffer(
        served=int(day * DAY), version=version, user_id=user,
        items=tuple((item, platforms.get(item)) for item in items),
        probabilities=tuple(probabilities), after_sequence=0,
    )  # fmt: skip


def quality(store, **more):
    return live_quality(
        store, {"basket_kind": "timestamp"}, SHOP, now=NOW, index_of=index_of, **more
    )


@pytest.fixture
def store():
    """Four answers that were answered, one that is open."""
    store = MemoryStore()
    store.offers = [
        served("a", 90, ["tea", "milk"], [0.6, 0.3]),
        served("b", 90, ["tea", "milk"], [0.6, 0.3]),
        served("c", 90, ["milk", "soap"], [0.2, 0.1], version="000002"),
        served("d", 90, ["tea"], [0.6]),
        served("e", 99, ["tea", "milk"], [0.9, 0.1]),
    ]
    store.add("a", "tea", 91 * DAY)  # the first offer
    store.add("b", "milk", 91 * DAY)  # the second
    store.add("c", "milk", 92 * DAY)  # the first, and what nobody offered
    store.add("c", "novelty", 92 * DAY)
    store.add("d", "soap", 93 * DAY)  # not offered
    return store


def test_hit_rates_and_calibration_by_hand(store):
    found = quality(store)
    assert found.fates == {"answered": 4, "superseded": 0, "pending": 1, "unanswered": 0}
    assert (found.num_served, found.num_left_out) == (5, 0)
    overall = found.overall
    assert overall.num_answered == 4
    assert overall.hit_rate[1].value == 2 / 4  # a and c
    assert math.isnan(overall.hit_rate[5].value)  # nobody was offered five
    # c bought two things, so it counts twice: (.6 + .6 + 2 * .2 + .6) / 5 was said, and a's tea
    # and c's milk of the five purchases came true.
    assert overall.said.value == pytest.approx(2.2 / 5)
    assert overall.came_true.value == pytest.approx(2 / 5)
    # At 60 % three purchases, of which one came true; at 20 % two, of which one did.
    expected = (3 * abs(1 / 3 - 0.6) + 2 * abs(1 / 2 - 0.2)) / 5
    assert overall.calibration_error.value == pytest.approx(expected)
    assert overall.reliability.ece == pytest.approx(expected)
    assert overall.reliability.counts.sum() == 5


def test_versions_are_told_apart(store):
    found = quality(store).by_version
    assert {name: each.num_answered for name, each in found.items()} == {"000001": 3, "000002": 1}
    assert found["000001"].hit_rate[1].value == pytest.approx(1 / 3)
    assert found["000002"].said.value == pytest.approx(0.2)


def test_intervals_hold_the_value_and_shrink_with_more_answers():
    """Half of the answers hit; for 400 the normal interval is .5 -+ 1.96 * .5 / 20 = .049."""
    store = MemoryStore()
    for n in range(400):
        store.offers.append(served(f"u{n}", 90, ["tea"], [0.5]))
        store.add(f"u{n}", "tea" if n % 2 else "soap", 91 * DAY)
    rate = quality(store, config=QualityConfig(num_resamples=2000)).overall.hit_rate[1]
    assert rate.value == 0.5
    assert rate.low == pytest.approx(0.5 - 0.049, abs=0.01)
    assert rate.high == pytest.approx(0.5 + 0.049, abs=0.01)


def test_only_the_newest_answers_are_looked_at_and_the_others_counted(store):
    found = quality(store, config=QualityConfig(most_answers=2))
    assert (found.num_served, found.num_left_out) == (2, 3)
    assert found.fates["answered"] == 1  # d; e is open
    assert quality(store, config=QualityConfig(days=5)).num_served == 1


def test_nothing_served_gives_no_numbers_and_no_error():
    found = quality(MemoryStore())
    assert found.overall.num_answered == 0
    assert math.isnan(found.overall.hit_rate[1].value)
    assert math.isnan(found.drift.unknown_share.value)
    names = {name for name, _, _ in found.samples()}
    assert names == {"live_answers"}


def test_plain_values_for_page_and_metrics(store):
    found = quality(store, is_known_user={"a", "b", "c"}.__contains__)
    plain = found.as_dict()
    assert plain["by_version"]["000001"]["hit_rate"]["1"]["value"] == pytest.approx(1 / 3)
    samples = {(name, *sorted(labels.items())): value for name, labels, value in found.samples()}
    assert samples["live_answers", ("fate", "pending")] == 1
    assert samples["live_hit_rate", ("k", "1"), ("version", "000002")] == 1
    assert samples["live_unknown_item_share",] == pytest.approx(1 / 5)
    assert samples["live_new_user_share",] == pytest.approx(1 / 4)  # d of a, b, c, d
    assert all(math.isfinite(value) for value in samples.values())


def test_stability_by_hand():
    """Shares (2.5, 1.5) / 4 were learnt, (.5, 3.5) / 4 are bought."""
    expected = -0.5 * math.log(0.2) + 0.5 * math.log(7 / 3)
    assert expected == pytest.approx(1.2284, abs=1e-4)
    found = stability_index(np.array([2.0, 1.0]), np.array([0.0, 3.0]))
    assert found == pytest.approx(expected)
    assert stability_index(np.array([2.0, 1.0]), np.array([2.0, 1.0])) == 0


def test_drift_of_items_platforms_and_categories(store):
    """Learnt: tea 6, milk 3, soap 1. Bought: tea 1, milk 2, soap 1, and one that is unknown."""
    drift = quality(store).drift
    assert drift.num_purchases == 5
    learnt = [6.5 / 11.5, 3.5 / 11.5, 1.5 / 11.5]
    bought = [1.5 / 5.5, 2.5 / 5.5, 1.5 / 5.5]
    by_hand = sum((a - e) * math.log(a / e) for e, a in zip(learnt, bought, strict=True))
    assert drift.stability["item"].value == pytest.approx(by_hand)
    # app 9 and web 1 against app 3 and web 1; drinks and home are the same purchases.
    e, a = np.array([9.5, 1.5]) / 11, np.array([3.5, 1.5]) / 5
    by_hand = float(((a - e) * np.log(a / e)).sum())
    assert drift.stability["platform"].value == pytest.approx(by_hand)
    assert drift.stability["category"].value == pytest.approx(by_hand)
    assert drift.by_chance["platform"] == pytest.approx(1 * (1 / 10 + 1 / 4))
    assert drift.unknown_share.value == pytest.approx(1 / 5)
    assert drift.new_user_share is None
    assert drift.stability["item"].low <= drift.stability["item"].high


def test_purchases_before_the_days_do_not_count(store):
    store.add("z", "soap", 10 * DAY)  # reported now, but long ago
    assert quality(store).drift.num_purchases == 5


def test_rare_items_share_a_bin():
    shop = catalog([(f"i{n}", None, None, 100 - n) for n in range(50)])
    old, new = binned(dict(enumerate(shop.table["num_purchases"])), {0: 2, 20: 3, 49: 4})
    assert len(old) == NUM_BINS + 1
    assert old[0] == 100
    assert old[-1] == sum(range(51, 81))
    assert (new[0], new[-1]) == (2, 7)
    drift = drift_of(shop, {1: 5}, num_unknown=0, buyers=None, num_resamples=10)
    assert set(drift.stability) == {"item"}  # the catalog tells nothing else
    assert columns.PLATFORM not in drift.by_chance
