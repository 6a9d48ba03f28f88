"""The page in a real browser: no violation of its policy, no error, usable by keyboard and small.

Skipped only where Chromium is missing.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nextbuy.service.guard.keys import add_key
from nextbuy.service.live.protocol import Offer
from nextbuy.service.page.parts import Counters
from tests.service.page.conftest import served
from tests.service.page.doubles import HISTORIES, KnownModel, app_of, catalog_of, parts_of, stored
from tests.service.page.payloads import PAYLOADS
from tests.service.page.test_pages import CARD
from tests.service.page.test_sessions import guarded

PATHS = ("/", "/page/user?id=anna", "/page/user?id=nobody", "/page/try?item=tea&days=3",
         "/page/audience", "/page/model", "/page/sign-in", "/page/nowhere?id=")  # fmt: skip
HOSTILE = [stored("evil", name, 100 - n, platform=name, category=name, sequence=n % 2)
           for n, name in enumerate(PAYLOADS)]  # fmt: skip


@dataclass
class World:
    """What the server answers; tests look at what it was asked."""

    audiences: list[tuple[dict[str, object], str | None]] = field(default_factory=list)
    looks: int = 0
    counted: int = 41
    is_stopped: bool = False


def application(world: World):
    live = KnownModel(
        histories={**HISTORIES, "evil": HOSTILE, **dict.fromkeys(PAYLOADS, HOSTILE[:3])},
        offers=[
            *(Offer(item_id=n, platform=n, category=n, probability=0.009, reason=n)
              for n in PAYLOADS),
        ],
        card=CARD,
    )  # fmt: skip
    catalog = catalog_of(
        ("tea", "Shop", "food"), ("green tea", "Shop", "food"), ("milk", "Corner", "food"),
        ("milk", "Shop", "food"), *((name, name, name) for name in PAYLOADS),
    )  # fmt: skip

    async def begin(request: Request) -> Response:
        world.audiences.append((await request.json(), request.headers.get("x-nextbuy-token")))
        world.looks, world.is_stopped = 0, False
        return JSONResponse(_job("waiting", 0.0), status_code=202)

    async def job(request: Request) -> Response:
        if request.method == "DELETE":
            world.is_stopped = True
            return JSONResponse(_job("running", 0.5))
        world.looks += 1
        target = next(iter(world.audiences[-1][0].values()))
        if world.is_stopped:
            return JSONResponse(_job("cancelled", 0.5))
        if target == "nothing":
            return JSONResponse({**_job("failed", 0.2), "detail": "<b>No such platform</b>."})
        if target == "slow" or world.looks < 3:
            return JSONResponse(_job("running", 0.5))
        return JSONResponse({**_job("done", 1.0), "rows": len(PAYLOADS)})

    async def result(request: Request) -> Response:
        if request.query_params["format"] == "csv":
            return Response("user_id\r\nanna\r\n", media_type="text/csv")
        lines = [
            f'{{"rank":{n + 1},"user_id":{_json(name)},"probability":0.25,"expected_value":null}}\n'
            for n, name in enumerate(PAYLOADS)
        ]
        return Response("".join(lines), media_type="application/x-ndjson")

    def counters() -> Counters:
        return Counters(purchases=world.counted, predictions=7, sequence=17)

    parts = parts_of(live, catalog=catalog, counters=counters, examples=lambda: PAYLOADS)
    return app_of(
        parts,
        routes=[
            Route("/v1/audience", begin, methods=["POST"]),
            Route("/v1/jobs/{job_id}", job, methods=["GET", "DELETE"]),
            Route("/v1/jobs/{job_id}/result", result),
        ],
    )


def _job(state: str, progress: float) -> dict[str, object]:
    return {"id": "a b?1", "state": state, "progress": progress, "rows": None, "detail": None}


def _json(text: str) -> str:
    return JSONResponse(text).body.decode()


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def address(world) -> Iterator[str]:
    with served(application(world)) as found:
        yield found


@contextmanager
def visit(browser, address, **options):
    """A page of a new browser profile; whatever it complains of, fails the test at the end."""
    context = browser.new_context(base_url=address, **options)
    complaints: list[str] = []
    context.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    context.on("weberror", lambda e: complaints.append(f"error: {e.error}"))
    context.on("dialog", lambda d: (complaints.append(f"dialog: {d.message}"), d.dismiss()))
    context.on("request", lambda r: None if r.url.startswith((address, "data:")) else
               complaints.append(f"request: {r.url}"))  # fmt: skip
    page = context.new_page()
    try:
        yield page
        assert complaints == []
    finally:
        context.close()


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as found:
        yield found


@pytest.mark.parametrize("path", PATHS[:-1])
def test_pages_violate_nothing_and_log_no_error(page, path):
    page.goto(path)
    page.wait_for_load_state("networkidle")
    assert page.locator("main h1").count() == 1
    assert page.evaluate("getComputedStyle(document.querySelector('.top')).display") == "block"


def test_S40_a_hundred_hostile_names_do_nothing(browser, address):
    with visit(browser, address) as page:
        typed = "&".join(f"item={quote(name)}" for name in PAYLOADS[:12])
        for path in ("/", "/page/user?id=evil", "/page/user?id=evil&by=item", "/page/audience",
                     f"/page/try?{typed}"):  # fmt: skip
            page.goto(path)
            for event in ("mouseover", "focus", "click", "error", "toggle"):
                page.evaluate(
                    "kind => document.querySelectorAll('main *:not(a, button, input, summary)')"
                    ".forEach(one => one.dispatchEvent(new Event(kind)))",
                    event,
                )
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.querySelectorAll('script').length") == 1
        page.goto("/page/user?id=evil")
        shown = page.locator(".offers .name").all_text_contents()
        assert shown == PAYLOADS


def test_S40_hostile_ids_are_found_by_their_links(browser, address):
    with visit(browser, address) as page:
        page.goto("/")
        links = page.locator(".hero a").evaluate_all("all => all.map(one => one.href)")
        assert len(links) == len(PAYLOADS)
        for name, link in list(zip(PAYLOADS, links, strict=True))[::9]:
            page.goto(link)
            assert page.locator("h1 bdi").text_content() == name


def test_a_customer_is_found_by_keyboard_alone(page):
    page.goto("/page/model")
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.evaluate("one => one === document.activeElement")
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.goto("/")
    assert page.evaluate("document.activeElement.id") == "user"
    page.keyboard.type("anna")
    page.keyboard.press("Enter")
    page.wait_for_url("**/page/user?id=anna")
    assert page.locator("h1 bdi").text_content() == "anna"


def test_whatever_has_the_focus_shows_it(page):
    page.goto("/page/try")
    seen = set()
    for _ in range(16):
        page.keyboard.press("Tab")
        name, width = page.evaluate(
            "(() => { const one = document.activeElement;"
            " return [one.tagName, parseFloat(getComputedStyle(one).outlineWidth)]; })()"
        )
        seen.add(name)
        assert width >= 2 or name == "BODY"
    assert {"A", "INPUT", "BUTTON"} <= seen


def test_every_field_has_a_label(page):
    for path in PATHS[:-1]:
        page.goto(path)
        bare = page.evaluate(
            "[...document.querySelectorAll('input:not([type=hidden])')]"
            ".filter(one => !one.labels.length).length"
        )
        assert bare == 0
        assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [320, 375, 768])
def test_narrow_screens_do_not_scroll_sideways(browser, address, width):
    with visit(browser, address, viewport={"width": width, "height": 700}) as page:
        for path in (*PATHS[:-1], "/page/user?id=evil"):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_dark_is_dark_and_light_is_light(browser, address):
    found = {}
    for scheme in ("light", "dark"):
        with visit(browser, address, color_scheme=scheme) as page:
            page.goto("/page/user?id=anna")
            found[scheme] = page.evaluate(
                "['body', 'section', 'svg .dot', 'h1'].map(name => { const style ="
                " getComputedStyle(document.querySelector(name));"
                " return [style.backgroundColor, style.color, style.fill].join(); })"
            )
    assert all(a != b for a, b in zip(found["light"], found["dark"], strict=True))
    assert found["dark"][0].startswith("rgb(17, 22, 27)")


def test_suggestions_come_while_one_types(page):
    page.goto("/page/try")
    with page.expect_response("**/page/items?q=green**"):
        page.locator("[name=item]").first.press_sequentially("green")
    page.wait_for_function("document.querySelectorAll('#items option').length === 1")
    assert page.locator("#items option").get_attribute("value") == "green tea"


def test_rows_can_be_added_up_to_the_limit(page):
    page.goto("/page/try")
    assert page.locator(".row").count() == 3
    for _ in range(9):
        page.get_by_role("button", name="Add a purchase").click()
    assert page.locator(".row").count() == 12
    assert page.get_by_role("button", name="Add a purchase").count() == 0
    page.locator("[name=item]").last.fill("tea")
    page.get_by_role("button", name="Predict").click()
    page.wait_for_url("**/page/try?**")
    assert page.locator(".offers li").count() == len(PAYLOADS)


def test_an_audience_is_built_followed_and_downloaded(page, world):
    page.goto("/page/audience")
    page.locator("[name=target]").fill("Shop")
    page.locator("[name=size]").fill("50")
    page.locator("[name=holdout]").fill("10")
    page.get_by_role("button", name="Build").click()
    link = page.get_by_role("link", name="Download as CSV")
    link.wait_for()
    assert world.audiences[-1][0] == {
        "platform": "Shop", "within_days": 30, "size": 50, "holdout_share": 0.1,
    }  # fmt: skip
    assert link.get_attribute("href") == "/v1/jobs/a%20b%3F1/result?format=csv"
    assert page.locator("[data-job-words]").text_content().startswith("100 customers")
    page.locator("[data-job-preview] tbody tr").first.wait_for()
    cells = page.locator("[data-job-preview] tbody tr td:nth-child(2)").all_text_contents()
    assert cells == PAYLOADS[:10]
    assert page.locator("[data-job-preview] tbody tr").first.locator("td").all_text_contents() == [
        "1", PAYLOADS[0], "25.0\u00a0%", "–",
    ]  # fmt: skip


def test_an_audience_that_fails_says_why_and_one_that_is_slow_can_be_stopped(page, world):
    page.goto("/page/audience")
    page.locator("[name=target]").fill("nothing")
    page.get_by_role("button", name="Build").click()
    words = page.locator("[data-job-words]")
    page.get_by_text("There is no audience").wait_for()
    assert words.text_content() == "<b>No such platform</b>."
    page.get_by_label("A category").check()
    page.locator("[name=target]").fill("slow")
    page.get_by_role("button", name="Build").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("The work was stopped.").wait_for()
    assert world.audiences[-1][0]["category"] == "slow"


def test_counters_go_on_by_themselves(page, world):
    page.clock.install()
    page.goto("/")
    assert page.locator("[data-counter=purchases]").text_content() == "41"
    world.counted = 12_345
    try:
        page.clock.fast_forward(4_000)
        page.get_by_text("12,345").wait_for()
    finally:
        world.counted = 41


def test_without_javascript_everything_can_be_read(browser, address):
    with visit(browser, address, java_script_enabled=False) as page:
        page.goto("/")
        page.locator("#user").fill("anna")
        page.get_by_role("button", name="Show").click()
        assert page.locator("h1 bdi").text_content() == "anna"
        assert page.locator("svg.time-line circle").count() == len(HISTORIES["anna"])
        page.goto("/page/try")
        page.locator("[name=item]").first.fill("tea")
        page.get_by_role("button", name="Predict").click()
        assert page.locator(".offers li").count() == len(PAYLOADS)
        page.goto("/page/audience")
        assert "needs JavaScript" in page.locator("main").text_content()


def test_S39_a_key_opens_the_page_in_a_browser_and_signing_out_closes_it(browser, tmp_path):
    key = add_key(tmp_path / "keys.json", "marketing", ["read"])
    with served(guarded(tmp_path / "keys.json").app) as locked, visit(browser, locked) as page:
        page.goto("/page/user?id=anna")
        page.get_by_label("Key").fill(key)
        page.keyboard.press("Enter")
        page.wait_for_url("**/page/user?id=anna")
        assert page.locator("h1 bdi").text_content() == "anna"
        assert page.evaluate("document.cookie") == ""
        assert key not in str(page.context.cookies())
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/page/sign-in")
        page.goto("/")
        assert "/page/sign-in?next=" in page.url


def test_letters_stand_out_from_what_is_behind_them(page):
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for fields and pictures; by its own formula."""
    css = page.request.get("/page/style.css").text()
    for theme in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", theme))
        for front, back in (
            ("ink", "card"), ("ink", "ground"), ("soft", "card"), ("soft", "ground"),
            ("soft", "track"), ("accent", "card"), ("accent", "ground"), ("accent", "accent-soft"),
            ("accent-ink", "accent"), ("ink", "accent-soft"), ("warn", "warn-soft"),
            ("soft", "best"), ("accent", "best"),
        ):  # fmt: skip
            assert contrast(colours[front], colours[back]) >= 4.5, (front, back)
        for front, back in (("field", "card"), ("live", "card"), ("accent", "track")):
            assert contrast(colours[front], colours[back]) >= 3, (front, back)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
