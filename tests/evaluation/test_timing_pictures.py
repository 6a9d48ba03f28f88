import numpy as np

from nextbuy.evaluation.timing_pictures import pit_bars, reliability_by_horizon
from nextbuy.metrics.calibration import Reliability, reliability
from tests.evaluation.test_pictures import words_of


def test_every_horizon_has_its_panel_in_their_order(tmp_path):
    said = np.repeat([0.1, 0.5, 0.9], 30)
    found = {days: reliability(said, np.arange(90) % 2) for days in (7, 30, 90)}
    words = words_of(reliability_by_horizon(found), tmp_path)
    titles = [word for word in words if word.startswith("within")]
    assert titles == ["within 7 days", "within 30 days", "within 90 days"]
    assert words.count("probability said") == 3


def test_horizons_of_few_or_no_customers_can_be_drawn(tmp_path):
    found = {7: reliability(np.array([0.2]), np.ones(1)), 30: reliability(np.zeros(0), np.zeros(0))}
    assert "within 30 days" in words_of(reliability_by_horizon(found), tmp_path)


def test_each_tenth_says_its_share(tmp_path):
    shares = [0.19, 0.01, *[0.1] * 8]
    words = words_of(pit_bars(shares), tmp_path)
    assert "19.0%" in words and "1.0%" in words and words.count("10.0%") == 8


def test_a_reliability_survives_json_where_a_bin_is_empty():
    kept = reliability(np.array([0.05, 0.95]), np.array([0, 1])).as_dict()
    nulls = {name: [None if np.isnan(v) else v for v in values] for name, values in kept.items()}
    back = Reliability.of(nulls)
    assert back.ece == reliability(np.array([0.05, 0.95]), np.array([0, 1])).ece
