"""Numbers as people read them."""

import math

import pytest

from nextbuy.service.page import words


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.1682, "16.8\u00a0%"), (0, "0.0\u00a0%"), (1, "100.0\u00a0%"), (0.0004, "<0.1\u00a0%"),
        (0.9996, ">99.9\u00a0%"), (0.0005, "0.1\u00a0%"), (None, "–"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_what_can_happen_is_never_said_to_be_impossible_or_certain(share, shown):
    assert words.percent(share) == shown


@pytest.mark.parametrize(
    ("days", "shown"),
    [
        (0.02, "within the hour"), (1 / 24, "1 hour"), (0.34, "8 hours"), (1.0, "1 day"),
        (2.22, "2.2 days"), (41.3, "41 days"), (731, "2 years"), (913, "2.5 years"),
        (math.inf, "rather never"), (math.nan, "–"), (None, "–"),
    ],
)  # fmt: skip
def test_durations_have_the_unit_that_fits(days, shown):
    assert words.duration(days) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234.5, "1,234.50"), (83_996.04, "83,996"), (-3, "-3.00"), (None, "–"), (math.inf, "–")],
)
def test_money_has_no_currency_and_large_sums_no_cents(value, shown):
    assert words.money(value) == shown


def test_moments_are_utc_and_those_without_a_date_are_numbers():
    assert words.moment(1_735_601_446_606_477) == "30 Dec 2024, 23:30"
    assert words.day(0) == "1 Jan 1970"
    assert words.day(10**19) == str(10**19)
    assert words.moment(None) == "–"


def test_stored_moments_are_read_with_their_zone():
    assert words.written("2024-12-31T01:30:00+02:00") == "30 Dec 2024, 23:30"
    assert words.written("2024-12-31") == "31 Dec 2024, 00:00"
    assert words.written("yesterday") == "yesterday"
    assert words.written(None) == "–"
