"""The report: whole, true to the bundle, safe with any id, and without anything from elsewhere."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import polars as pl
import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.cli.app import main
from nextbuy.errors import BundleError
from nextbuy.report import write_report
from tests.shop import shop_log

EVIL = '<script>alert("1")</script>'
SECTIONS = ("short", "data", "protocol", "leaderboard", "blend", "calibration", "gains", "slices",
            "times", "amounts", "audiences", "customers", "caveats")  # fmt: skip


class Page(HTMLParser):
    """Tags, their attributes and the text, as a browser sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A shop where one customer and one item have a dangerous name."""
    log = shop_log().with_columns(
        pl.col("user_id").replace("u3", EVIL), pl.col("item_id").replace("soap", EVIL)
    )
    folder = tmp_path_factory.mktemp("bundle")
    config = PredictorConfig(models=("popularity", "personal-frequency", "markov"))
    Predictor.fit(log, config=config).save(folder)
    return folder


@pytest.fixture(scope="module")
def text(bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    assert write_report(bundle, out) == out
    return out.read_text(encoding="utf-8")


def test_all_sections_are_there_and_every_link_leads_to_one(text):
    page = Page(text)
    assert page.open == []  # every tag is closed
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids == list(SECTIONS)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS]


def test_nothing_comes_from_elsewhere_and_no_script_can_run(text):
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"url\(", text)


def test_a_dangerous_name_is_shown_as_text(text):
    assert EVIL not in text
    assert EVIL in Page(text).text


def test_the_pictures_are_whole(text):
    drawn = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawn) == 6  # leaderboard, calibration, gains, two of times, audiences
    for picture in drawn:
        assert ElementTree.fromstring(picture).tag.endswith("svg")  # noqa: S314  (our own)


def test_the_numbers_are_those_of_the_bundle(bundle, text):
    facts = Predictor.load(bundle).facts
    words = Page(text).text
    for row in facts["leaderboard"]:
        low, high = row["intervals"]["ndcg@10"]
        assert f"{row['test']['ndcg@10']:.4f} {low:.4f} – {high:.4f}" in words
    rows = facts["rows"]
    assert f"{rows['in']:,} rows were read: {rows['kept']:,} kept" in words
    best = facts["evaluation"]["blend"]
    assert f"5 {100 * best['gains']['5']:.1f} %" in words
    for name, row in best["slices"].items():
        assert f"{name} {row['n']:,} " in words
    blend = next(row["test"] for row in facts["leaderboard"] if row["model"] == "blend")
    assert f"({blend['ece_by_chance']:.3f} is luck: as much if every probability were" in words
    assert f"{100 * facts['blend']['repeat_share']:.1f} % of the validation purchases" in words


def test_the_forecasts_of_times_are_shown_as_they_were_scored(bundle, text):
    timing = Predictor.load(bundle).facts["timing"]
    words = Page(text).text
    blend = timing["scores"]["blend"]
    assert f"held {100 * blend['coverage_80']:.1f} %" in words
    said, came = blend["p_buy_7d"], blend["bought_7d"]
    assert f"within 7 days {100 * said:.1f} % {100 * came:.1f} %" in words
    for name, scores in timing["scores"].items():
        assert f"{scores['log_likelihood']:.4f} {scores['quantile_loss']:.3f}" in words, name
    assert "too short to see what comes within 30 and 90 days" in words


def test_amounts_are_shown_as_they_were_scored(bundle, text):
    amount = Predictor.load(bundle).facts["timing"]["amount"]
    words = Page(text).text
    for name, found in amount["test"].items():
        said, came = (found[key] / found["num_users"] for key in ("said", "came"))
        label = {"items": "items in it", "units": "units in it"}.get(name, name)
        share = f" {100 * amount['weights'][name]:.0f} %" if name in amount["weights"] else ""
        assert f"{label}{share} {said:,.2f} {came:,.2f} {found['mae']:,.2f}" in words
    blend = amount["test"]["blend"]
    assert f"{blend['num_users']:,} customers who bought in the test" in words
    off = blend["came"] / blend["said"] - 1
    assert f"{100 * abs(off):.1f} % {'more' if off >= 0 else 'less'} than said" in words


def test_audiences_are_shown_as_they_were_scored(bundle, text):
    found = Predictor.load(bundle).facts["audience"]["test"]
    words = Page(text).text
    days = found["horizons"][len(found["horizons"]) // 2]
    rows = [row for row in found["targets"] if row["days"] == days and row["num_buyers"]]
    assert rows
    for row in rows:
        lifts = [f"{row[name]['lift'][0]:.2f}" for name in ("audience", "frequency", "recency")]
        precision = 100 * row["audience"]["precision"][0]
        shown = f"{row['name']} {100 * row['bought']:.1f} % {100 * row['probability']:.1f} %"
        assert f"{shown} {row['ece']:.3f} {precision:.1f} % {' '.join(lifts)}" in words
    lift = sum(row["audience"]["lift"][0] for row in rows) / len(rows)
    assert f"The first tenth bought {lift:.1f} times as often" in words


def test_where_there_are_no_forecasts_the_reason_is_shown(bundle, tmp_path):
    predictor = Predictor.load(bundle)
    for timing, expected in (({"reason": "time is only an order"}, True), ({}, False)):
        predictor.facts["timing"] = timing
        predictor.save(tmp_path / str(expected))
        words = Page(write_report(tmp_path / str(expected), tmp_path / "r.html").read_text()).text
        assert ("no forecasts of times: time is only an order" in words) == expected
        assert ("When they come back" in words) == expected


def test_the_command_writes_it_and_says_where(bundle, tmp_path, capsys):
    out = tmp_path / "r.html"
    with pytest.raises(SystemExit) as left:
        main(["report", str(bundle), "--out", str(out), "--json"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out) == {
        "report": str(out), "bytes": out.stat().st_size,
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_a_world_shows_its_limit_and_leaving_last_out_its_warning(tmp_path):
    config = PredictorConfig(models=("popularity",))
    predictor = Predictor.fit("world:uniform", config=config, users=300)
    predictor.save(tmp_path / "world")
    limit = predictor.facts["limit"]
    words = Page(write_report(tmp_path / "world", tmp_path / "w.html").read_text()).text
    assert f"nothing could be right more often than {100 * limit['accuracy']:.1f} %" in words
    assert "limit of this world" in words
    assert "What the blend leans on" not in words

    config = PredictorConfig(models=("popularity",), split="leave-last-out")
    Predictor.fit(shop_log(), config=config).save(tmp_path / "last")
    words = Page(write_report(tmp_path / "last", tmp_path / "l.html").read_text()).text
    assert "lets a model learn from what others bought later" in words


def test_a_bundle_without_scores_is_refused(tmp_path):
    predictor = Predictor.fit(shop_log(), config=PredictorConfig(models=("popularity",)))
    del predictor.facts["evaluation"]
    predictor.save(tmp_path / "old")
    with pytest.raises(BundleError, match="lacks evaluation, which a report shows; train again"):
        write_report(tmp_path / "old", tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
