"""Tables over all routes of the assembled service: who may call what, what every answer carries,
and that no secret is in any of them."""

import asyncio
import logging

import httpx
import pytest

from nextbuy.service.application import rules_of
from nextbuy.service.assembly import open_service
from nextbuy.service.config import ServiceSettings
from nextbuy.service.guard.keys import KeyRing, add_key
from tests.service.assembled import bearer, lifespan

MAY = {
    "public": {None, "bad", "read", "write", "admin"},
    "read": {"read", "admin"},
    "write": {"write", "admin"},
    "admin": {"admin"},
}
PAGES = {"/", *(f"/page/{name}" for name in ("user", "try", "audience", "model", "counters",
         "items"))}  # fmt: skip
BAD = "nb_" + "B" * 43


@pytest.fixture(scope="module")
def answers(fitted, tmp_path_factory):
    """`(rule, who, answer)` of every route with every kind of key, then of what is refused; the
    keys; and what was logged."""
    folder = tmp_path_factory.mktemp("shop")
    fitted.save(folder)
    file = folder / "keys.json"
    keys = {scope: add_key(file, scope, [scope]) for scope in ("read", "write", "admin")}
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"{record.getMessage()} {vars(record)}")
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        found = asyncio.run(_ask_all(folder, file, {**keys, "bad": BAD, None: None}))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return found, keys, lines


async def _ask_all(folder, file, keys):
    app = open_service(folder, ServiceSettings(model_process=False), KeyRing(file))
    rules = rules_of(app._app._app._app)  # the door, the guard, the short way, the routes
    found = []
    async with lifespan(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for rule in rules:
                path = rule.path.replace("{job_id}", "x").replace("{user_id:path}", "nobody")
                body = {"json": {}} if rule.method == "POST" else {}
                for who, key in keys.items():
                    told = await client.request(rule.method, path, headers=bearer(key), **body)
                    found.append((rule, who, told))
            admin = bearer(keys["admin"])
            html = {"Accept": "text/html"}
            for method, path, headers in (
                ("GET", "/nothing", admin), ("GET", "/nothing", {**admin, **html}),
                ("PUT", "/v1/model", admin), ("GET", "/v1/predict", {**admin, **html}),
                ("GET", "/v1/model", {**admin, "Host": "evil.example"}),
                ("GET", "/page/user", html), ("GET", "/page/user?id=%00", {**admin, **html}),
                ("GET", "/v1/model?x=1", admin), ("POST", "/v1/predict", admin),
                ("GET", "/metrics", admin), ("HEAD", "/v1/model", admin),
            ):  # fmt: skip
                found.append((None, "admin", await client.request(method, path, headers=headers)))
    return found


def test_S35_every_route_with_every_key(answers):
    found, _, _ = answers
    routes = {(rule.method, rule.path) for rule, _, _ in found if rule}
    assert len(routes) >= 16 + len(PAGES) + 3
    assert {path for _, path in routes} >= PAGES
    for rule, who, told in found:
        if rule is None:
            continue
        if who in MAY[rule.scope]:
            is_form = rule.path == "/page/sign-in" and rule.method == "POST"
            assert told.status_code == 403 if is_form else told.status_code not in (401, 403)
        else:
            expected = 401 if who in (None, "bad") else 403
            assert told.status_code == expected, (rule, who, told.text)
            assert told.headers["content-type"] == "application/problem+json"
    refused = {told.content for _, who, told in found if told.status_code == 401 and who}
    assert len(refused) == 1


def test_no_answer_of_any_route_is_a_failure(answers):
    for rule, who, told in answers[0]:
        assert told.status_code < 500, (rule, who, told.text)


def test_S40_every_answer_says_what_a_browser_may_do_with_it(answers):
    found, _, _ = answers
    statuses = set()
    for rule, who, told in found:
        place = (rule, who, told.request.method, told.request.url, told.status_code)
        headers = told.headers
        statuses.add(told.status_code)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy, place
        assert "frame-ancestors 'none'" in policy, place
        assert "unsafe" not in policy, place
        assert headers["x-content-type-options"] == "nosniff", place
        assert headers["referrer-policy"] in ("no-referrer", "same-origin"), place
        assert headers["cross-origin-resource-policy"] == "same-origin", place
        assert "access-control-allow-origin" not in headers, place
        is_asset = rule is not None and rule.path.startswith("/page/") and "." in rule.path
        assert ("no-store" in headers["cache-control"]) != is_asset, place
    assert statuses >= {200, 303, 401, 403, 404, 405, 415, 421, 422}


def test_S36_no_key_is_in_any_answer_or_log_line(answers):
    found, keys, lines = answers
    assert len(lines) > 100
    secrets = [key[3:] for key in keys.values()]
    for rule, who, told in found:
        shown = told.text + str(told.headers)
        assert not [secret for secret in secrets if secret in shown], (rule, who)
    assert not [line for line in lines for secret in secrets if secret in line]
