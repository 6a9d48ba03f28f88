"""What a purchase is worth: three estimates, and how they are blended."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nextbuy.data.histories import Histories
from nextbuy.errors import BundleError, DataError
from nextbuy.timing.amounts import (
    GAMMA_GAMMA,
    ITEM_PRICES,
    PERSONAL_MEAN,
    Amounts,
    blend_weights,
    deviance,
    item_values,
)
from nextbuy.timing.basket_size import BasketSize
from nextbuy.timing.gamma_gamma import GammaGamma, GammaGammaParameters
from nextbuy.timing.shrunk_mean import ShrunkMean
from tests.timing.purchases import moment

NAN = float("nan")


def log_of(users, *, quantities=None):
    """Users as lists of (day, item, price), every day a basket."""
    log = Histories.from_lists(
        [[item for _, item, _ in user] for user in users],
        times=[[moment(day) for day, _, _ in user] for user in users],
        baskets=[[day for day, _, _ in user] for user in users],
        prices=[[price for _, _, price in user] for user in users],
    )
    if quantities is None:
        return log
    return replace(log, quantities=np.array(quantities, dtype=np.float32))


def amounts(weights=None, values=None):
    gamma_gamma = GammaGamma()
    gamma_gamma.parameters = GammaGammaParameters(p=2.0, q=3.0, gamma=5.0)
    return Amounts(
        gamma_gamma,
        ShrunkMean(mean=10.0, weight=1.0),
        BasketSize(items=ShrunkMean(mean=2.0, weight=1.0)),
        item_values=None if values is None else np.array(values, dtype=np.float32),
        weights=weights,
    )


LOG = log_of([[(1, 1, 4.0), (1, 2, 2.0), (5, 1, 12.0)], [(2, 2, 8.0), (9, 1, 99.0)], []])


def test_estimates_are_those_of_the_formulas_by_hand():
    """Values 6 and 12 of the first user, 8 of the second (day 9 is not over), none of the third;
    baskets of 2 and 1 items, and of 1."""
    found = amounts().estimates(LOG, moment(9), np.array([3.0, 3.0, 5.0]))
    gamma_gamma = [2 * (5 + 18) / (4 + 2), 2 * (5 + 8) / (2 + 2), 2 * 5 / 2]
    assert found[GAMMA_GAMMA] == pytest.approx(gamma_gamma)
    assert found[PERSONAL_MEAN] == pytest.approx([(10 + 18) / 3, (10 + 8) / 2, 10])
    assert found[ITEM_PRICES] == pytest.approx([3 * (2 + 3) / 3, 3 * (2 + 1) / 2, 5 * 2])
    blend = amounts({GAMMA_GAMMA: 0.5, ITEM_PRICES: 0.5})
    asked = blend.expected_value(LOG, moment(9), np.array([3.0, 3.0, 5.0]))
    assert asked == pytest.approx((found[GAMMA_GAMMA] + found[ITEM_PRICES]) / 2)
    assert blend.expected_value(LOG, moment(9)) == pytest.approx(gamma_gamma)
    with pytest.raises(DataError, match="without prices"):
        blend.expected_value(replace(LOG, prices=None), moment(9))


def test_an_item_costs_what_was_paid_for_it_drawn_towards_its_price():
    """Item 1: 3 x 2 and, its quantity unknown, 4; item 2: a return, no purchase, and 5 x 4;
    item 3 was bought after the moment only. The usual quantity is (6 + 4 + 20) / (3 + 4 + 5)."""
    log = log_of(
        [[(1, 1, 3.0), (2, 1, 4.0), (3, 2, -7.0), (4, 2, 5.0), (9, 3, 50.0)]],
        quantities=[2, NAN, 1, 4, 1],
    )
    by_hand = [0, (10 + 5 * 3.5 * 2.5) / 7, (20 + 5 * 5 * 2.5) / 6, 10]
    assert item_values(log, moment(9), 3) == pytest.approx(by_hand)
    with pytest.raises(DataError, match="without prices"):
        item_values(replace(log, prices=None), moment(9), 3)


def test_a_deviance_is_that_of_a_gamma_distribution():
    assert deviance(np.array([1.0, 4.0]), np.array([2.0, 4.0])) == pytest.approx(
        (2 - 1 - np.log(2)) / 2
    )
    assert deviance(np.array([3.0]), np.array([3.0])) == 0.0
    assert deviance(np.array([np.inf, 3.0]), np.array([3.0, 3.0])) == np.inf
    came = np.array([1.0, 2.0, 2.0, 40.0, 3.0])
    tried = np.linspace(1, 40, 400)
    best = tried[np.argmin([deviance(np.full(5, m), came) for m in tried])]
    assert best == pytest.approx(came.mean(), abs=0.1)  # like a squared error, smallest at the mean


def test_weights_find_the_mixture_and_never_do_worse_than_the_best_member():
    rng = np.random.default_rng(0)
    first, second, third = rng.gamma(4.0, 5.0, (3, 500))
    members = {"a": first, "b": second, "c": third}
    assert blend_weights(members, 0.3 * first + 0.7 * third) == {"a": 0.3, "b": 0.0, "c": 0.7}
    assert blend_weights(members, second) == {"a": 0.0, "b": 1.0, "c": 0.0}
    for _ in range(20):
        came = rng.gamma(2.0, 10.0, 500)
        weights = blend_weights(members, came)
        said = sum(weights[name] * each for name, each in members.items())
        assert sum(weights.values()) == pytest.approx(1)
        assert deviance(said, came) <= min(deviance(each, came) for each in members.values())


def test_a_member_that_cannot_tell_gets_no_weight():
    came = np.array([1.0, 2.0])
    members = {"a": np.array([np.inf, 2.0]), "b": np.array([3.0, 3.0])}
    assert blend_weights(members, came) == {"a": 0.0, "b": 1.0}


def test_items_times_prices_count_only_where_they_are_worth_a_hundredth_of_the_error():
    rng = np.random.default_rng(1)
    mean = rng.gamma(4.0, 5.0, 2_000)
    came = mean * rng.gamma(2.0, 0.5, 2_000)
    estimates = {GAMMA_GAMMA: mean, PERSONAL_MEAN: mean * rng.gamma(9.0, 1 / 9, 2_000)}
    found = amounts()
    found.weigh({**estimates, ITEM_PRICES: mean * 1.001}, came)
    assert not found.asks_items
    found.weigh({**estimates, ITEM_PRICES: came * 1.001}, came)
    assert found.weights == {GAMMA_GAMMA: 0.0, PERSONAL_MEAN: 0.0, ITEM_PRICES: 1.0}
    assert found.asks_items


def test_what_is_saved_is_what_is_loaded(tmp_path):
    weights = {GAMMA_GAMMA: 0.25, PERSONAL_MEAN: 0.25, ITEM_PRICES: 0.5}
    saved = amounts(weights, [0.0, 3.0, 0.1 + 0.2])
    saved.save(tmp_path)
    loaded = Amounts.load(tmp_path, 2)
    asked = np.array([3.0, 3.0, 5.0])
    assert loaded.expected_value(LOG, moment(9), asked).tolist() == (
        saved.expected_value(LOG, moment(9), asked).tolist()
    )
    assert loaded.weights == weights and loaded.item_values.tolist() == saved.item_values.tolist()
    assert GammaGamma.load(tmp_path).parameters == saved.gamma_gamma.parameters  # older versions
    with pytest.raises(BundleError, match="the catalog has 3 items"):
        Amounts.load(tmp_path, 3)


@pytest.mark.parametrize(
    "weights", [{GAMMA_GAMMA: 0.5}, {"neural": 1.0}, {GAMMA_GAMMA: 2.0, PERSONAL_MEAN: -1.0}, {}]
)
def test_damaged_weights_are_refused(tmp_path, weights):
    amounts().save(tmp_path)
    place = tmp_path / "blend" / "timing.json"
    stored = json.loads(place.read_text())
    stored["blend"]["weights"] = weights
    place.write_text(json.dumps(stored))
    with pytest.raises(BundleError, match=r"timing\.json"):
        Amounts.load(tmp_path, 2)


def test_the_size_of_the_next_basket_counts_items_and_units_of_a_day():
    """Two baskets on day 1 are one purchase of 3 items; an unknown quantity is 1."""
    log = replace(
        log_of(
            [[(1, 1, 1.0), (1, 2, 1.0), (1, 3, 1.0), (4, 1, 1.0)], [(2, 1, 1.0)]],
            quantities=[2, NAN, 4, 5, 3],
        ),
        baskets=np.array([0, 0, 1, 2, 0], dtype=np.int32),
    )
    size = BasketSize(
        items=ShrunkMean(mean=2.0, weight=1.0), units=ShrunkMean(mean=4.0, weight=2.0)
    )
    assert size.expected_items(log, moment(9)) == pytest.approx([(2 + 4) / 3, (2 + 1) / 2])
    assert size.expected_units(log, moment(9)) == pytest.approx([(8 + 12) / 4, (8 + 3) / 3])
    assert size.expected_items(log, moment(1)) == pytest.approx([2, 2])
    assert size.expected_units(replace(log, quantities=None), moment(9)) is None
    fitted = BasketSize.fitted(log, moment(9))
    assert fitted.units is not None
    assert BasketSize.fitted(replace(log, quantities=None), moment(9)).units is None
    assert 1 < fitted.items.mean < 2


def test_personal_means_are_fitted_on_what_lies_before_the_moment():
    late = log_of([[(1, 1, 4.0), (5, 1, 12.0)], [(2, 2, 8.0), (3, 2, 9.0), (9, 1, 1e6)]])
    early = late.keep(late.times < moment(9))
    assert Amounts.fitted(late, moment(9)).value == Amounts.fitted(early, moment(99)).value
