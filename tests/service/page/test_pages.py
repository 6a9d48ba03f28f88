"""What the pages say, without a browser."""

import math
import re
import time
from html import unescape

import pytest

from nextbuy.errors import OverloadedError, StoreError, StoreUnavailableError
from nextbuy.service.live.protocol import Offer
from nextbuy.service.page.parts import Counters
from tests.service.page.client import Client
from tests.service.page.doubles import (
    CATALOG,
    DAY,
    FORECAST,
    NOW,
    KnownModel,
    app_of,
    catalog_of,
    parts_of,
    stored,
)


def client_of(live=None, **more) -> Client:
    return Client(app_of(parts_of(live or KnownModel(), **more)))


def words_of(html: str) -> str:
    """What a person reads, in one line."""
    text = re.sub(r"<(title|desc)>.*?</\1>", " ", html)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())


def page_of(client: Client, address: str, status: int = 200) -> str:
    response = client.get(address)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return words_of(response.text)


def test_the_first_page_says_what_this_is_and_where_to_search():
    client = client_of(examples=lambda: ["anna", "a&b"])
    text = page_of(client, "/")
    assert "what they buy next and where" in text
    assert "41 live purchases stored" in text
    html = client.get("/").text
    assert 'action="/page/user"' in html
    assert '<a href="/page/user?id=a%26b">' in html


def test_a_customer_has_a_past_a_next_and_a_return():
    text = page_of(client_of(), "/page/user?id=anna")
    assert "from 14 Jun 2024 to 29 Dec 2024 ; most often tea , 3 times" in text
    assert "What they bought 5 purchases" in text
    assert "1 since the model was made" in text
    assert "tea 40.0 % Shop food bought 3x" in text
    assert "1.5 days one in ten is back by then 12 days half of them are 41 days nine" in text
    assert "within 7 days 30.0 %" in text
    assert "Days count from 31 Dec 2024, 2 days after their last purchase." in text
    assert "1,234.50 expected spend within 90 days" in text


def test_the_time_line_can_be_cut_by_platform():
    client = client_of()
    by_platform = client.get("/page/user?id=anna&by=platform").text
    assert re.findall(r">(Shop|Corner)</text>", by_platform) == ["Shop", "Corner"]
    by_default = client.get("/page/user?id=anna&by=nonsense").text
    assert re.findall(r">(food|home)</text>", by_default) == ["food", "home"]


def test_who_is_unknown_gets_what_everybody_buys_and_no_forecast():
    text = page_of(client_of(), "/page/user?id=0042")
    assert "No purchases of 0042 are known" in text
    assert "what everybody buys" in text
    assert "Nobody can say when somebody comes back who was never here" in text


@pytest.mark.parametrize("query", ["", "?id=", "?id=" + "a" * 257, "?id=a%00b", "?id=a%0Ab"])
def test_ids_that_cannot_be_are_refused_in_words(query):
    text = page_of(client_of(), f"/page/user{query}", 422)
    assert "A customer id has 1 to 256 bytes" in text


@pytest.mark.parametrize("user", ["..", "a/b", "a?b#c", "é %2e", "+", "&id=x", "<b>"])
def test_any_id_can_be_looked_up_and_is_shown_as_it_is(user):
    live = KnownModel(histories={user: [stored(user, "tea", 3)]})
    client = client_of(live, examples=lambda: [user])
    link = re.search(r'For example <a href="([^"]*)"', client.get("/").text)
    text = page_of(client, unescape(link[1]))
    assert f"Customer {user} What they bought" in text


def test_without_dates_the_reason_stands_where_the_forecast_would():
    text = page_of(
        client_of(KnownModel(without_dates=True, card={"time_kind": "order"})), "/page/user?id=anna"
    )
    assert "When they come back A forecast was asked of purchases whose time is only an" in text
    assert "from 14 Jun" not in text
    assert "oldest newest" in text


def test_who_may_never_return_has_no_date():
    forecast = {**FORECAST, "days_to_next_p90": math.inf, "expected_spend_90d": None}
    text = page_of(client_of(KnownModel(forecasts=forecast)), "/page/user?id=anna")
    assert "rather never fewer than nine in ten ever do" in text
    assert "nothing is known of prices" in text


def test_a_forecast_that_knows_nothing_says_so():
    nothing = dict.fromkeys(FORECAST)
    text = page_of(client_of(KnownModel(forecasts=nothing)), "/page/user?id=anna")
    assert "purchases lie after the moment of the forecast" in text


def test_rules_that_leave_nothing_are_told():
    text = page_of(client_of(KnownModel(offers=())), "/page/user?id=anna")
    assert "Nothing is offered: the rules of the shop allow nothing" in text


def test_without_a_model_what_a_customer_bought_is_shown_and_that_there_is_none():
    text = page_of(client_of(KnownModel(version=None), catalog=None), "/page/user?id=anna")
    assert "What they bought 5 purchases, from 14 Jun 2024 to 29 Dec 2024" in text
    assert "1 told to the service" in text
    assert "What comes next No model is loaded. Purchases are taken and kept" in text
    assert "When they come back No model is loaded that could say when." in text


def test_without_a_model_who_is_unknown_is_so_still():
    text = page_of(client_of(KnownModel(version=None), catalog=None), "/page/user?id=0042")
    assert "No purchases of 0042 are known" in text
    assert "No model is loaded." in text


@pytest.mark.parametrize("path", ["try", "audience", "model"])
def test_without_a_model_every_page_that_needs_one_says_so(path):
    response = client_of(KnownModel(version=None), catalog=None).get(f"/page/{path}")
    assert response.status_code == 503
    assert "No model is loaded" in words_of(response.text)


def test_without_a_model_the_first_page_still_counts_purchases():
    text = page_of(client_of(KnownModel(version=None), catalog=None), "/")
    assert "No model is loaded. Purchases are taken and kept" in text
    assert "41 live purchases stored" in text


@pytest.mark.parametrize(
    ("error", "title", "retry"),
    [
        (StoreUnavailableError("disk full at /secret", 2.5), "The store is away", "3"),
        (OverloadedError("many", 1.0), "Too much at once", "1"),
        (StoreError("damaged at /secret"), "The store cannot be used", None),
    ],
)
def test_what_fails_inside_is_told_without_details(error, title, retry):
    response = client_of(KnownModel(error=error)).get("/page/user?id=anna")
    assert response.status_code == 503
    assert title in words_of(response.text)
    assert "secret" not in response.text
    assert response.headers.get("retry-after") == retry


def test_counters_that_cannot_be_read_leave_the_first_page_standing():
    def away() -> Counters:
        raise StoreUnavailableError("away")

    text = page_of(client_of(counters=away), "/")
    assert "The store is away" in text
    assert "– live purchases stored" in text


def test_counters_are_polled_as_json():
    assert client_of().get("/page/counters").json() == {
        "purchases": 41, "predictions": 7, "sequence": 17,
    }  # fmt: skip


def test_a_made_up_history_becomes_a_question_in_time_order():
    live = KnownModel()
    address = "/page/try?item=milk&platform=Corner&days=1&item=tea&platform=&days=10.5&item=&days=3"
    text = page_of(client_of(live), address)
    assert "tea 40.0 %" in text
    asked = live.asked[0].history
    assert [(p.item_id, p.platform, p.category, p.timestamp) for p in asked] == [
        ("tea", "Shop", "food", NOW - 21 * DAY // 2), ("milk", "Corner", "food", NOW - DAY),
    ]  # fmt: skip


def test_what_the_catalog_lacks_is_named():
    text = page_of(client_of(), "/page/try?item=xyzzy&days=1")
    assert "Not in the model's catalog, so they count for nothing here: xyzzy" in text


@pytest.mark.parametrize("days", ["-1", "soon", "nan", "inf", "1e9"])
def test_days_that_cannot_be_are_refused_beside_the_form(days):
    response = client_of().get(f"/page/try?item=tea&days={days}")
    assert response.status_code == 422
    assert "Days ago go from 0 to 3650" in words_of(response.text)
    assert 'value="tea"' in response.text


def test_a_made_up_history_of_thirteen_is_too_long():
    query = "&".join(f"item=tea&days={n}" for n in range(13))
    response = client_of().get(f"/page/try?{query}")
    assert response.status_code == 422
    assert response.text.count('name="item"') == 12


def test_the_form_asks_for_the_platform_only_where_the_item_leaves_it_open():
    assert 'name="platform"' in client_of().get("/page/try").text
    one_each = catalog_of(("tea", "Shop", "food"), ("milk", "Corner", None))
    assert 'name="platform"' not in client_of(catalog=one_each).get("/page/try").text


def test_suggestions_begin_with_what_begins_so_then_what_is_bought_most():
    client = client_of()
    found = client.get("/page/items", params={"q": "TEA"}).json()["items"]
    assert found == [
        {"item_id": "tea", "about": "Shop, food"}, {"item_id": "green tea", "about": "Shop, food"},
    ]  # fmt: skip
    assert client.get("/page/items", params={"q": ".*"}).json()["items"] == []
    assert client.get("/page/items", params={"q": "a" * 257}).json()["items"] == []
    assert [i["item_id"] for i in client.get("/page/items").json()["items"]][:2] == ["tea", "milk"]


def test_suggestions_follow_the_bundle_that_answers():
    now = [CATALOG]
    client = Client(app_of(parts_of(KnownModel(), catalog=None)))
    assert client.get("/page/items?q=tea").json()["items"] == []
    parts = parts_of(KnownModel())
    object.__setattr__(parts, "catalog", lambda: now[0])
    client = Client(app_of(parts))
    assert len(client.get("/page/items?q=tea").json()["items"]) == 2
    now[0] = catalog_of(("teapot", None, None))
    assert [i["item_id"] for i in client.get("/page/items?q=tea").json()["items"]] == ["teapot"]


def test_the_audience_form_knows_what_there_is():
    html = client_of().get("/page/audience").text
    assert re.findall(r'name="kind" value="(\w+)"', html) == ["platform", "category", "item"]
    assert re.findall(r'<option value="(Shop|Corner|food|home)"', html) == [
        "Shop", "Corner", "food", "home",
    ]  # fmt: skip
    bare = client_of(catalog=catalog_of(("tea", None, None))).get("/page/audience").text
    assert re.findall(r'name="kind" value="(\w+)"', bare) == ["item"]


CARD = {
    "version": "000007",
    "created": "2024-12-31T01:30:00+00:00",
    "level": "item",
    "sizes": {"items": 1642, "users": 500, "purchases": 39522},
    "time_kind": "dates",
    "models": [
        {"model": "popularity", "validation": {"loss": 6.1},
         "test": {"loss": 6.2, "accuracy": 0.02}, "intervals": {}},
        {"model": "blend", "validation": {"loss": 4.1},
         "test": {"loss": 4.2, "accuracy": 0.186, "hit_rate@10": 0.59, "ece": 0.04},
         "intervals": {"accuracy": [0.15, 0.22]}},
    ],
    "blend_weights": {"repeat_share": 0.6687,
                      "choice": {"personal-frequency": 0.97, "markov": 0.03},
                      "repeat": {"personal-frequency": 1.0, "popularity": 0.001}, "explore": {}},
    "limit": {"accuracy": 0.3138, "loss": 3.0},
    "protocol": {
        "split": "temporal", "description": "One moment for all.", "warning": None, "level": "item",
        "repeat": "allow", "candidates": "all 5 items of the catalog",
    },
    "calibration": {"counts": [3, 0, 1], "confidence": [0.2, None, 0.8],
                    "accuracy": [0.25, None, 0.5]},
    "timing": {"reason": None, "horizons": [7],
               "scores": {"coverage_80": 0.794, "p_buy_7d": 0.762, "bought_7d": 0.766}},
    "data": {"first": "2023-01-02T09:00:00+00:00", "last": "2024-12-30T23:00:00+00:00",
             "repeat_share": 0.6637},
    "versions": {"nextbuy": "0.1.0"},
}  # fmt: skip


def test_the_model_card_says_how_good_it_was_and_what_it_leans_on():
    text = page_of(client_of(KnownModel(card=CARD)), "/page/model")
    assert "18.6 % of first offers were in the next basket" in text
    assert "2 Jan 2023 to 30 Dec 2024" in text
    assert "made 31 Dec 2024, 01:30" in text
    assert "18.6 % 15.0 % – 22.0 %" in text
    assert text.index("blend all of them") < text.index("popularity what sells best")
    assert "limit what the truth itself would score 31.4 %" in text
    assert "how often this customer bought it personal-frequency 97.0 %" in text
    # (3 * .2 + .8) / 4 and (3 * .25 + .5) / 4
    assert "blend gave its first offer 35.0 %, and 31.2 % of the purchases were it" in text
    assert "should hold 80 % of the returns held 79.4 %" in text
    assert "Within 7 days 76.6 % came back; said were 76.2 %" in text


@pytest.mark.parametrize("missing", [*CARD, "everything"])
@pytest.mark.parametrize("instead", ["nothing", None])
def test_a_bundle_that_lacks_facts_still_has_a_card(missing, instead):
    gone = set(CARD) if missing == "everything" else {missing}
    card = {key: value for key, value in CARD.items() if key not in gone}
    card |= dict.fromkeys(gone) if instead is None else {}
    assert "The model that answers" in page_of(client_of(KnownModel(card=card)), "/page/model")


def test_style_and_script_are_kept_by_the_browser_until_they_change():
    client = client_of()
    address = re.search(r'href="(/page/style.css\?v=\w+)"', client.get("/").text)[1]
    first = client.get(address)
    assert first.headers["content-type"].startswith("text/css")
    assert "immutable" in first.headers["cache-control"]
    again = client.get(address, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/page/style.css?v=old").headers["cache-control"] == "no-cache"
    other = client.get("/page/script.js", headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200


def test_pages_allow_nothing_but_our_own():
    headers = client_of().get("/").headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"


def test_no_template_has_script_or_style_inside():
    client = client_of(KnownModel(card=CARD))
    for path in ("/", "/page/user?id=anna", "/page/try?item=tea", "/page/audience", "/page/model"):
        html = client.get(path).text
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|https?://", html), path
        assert re.findall(r"<script[^>]*>[^<]*", html) == [
            re.search(r'<script src="/page/script.js\?v=\w+" defer>', html)[0]
        ]


def test_a_history_of_just_as_many_as_are_shown_is_not_called_the_newest_of_more():
    rows = [stored("busy", "tea", 500 - n) for n in range(500)]
    text = page_of(client_of(KnownModel(histories={"busy": rows})), "/page/user?id=busy")
    assert "What they bought 500 purchases, from" in text


def test_a_long_history_is_drawn_in_a_few_milliseconds():
    many = [stored("busy", f"item {n % 50}", 501 - n) for n in range(501)]
    live = KnownModel(histories={"busy": many}, offers=[
        Offer(item_id=f"i{n}", platform=None, category=None, probability=0.01, reason=None)
        for n in range(10)
    ])  # fmt: skip
    client = client_of(live)
    client.get("/page/user?id=busy")
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        client.get("/page/user?id=busy")
        taken.append(time.perf_counter() - started)
    assert "the newest 500 purchases" in words_of(client.get("/page/user?id=busy").text)
    assert min(taken) < 0.25
