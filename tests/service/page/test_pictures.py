"""Pictures: where things are drawn, and what is told to those who do not see them."""

import math
import re
from datetime import UTC, datetime
from xml.etree import ElementTree

import numpy as np
import pytest

from nextbuy.metrics.calibration import Reliability
from nextbuy.service.page.pictures import Mark, calibration, come_back, interval, time_line
from nextbuy.service.page.svg import bar, element, unbroken


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


def marks(*told: tuple[str, str]) -> list[Mark]:
    return [Mark(at=at(day), lane=lane, words=f"{lane} {day}", is_live=False) for day, lane in told]


def drawn(picture) -> ElementTree.Element:
    return ElementTree.fromstring(str(picture))  # noqa: S314 - our own


def places(root: ElementTree.Element, kind: str) -> list[tuple[str, str]]:
    return [(e.get("cx"), e.get("cy")) for e in root.iter("circle") if e.get("class") == kind]


def test_a_purchase_lies_at_its_share_of_the_time_in_the_lane_of_its_kind():
    root = drawn(
        time_line(
            marks(("2024-01-01", "tea"), ("2024-04-10", "soap"), ("2024-07-19", "tea")),
            dated=True, lanes_are="item",
        )
    )  # fmt: skip
    # 100 of 200 days is the middle; the ends are 1.5 % from the edges; tea is bought most, so first
    assert places(root, "dot") == [("1.50%", "27"), ("50.00%", "66"), ("98.50%", "27")]


def test_the_axis_says_months_and_not_too_many_of_them():
    labels = {}
    for last in ("2024-03-20", "2024-12-20", "2026-12-20", "2044-01-01"):
        root = drawn(time_line(marks(("2024-01-05", "a"), (last, "a")), dated=True, lanes_are="x"))
        labels[last] = [e.text for e in root.iter("text") if re.search(r" \d\d$", e.text or "")]
    assert labels["2024-03-20"] == ["Feb 24", "Mar 24"]
    assert labels["2024-12-20"] == ["Mar 24", "May 24", "Jul 24", "Sep 24", "Nov 24"]
    assert labels["2026-12-20"] == ["Jul 24", "Jan 25", "Jul 25", "Jan 26", "Jul 26"]
    assert all(len(found) <= 7 for found in labels.values())


def test_short_spans_have_days_on_the_axis_and_orders_have_neither():
    root = drawn(
        time_line(marks(("2024-01-05", "a"), ("2024-01-09", "a")), dated=True, lanes_are="x")
    )
    labels = [e.text for e in root.iter("text") if e.get("class") == "soft"]
    assert labels[:4] == ["6 Jan", "7 Jan", "8 Jan", "9 Jan"]
    order = [Mark(at=n, lane="a", words="a", is_live=False) for n in (5, 6, 100)]
    root = drawn(time_line(order, dated=False, lanes_are="x"))
    assert [x for x, _ in places(root, "dot")] == ["1.50%", "50.00%", "98.50%"]
    assert [e.text for e in root.iter("text")][:2] == ["oldest", "newest"]


def test_many_kinds_share_the_last_lane():
    told = [("2024-01-01", f"kind {n}") for n in range(20)] + [("2024-02-01", "kind 3")]
    root = drawn(time_line(marks(*told), dated=True, lanes_are="kind"))
    names = [e.text for e in root.iter("text") if e.get("class") == "lane-name"]
    assert len(names) == 8
    assert names[0] == "kind 3"
    assert names[-1] == "13 others"
    assert len(list(root.iter("circle"))) == 21


@pytest.mark.parametrize("moments", [(5,), (5, 5), (-(10**18), 10**18), (0, 10**18)])
def test_any_moments_can_be_drawn(moments):
    told = [Mark(at=m, lane="a", words="a", is_live=True) for m in moments]
    root = drawn(time_line(told, dated=True, lanes_are="x"))
    assert len(places(root, "dot live")) == len(moments)
    for x, _ in places(root, "dot live"):
        assert 0 <= float(x.rstrip("%")) <= 100


def test_pictures_say_what_they_show():
    root = drawn(time_line(marks(("2024-01-01", "tea"), ("2024-03-01", "tea")), dated=True,
                           lanes_are="item"))  # fmt: skip
    assert root.get("role") == "img"
    assert root.find("title").text == "Purchases along time"
    assert "2 purchases from 1 Jan 2024 to 1 Mar 2024, by item" in root.find("desc").text


def test_the_curve_goes_through_what_is_known_and_the_band_spans_the_interval():
    root = drawn(come_back([(2, 0.1), (5, 0.5), (8, 0.9), (7, 0.8), (30, 1.0)], (2, 5, 8)))
    # 1.15 * 8 = 9.2: the axis ends at 10 days
    curve = next(root.iter("polyline")).get("points").split()
    assert curve[:5] == ["0.00,100.00", "20.00,90.00", "50.00,50.00", "70.00,20.00", "80.00,10.00"]
    # from (8, .9) to (30, 1): at 10 days .9 + .1 * 2 / 22
    assert curve[5] == "100.00,9.09"
    band = next(e for e in root.iter("rect") if e.get("class") == "band")
    assert (band.get("x"), band.get("width")) == ("20.00%", "60.00%")
    assert "90 % within 8 days" in root.find("desc").text


def test_who_rather_never_comes_back_has_a_picture_too():
    root = drawn(come_back([(40, 0.1), (7, 0.02), (90, 0.2)], (40, math.inf, math.inf)))
    band = next(e for e in root.iter("rect") if e.get("class") == "band")
    assert (band.get("x"), band.get("width")) == ("40.00%", "60.00%")
    assert "10 % within 40 days, 50 % rather never" in root.find("desc").text
    nothing = drawn(come_back([(7, 0.0)], (math.inf, math.inf, math.inf)))
    assert nothing.find("title").text == "When they come back"


def test_calibration_draws_filled_bins_against_the_diagonal():
    found = Reliability(
        counts=np.array([4.0, 0.0, 1.0]),
        confidence=np.array([0.25, np.nan, 0.75]),
        accuracy=np.array([0.5, np.nan, 1.0]),
    )
    root = drawn(calibration(found))
    dots = [(e.get("cx"), e.get("cy"), e.get("r")) for e in root.iter("circle")]
    # the plot is 250 wide from (46, 26); radii are 3 + 9 * sqrt(share of the largest)
    assert dots == [("108.5", "151.0", "12.0"), ("233.5", "26.0", "7.5")]


def test_an_interval_ends_where_it_ends():
    root = drawn(interval(0.2, 0.1, 0.3, 0.4, "20 %"))
    line = next(e for e in root.iter("line") if e.get("class") == "range")
    assert (line.get("x1"), line.get("x2")) == ("25.00%", "75.00%")
    assert next(root.iter("circle")).get("cx") == "50.00%"


@pytest.mark.parametrize(("share", "width"), [(0.5, "50.00%"), (7, "100.00%"), (-1, "0.00%")])
def test_bars_stay_in_their_place(share, width):
    fill = next(e for e in drawn(bar(share, "x")).iter("rect") if e.get("class") == "fill")
    assert fill.get("width") == width


def test_texts_and_attributes_are_escaped():
    root = drawn(element("text", '</text><script>"&', aria_label='"><b a="'))
    assert root.text == '</text><script>"&'
    assert root.get("aria-label") == '"><b a="'
    assert str(unbroken("<b> (2024-11-26) & 1")) == (
        '&lt;b&gt; <span class="date">(2024-11-26)</span> &amp; 1'
    )
