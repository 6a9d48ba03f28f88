"""What the page says of answers that were served and of drift, from numbers that are given."""

import math
from dataclasses import replace

import numpy as np
import pytest

from nextbuy.metrics.calibration import Reliability
from nextbuy.service.page.live_card import live_card_of
from nextbuy.service.watching.drift import Drift, Estimate
from nextbuy.service.watching.quality import LiveQuality, Quality
from tests.service.page.client import Client
from tests.service.page.doubles import DAY, NOW, KnownModel, app_of, parts_of
from tests.service.page.test_pages import CARD, words_of

NAN = Estimate(value=math.nan, low=math.nan, high=math.nan)
QUALITY = Quality(
    num_answered=40,
    hit_rate={
        1: Estimate(value=0.2, low=0.15, high=0.25),
        5: NAN,
        10: Estimate(value=0.6, low=0.5, high=0.7),
    },
    said=Estimate(value=0.18, low=0.17, high=0.19),
    came_true=Estimate(value=0.2, low=0.15, high=0.25),
    calibration_error=Estimate(value=0.03, low=0.01, high=0.06),
    reliability=Reliability(
        counts=np.array([3.0, 1.0]), confidence=np.array([0.2, 0.8]), accuracy=np.array([0.3, 0.7])
    ),
)
NOBODY = Quality(
    num_answered=0,
    hit_rate=dict.fromkeys((1, 5, 10), NAN),
    said=NAN,
    came_true=NAN,
    calibration_error=NAN,
    reliability=Reliability(
        counts=np.zeros(2), confidence=np.full(2, math.nan), accuracy=np.full(2, math.nan)
    ),
)
DRIFT = Drift(
    num_purchases=2157,
    stability={
        "item": Estimate(value=0.06, low=0.05, high=0.09),
        "platform": Estimate(value=0.2, low=0.15, high=0.25),
        "category": Estimate(value=0.5, low=0.4, high=0.6),
    },
    by_chance={"item": 0.01, "platform": 0.01, "category": 0.01},
    unknown_share=Estimate(value=0.034, low=0.026, high=0.041),
    new_user_share=Estimate(value=0.1, low=0.08, high=0.12),
)
FOUND = LiveQuality(
    now=NOW,
    since=NOW - 30 * DAY,
    window_days=14.0,
    num_served=120,
    num_left_out=0,
    fates={"answered": 40, "superseded": 30, "pending": 50, "unanswered": 0},
    overall=QUALITY,
    by_version={"000001": QUALITY},
    drift=DRIFT,
)


def page_with(found: LiveQuality | None) -> str:
    parts = parts_of(KnownModel(card=CARD), live_quality=lambda: found)
    response = Client(app_of(parts)).get("/page/model")
    assert response.status_code == 200
    return words_of(response.text)


def test_hits_and_fates_of_what_was_served_are_told_with_their_intervals():
    text = page_with(FOUND)
    assert (
        "Within 30 days 120 answers were served: 40 were answered by a purchase, 50 may still be, "
        "30 gave way to a newer answer before it. A purchase may take 14 days."
    ) in text
    assert "20.0 % of first offers were bought next (15.0 % to 25.0 %)" in text
    assert "60.0 % of lists of ten held what was bought next (50.0 % to 70.0 %)" in text
    assert "18.0 % was said of the first offer" in text
    assert "Computed within the hour" in text


def test_drift_is_judged_by_what_is_surely_beyond_chance():
    text = page_with(FOUND)
    assert "item 0.06 (0.05 to 0.09) as in training" in text
    assert "platform 0.20 (0.15 to 0.25) some has changed" in text
    assert "category 0.50 (0.40 to 0.60) much has changed" in text
    assert "Of 2,157 purchases 3.4 % (2.6 % to 4.1 %) were of items that the model has" in text
    assert "10.0 % (8.0 % to 12.0 %) of the buyers are new" in text
    few = replace(DRIFT, by_chance=dict.fromkeys(DRIFT.by_chance, 0.4))
    assert {m.verdict for m in live_card_of(replace(FOUND, drift=few), NOW).moved} == {
        "as in training"
    }


def test_versions_are_compared_where_there_were_several():
    assert "answered first offer bought" not in page_with(FOUND)
    both = replace(FOUND, by_version={"000001": QUALITY, "000002": NOBODY})
    text = page_with(both)
    assert "000002 0 – – – – 000001 40 20.0 % 60.0 % 18.0 % 20.0 %" in text


def test_before_anything_was_served_or_answered_there_is_nothing_to_boast_of():
    assert "Nothing to tell yet" in page_with(None)
    nothing = Drift(
        num_purchases=0, stability={"item": NAN}, by_chance={"item": math.nan}, unknown_share=NAN,
        new_user_share=None,
    )  # fmt: skip
    idle = replace(FOUND, num_served=0, fates={}, overall=NOBODY, by_version={}, drift=nothing)
    text = page_with(idle)
    assert "Nobody was asked about within 30 days" in text
    assert "No purchases have come in since" in text
    assert "nan" not in text


@pytest.mark.parametrize(("later", "told"), [(DAY // 2, "12 hours"), (3 * DAY, "3 days")])
def test_old_numbers_say_how_old_they_are(later, told):
    assert live_card_of(FOUND, NOW + later).as_of == f"Computed {told} ago"
