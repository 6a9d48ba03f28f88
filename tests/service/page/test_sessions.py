"""Signing in: a key is typed once, the browser keeps a random id, and writes need a token."""

from dataclasses import replace
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from nextbuy.service.config import Limits
from nextbuy.service.guard.guard import Guard
from nextbuy.service.guard.hosts import Hosts
from nextbuy.service.guard.keys import KeyRing, add_key, remove_key
from nextbuy.service.guard.scopes import RouteTable, Rule
from nextbuy.service.page.door import Door
from nextbuy.service.page.pages import Pages
from nextbuy.service.page.routes import page_routes
from nextbuy.service.page.sessions import COOKIE, Sessions, is_token
from tests.service.page.client import Client
from tests.service.page.doubles import KnownModel, parts_of

HTML = {"accept": "text/html,application/xhtml+xml"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def guarded(path, *, clock=None, live=None) -> Client:
    """The page behind a real guard, with a route of the API beside it."""
    time = clock or Clock()
    ring = KeyRing(path, time)

    def name_of(authorization: bytes) -> str | None:
        key = ring.find(authorization)
        return key.name if key else None

    pages = Pages()
    sessions = Sessions(clock=time)
    parts = replace(
        parts_of(live or KnownModel(), sessions=sessions),
        find_key=name_of if path is not None else None,
    )
    found = page_routes(parts, pages)

    async def write(request: Request) -> JSONResponse:
        return JSONResponse({"client": request.state.client}, status_code=202)

    rules = [rule for rule, _ in found]
    rules.append(Rule(method="POST", path="/v1/audience", scope="write"))
    routes = [route for _, route in found] + [Route("/v1/audience", write, methods=["POST"])]
    guard = Guard(
        Starlette(routes=routes), rules=RouteTable(rules), keys=ring, limits=Limits(),
        hosts=Hosts("127.0.0.1"),
    )  # fmt: skip
    return Client(Door(guard, sessions=sessions, pages=pages, version=lambda: "000007"))


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys.json"
    made = {
        "reader": add_key(path, "reader", ["read"]),
        "writer": add_key(path, "writer", ["read", "write"]),
        "pusher": add_key(path, "pusher", ["write"]),
    }
    return path, made


def sign_in(client: Client, key: str, after: str = "/"):
    return client.post("/page/sign-in", data={"key": key, "next": after}, headers=HTML)


def token_in(client: Client) -> str:
    html = client.get("/", headers=HTML).text
    return html.split('<meta name="csrf-token" content="')[1].split('"')[0]


def test_without_a_session_every_page_asks_to_sign_in_and_comes_back_to_it(keys):
    path, made = keys
    client = guarded(path)
    asked = client.get("/page/user?id=a%2Fb&by=item", headers=HTML)
    assert asked.status_code == 303
    form = client.get(asked.headers["location"], headers=HTML)
    assert 'type="password"' in form.text
    assert "000007" not in form.text
    assert 'href="/page/model"' not in form.text
    assert 'value="/page/user?id=a%2Fb&amp;by=item"' in form.text
    answer = sign_in(client, made["reader"], "/page/user?id=a%2Fb&by=item")
    assert (answer.status_code, answer.headers["location"]) == (303, "/page/user?id=a%2Fb&by=item")
    page = client.get(answer.headers["location"], headers=HTML)
    assert page.status_code == 200
    assert "reader" in page.text


def test_the_cookie_is_random_and_for_the_browser_alone(keys):
    path, made = keys
    client = guarded(path)
    told = sign_in(client, made["reader"]).headers["set-cookie"]
    assert told.startswith(f"{COOKIE}=")
    assert "HttpOnly" in told
    assert "SameSite=strict" in told
    assert "Max-Age" not in told
    assert "expires" not in told.lower()
    assert made["reader"] not in told
    assert "Secure" not in told
    secure = guarded(path)
    secure.address = "https://127.0.0.1"
    assert "Secure" in sign_in(secure, made["reader"]).headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "nb_", "nb_" + "A" * 43, "x" * 5_000, "\r\nx: y", "é"])
def test_a_wrong_key_opens_nothing_and_is_not_repeated(keys, key):
    client = guarded(keys[0])
    answer = sign_in(client, key)
    assert answer.status_code == 403
    assert "That key is not known" in answer.text
    assert "set-cookie" not in answer.headers
    assert len(key) < 5 or key not in answer.text
    assert client.get("/", headers=HTML).status_code == 303


@pytest.mark.parametrize(
    "after",
    ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "",
     "/v1/audience", "/page/../v1", "\\\\evil", "/page/x\nset-cookie: a=b", "page/try"],
)  # fmt: skip
def test_signing_in_leads_nowhere_else(keys, after):
    path, made = keys
    answer = sign_in(guarded(path), made["reader"], after)
    assert answer.headers["location"] == "/"


def test_S39_a_write_needs_the_token_of_the_session(keys):
    path, made = keys
    client = guarded(path)
    sign_in(client, made["writer"])
    token = token_in(client)
    refused = [
        client.post("/v1/audience", json={}),
        client.post("/v1/audience", json={}, headers={"x-nextbuy-token": ""}),
        client.post("/v1/audience", json={}, headers={"x-nextbuy-token": token[:-1]}),
        client.post("/v1/audience", json={}, headers={"x-nextbuy-token": "é".encode()}),
        client.post("/v1/audience", data={"csrf_token": token}),
    ]
    assert [answer.status_code for answer in refused] == [403] * 5
    assert refused[0].headers["content-type"] == "application/problem+json"
    done = client.post("/v1/audience", json={}, headers={"x-nextbuy-token": token})
    assert (done.status_code, done.json()) == (202, {"client": "writer"})


def test_S39_the_token_of_another_session_is_no_good(keys):
    path, made = keys
    app = guarded(path).app
    one, other = Client(app), Client(app)
    sign_in(one, made["writer"])
    sign_in(other, made["writer"])
    answer = one.post("/v1/audience", json={}, headers={"x-nextbuy-token": token_in(other)})
    assert answer.status_code == 403


def test_S39_pages_of_other_origins_cannot_sign_anybody_in_or_write(keys):
    path, made = keys
    client = guarded(path)
    foreign = {**HTML, "origin": "https://evil.example"}
    answer = client.post("/page/sign-in", data={"key": made["writer"]}, headers=foreign)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    sign_in(client, made["writer"])
    headers = {"x-nextbuy-token": token_in(client), "origin": "https://evil.example"}
    assert client.post("/v1/audience", json={}, headers=headers).status_code == 403


def test_a_session_may_what_its_key_may(keys):
    path, made = keys
    client = guarded(path)
    sign_in(client, made["reader"])
    headers = {"x-nextbuy-token": token_in(client)}
    assert client.post("/v1/audience", json={}, headers=headers).status_code == 403
    other = guarded(path)
    sign_in(other, made["pusher"])
    page = other.get("/page/model", headers=HTML)
    assert page.status_code == 403
    assert "You may not see this" in page.text
    assert "Sign out" in page.text


def test_programs_need_no_session_and_sessions_do_not_change_their_keys(keys):
    path, made = keys
    client = guarded(path)
    bearer = {"authorization": f"Bearer {made['writer']}"}
    assert client.post("/v1/audience", json={}, headers=bearer).json() == {"client": "writer"}
    sign_in(client, made["reader"])
    assert client.post("/v1/audience", json={}, headers=bearer).json() == {"client": "writer"}


def test_a_key_that_is_removed_closes_its_sessions(keys):
    path, made = keys
    clock = Clock()
    client = guarded(path, clock=clock)
    sign_in(client, made["reader"])
    assert client.get("/", headers=HTML).status_code == 200
    remove_key(path, "reader")
    clock.now += 2
    assert client.get("/", headers=HTML).status_code == 303


def test_signing_out_needs_the_form_and_ends_the_session(keys):
    path, made = keys
    client = guarded(path)
    sign_in(client, made["reader"])
    token, cookie = token_in(client), client.cookies[COOKIE]
    client.post("/page/sign-out", data={"csrf_token": "x"}, headers=HTML)
    assert client.get("/", headers=HTML).status_code == 200
    answer = client.post("/page/sign-out", data={"csrf_token": token}, headers=HTML)
    assert answer.headers["location"] == "/page/sign-in"
    client.cookies.set(COOKIE, cookie)
    assert client.get("/", headers=HTML).status_code == 303


def test_where_no_keys_are_in_use_nobody_signs_in_and_writes_need_the_token_of_the_page():
    client = guarded(None)
    assert client.get("/page/sign-in", headers=HTML).headers["location"] == "/"
    page = client.get("/", headers=HTML)
    assert page.status_code == 200
    assert "Sign out" not in page.text
    browser = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}
    assert client.post("/v1/audience", json={}, headers=browser).status_code == 403
    token = {"x-nextbuy-token": token_in(client)}
    done = client.post("/v1/audience", json={}, headers=browser | token)
    assert done.status_code == 202


def test_refusals_become_pages_for_people_and_stay_problems_for_programs(keys):
    client = guarded(None)
    page = client.get("/page/nowhere", headers=HTML)
    assert page.status_code == 404
    assert "There is no such page" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    problem = client.get("/page/nowhere")
    assert problem.headers["content-type"] == "application/problem+json"
    locked = guarded(keys[0]).get("/page/counters", headers={"accept": "application/json"})
    assert locked.status_code == 401


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>"])
def test_S40_addresses_are_not_repeated_as_html(keys, name):
    for client in (guarded(None), guarded(keys[0])):
        for path in (f"/page/{quote(name)}", f"/page/sign-in?next={quote(name)}"):
            answer = client.get(path, headers=HTML)
            assert "<script>alert" not in answer.text
            assert "<img src=x" not in answer.text


def test_every_route_has_a_rule_and_only_files_and_signing_in_are_public():
    found = page_routes(parts_of(KnownModel()), Pages())
    assert all(rule.path == route.path for rule, route in found)
    assert all(rule.method in route.methods for rule, route in found)
    public = {rule.path for rule, _ in found if rule.scope == "public"}
    assert public == {
        "/page/sign-in", "/page/sign-out", "/page/style.css", "/page/script.js", "/page/icon.svg",
    }  # fmt: skip
    assert {rule.scope for rule, _ in found} == {"public", "read"}


def test_sessions_end_when_unused_or_old_and_are_bounded():
    clock = Clock()
    sessions: Sessions[str] = Sessions(most=3, idle_seconds=10, life_seconds=25, clock=clock)
    first = sessions.open("first")
    for _ in range(2):
        clock.now += 9
        assert sessions.find(first).identity == "first"
    clock.now += 9
    assert sessions.find(first) is None
    unused = sessions.open("unused")
    clock.now += 11
    assert sessions.find(unused) is None
    ids = [sessions.open(str(n)) for n in range(3)]
    sessions.find(ids[0])
    sessions.open("one more")
    assert len(sessions) == 3
    assert [sessions.find(i) is not None for i in ids] == [True, False, True]
    assert sessions.find(None) is None
    assert sessions.find("\ud800") is None


def test_ids_and_tokens_are_256_random_bits():
    sessions: Sessions[str] = Sessions()
    ids = {sessions.open("x") for _ in range(100)}
    tokens = {sessions.find(i).csrf_token for i in ids}
    assert len(ids) == len(tokens) == 100
    assert all(len(text) == 43 for text in ids | tokens)
    session = sessions.find(next(iter(ids)))
    assert is_token(session, session.csrf_token)
    assert not is_token(session, None)
