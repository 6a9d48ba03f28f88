"""Moments as people write them."""

import pytest

from nextbuy.service.api.values import microseconds_of_text

DAY = 86_400_000_000
NOON = 19_782 * DAY + DAY // 2  # 2024-02-29T12:00:00Z: 54 years of 365 days, 13 leap days, 59 days


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-02-29T12:00:00Z", NOON),
        ("2024-02-29t12:00:00z", NOON),
        ("2024-02-29T17:30:00+05:30", NOON),
        ("2024-02-29T12:00:00.250Z", NOON + 250_000),
        ("2024-02-29T12:00:00.000001Z", NOON + 1),
        ("2024-02-29T12:00:00.5-00:00", NOON + 500_000),
        ("2024-02-29T11:59:60Z", NOON),
    ],
)
def test_usual_and_rare_ways_to_write_a_moment_mean_the_same(text, moment):
    assert microseconds_of_text(text) == moment


@pytest.mark.parametrize(
    "text",
    ["2023-02-29T12:00:00Z", "2024-02-29T24:00:00Z", "2024-02-29T12:00:00", "2024-W09-4T12:00:00Z"],
)
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ValueError, match="moment"):
        microseconds_of_text(text)
