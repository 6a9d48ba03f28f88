"""What customers are worth: by hand."""

import math

import numpy as np
import pytest

from nextbuy.timing.lifetime import lifetime_value
from tests.timing.poisson import PoissonOutlook


def test_random_buyers_are_worth_the_integral_of_their_discounted_purchases():
    """Rate times value times the integral of 1.1^-t: (1 - 1.1^-years) / ln 1.1."""
    rates, value = [0.1, 0.02], np.array([20.0, 5.0])
    for days, years in ((365.25, 1), (3652.5, 10)):
        found = lifetime_value(PoissonOutlook(rates), value, days, 0.1)
        integral = (1 - 1.1**-years) / math.log(1.1) * 365.25
        assert found == pytest.approx(np.array(rates) * value * integral, rel=1e-4)


def test_without_discount_it_is_expected_spend_and_two_quarters_are_two_terms():
    outlook, value = PoissonOutlook([0.5]), np.array([4.0])
    assert lifetime_value(outlook, value, 184.0, 0.0) == pytest.approx([0.5 * 184 * 4])
    by_hand = 46 * 4 * (1.2 ** -(46 / 365.25) + 1.2 ** -(138 / 365.25))
    assert lifetime_value(outlook, value, 184.0, 0.2) == pytest.approx([by_hand])


def test_whose_value_is_not_known_is_worth_nobody_knows_what():
    found = lifetime_value(PoissonOutlook([0.5, 0.5]), np.array([np.nan, 1.0]), 10.0, 0.1)
    assert np.isnan(found[0]) and found[1] > 0
