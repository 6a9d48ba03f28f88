import math
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from nextbuy.errors import MissingExtraError
from nextbuy.evaluation.pictures import (
    distance_to_limit,
    leaderboard_dots,
    reliability_diagram,
    save_png,
    save_svg,
    training_curve,
)
from nextbuy.metrics.calibration import reliability

EPOCHS = [
    {"epoch": 0, "step": 10, "train_loss": 3.5, "validation_loss": 3.25},
    {"epoch": 0, "step": 20, "loss": 9.0, "learning_rate": 0.1},
    {"epoch": 1, "step": 20, "train_loss": 3.0, "validation_loss": 3.125},
]
MODELS = {
    "popularity": {"loss": 3.82, "accuracy": 0.025},
    "lstm-rnn": {"loss": 2.92, "accuracy": 0.0934},
}
INTERVALS = {"lstm-rnn": {"accuracy": (0.09, 0.0975)}}


def drawn(chart, tmp_path):
    text = save_svg(chart, tmp_path / "new folder" / "picture.svg").read_text(encoding="utf-8")
    return ElementTree.fromstring(text)  # noqa: S314 - our own file


def words_of(chart, tmp_path):
    """Every text in the picture, and that nothing in it is fetched from elsewhere."""
    root = drawn(chart, tmp_path)
    for element in root.iter():
        assert not element.tag.endswith(("image", "script", "link"))
    return ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("text")]


def heights_of(chart, tmp_path, name):
    """Y pixels of the labels that begin with a name."""
    root = drawn(chart, tmp_path)
    found = {}
    for element in root.iter():
        if element.tag.endswith("text") and "".join(element.itertext()).startswith(name):
            inside = element.get("transform", "").removeprefix("translate(").partition(")")[0]
            found["".join(element.itertext())] = float(inside.partition(",")[2])
    return found


def test_the_training_curve_names_its_lines_its_limit_and_its_units(tmp_path):
    words = words_of(training_curve(EPOCHS, limit=2.911, title="Training of x"), tmp_path)
    for expected in (
        "Training of x", "epoch", "loss (nats)", "training 3.000", "validation 3.125",
        "limit 2.911", "1", "2",
    ):  # fmt: skip
        assert expected in words
    assert not any("9.0" in word for word in words)


def test_labels_of_lines_that_end_together_do_not_overlap(tmp_path):
    epochs = [{"epoch": e, "train_loss": 4.0 - e, "validation_loss": 4.001 - e} for e in range(3)]
    chart = training_curve(epochs)
    low = heights_of(chart, tmp_path, "training")["training 2.000"]
    high = heights_of(chart, tmp_path, "validation")["validation 2.001"]
    assert abs(low - high) >= 12  # the font is 12 pixels high


@pytest.mark.parametrize("epochs", [[], EPOCHS[:1], [{"epoch": 0, "validation_loss": 3.0}]])
def test_a_short_or_partial_log_can_be_drawn(tmp_path, epochs):
    words = words_of(training_curve(epochs), tmp_path)
    assert "epoch" in words
    assert ("validation 3.000" in words) == (len(epochs) == 1 and len(epochs[0]) == 2)


def test_the_reliability_diagram_counts_its_cases(tmp_path):
    confidence = np.array([0.1] * 30 + [0.3] * 7 + [0.01] * 4)
    found = reliability(confidence, np.arange(41) % 2)
    words = words_of(reliability_diagram(found), tmp_path)
    assert {"30", "7", "4"} <= set(words)
    assert any(f"expected calibration error {found.ece:.3f}, n = 41" in word for word in words)


def test_the_reliability_diagram_of_no_cases_is_empty_but_there(tmp_path):
    words = words_of(reliability_diagram(reliability(np.zeros(0), np.zeros(0))), tmp_path)
    assert "purchases" in words


def test_the_distance_to_the_limit_shows_every_score(tmp_path):
    words = words_of(distance_to_limit(MODELS, {"loss": 2.911, "accuracy": 0.0944}), tmp_path)
    for expected in ("popularity", "lstm-rnn", "3.820", "0.0934", "limit 2.911", "limit 0.0944"):
        assert expected in words
    assert any("lower is better" in word for word in words)
    assert any("higher is better" in word for word in words)


def test_a_score_that_is_no_number_is_said_and_not_drawn(tmp_path):
    models = MODELS | {"broken": {"loss": math.inf, "accuracy": math.nan}}
    limit = {"loss": 2.911, "accuracy": 0.0944}
    for chart in (distance_to_limit(models, limit), leaderboard_dots(models, {}, metric="loss")):
        words = words_of(chart, tmp_path)
        assert "broken" in words
        assert "none" in words


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_the_leaderboard_puts_the_best_at_the_top(tmp_path, metric):
    chart = leaderboard_dots(MODELS, INTERVALS, metric=metric, limit=0.0944)
    best = heights_of(chart, tmp_path, "lstm-rnn")["lstm-rnn"]
    worst = heights_of(chart, tmp_path, "popularity")["popularity"]
    assert best < worst


def test_a_png_is_a_png_of_the_asked_size(tmp_path):
    chart = leaderboard_dots(MODELS, INTERVALS, metric="accuracy")
    small, large = (
        save_png(chart, tmp_path / f"{scale}.png", scale=scale).read_bytes() for scale in (1, 2)
    )
    assert small.startswith(b"\x89PNG")
    width, double = (int.from_bytes(image[16:20], "big") for image in (small, large))
    assert double == pytest.approx(2 * width, abs=2)


@pytest.mark.parametrize("missing", ["altair", "vl_convert"])
def test_without_the_extra_the_way_to_install_it_is_named(monkeypatch, tmp_path, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nextbuy\[pictures\]'"):
        save_svg(training_curve(EPOCHS), tmp_path / "x.svg")
