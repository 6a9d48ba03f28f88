"""Keys: kept as digests, compared in full, taken only from the Authorization header."""

import json
import os
import secrets
import statistics
import time

import pytest

from nextbuy.errors import ConfigError, DamagedError
from nextbuy.service.guard.keys import KeyRing, add_key, read_keys, remove_key
from nextbuy.service.guard.serving import listen
from tests.service.guard.shop import open_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = {scope: add_key(path, scope, [scope]) for scope in ("read", "write", "admin")}
    with open_shop(keys=path) as shop:
        yield shop, keys


def bearer(key):
    return f"Authorization: Bearer {key}"


def test_the_file_holds_no_key_and_only_its_owner_may_read_it(tmp_path):
    path = tmp_path / "keys.json"
    key = add_key(path, "till", ["read", "write"])
    text = path.read_text()
    assert key.startswith("nb_") and len(key) == 3 + 43  # 43 characters of 6 bits hold 256 bits
    assert key not in text and key[3:] not in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert [sorted(p.name for p in tmp_path.glob("tmp-*"))] == [[]]
    (kept,) = read_keys(path)
    assert (kept.name, kept.scopes) == ("till", frozenset({"read", "write"}))


def test_two_keys_differ_and_a_name_is_taken_once(tmp_path):
    path = tmp_path / "keys.json"
    assert add_key(path, "a", ["read"]) != add_key(path, "b", ["read"])
    with pytest.raises(ConfigError, match="'a' already"):
        add_key(path, "a", ["read"])


@pytest.mark.parametrize(
    ("name", "scopes"),
    [("A b", ["read"]), ("", ["read"]), ("a\n", ["read"]), ("a", []), ("a", ["public"])],
)
def test_wrong_names_and_scopes_are_refused_before_anything_is_written(tmp_path, name, scopes):
    with pytest.raises(ConfigError):
        add_key(tmp_path / "keys.json", name, scopes)
    assert not (tmp_path / "keys.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 2, "keys": []}',
        '{"format": 1, "keys": [{"name": "a"}]}',
        '{"format": 1, "keys": [{"name": "a", "sha256": "00", "scopes": ["read"], "created": ""}]}',
        '{"format": 1, "keys": 7}',
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "keys.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(DamagedError):
        KeyRing(path)


def test_a_file_that_others_may_write_is_refused(tmp_path):
    path = tmp_path / "keys.json"
    add_key(path, "a", ["read"])
    path.chmod(0o660)
    with pytest.raises(ConfigError, match="chmod 600"):
        KeyRing(path)


def test_a_removed_key_is_taken_no_more_without_a_restart(tmp_path):
    path, now = tmp_path / "keys.json", 0.0
    key = add_key(path, "a", ["read"])
    ring = KeyRing(path, clock=lambda: now)
    header = f"Bearer {key}".encode()
    assert ring.find(header) is not None
    remove_key(path, "a")
    other = f"Bearer {add_key(path, 'b', ['read'])}".encode()
    now = 1.1
    assert ring.find(header) is None
    assert ring.find(other) is not None


def test_a_file_that_is_not_there_is_told_how_to_be_made(tmp_path):
    with pytest.raises(DamagedError, match=r"Make one with: nextbuy keys add .*none.json --name"):
        KeyRing(tmp_path / "none.json")


def test_a_file_that_goes_missing_lets_nobody_in(tmp_path):
    path, now = tmp_path / "keys.json", 0.0
    header = f"Bearer {add_key(path, 'a', ['read'])}".encode()
    ring = KeyRing(path, clock=lambda: now)
    path.unlink()
    now = 1.1
    assert ring.find(header) is None
    assert not ring.is_open


def test_a_link_that_moves_to_another_file_is_followed(tmp_path):
    """As secrets are mounted into containers."""
    link, now = tmp_path / "keys.json", 0.0
    headers = {}
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        headers[name] = f"Bearer {add_key(tmp_path / name / 'keys.json', name, ['read'])}".encode()
    (tmp_path / "data").symlink_to("old")
    link.symlink_to("data/keys.json")
    ring = KeyRing(link, clock=lambda: now)
    assert ring.find(headers["old"]) is not None
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").replace(tmp_path / "data")
    now = 1.1
    assert ring.find(headers["old"]) is None
    assert ring.find(headers["new"]).name == "new"
    add_key(link, "more", ["read"])
    assert link.is_symlink()
    assert [key.name for key in read_keys(tmp_path / "new" / "keys.json")] == ["new", "more"]


def test_removing_what_is_not_there_names_what_is(tmp_path):
    path = tmp_path / "keys.json"
    add_key(path, "till", ["read"])
    with pytest.raises(ConfigError, match="till"):
        remove_key(path, "tilt")


def test_the_right_key_is_let_in_and_named(shop):
    shop, keys = shop
    reply = shop.ask("GET /read\r\n" + bearer(keys["read"]))
    assert reply.status == 200
    assert json.loads(reply.body)["client"] == "read"
    assert shop.ask("GET /read\r\nauthorization: bEARER " + keys["read"]).status == 200


def test_S32_whatever_is_not_exactly_a_key_gets_the_same_401(shop):
    shop, keys = shop
    good = keys["read"]
    wrong = [
        "GET /read",
        "GET /read\r\nAuthorization:",
        "GET /read\r\nAuthorization: Bearer",
        "GET /read\r\n" + bearer(""),
        "GET /read\r\n" + bearer("nb_" + "A" * 43),
        "GET /read\r\n" + bearer(good[:-1]),
        "GET /read\r\n" + bearer(good + "A"),
        "GET /read\r\n" + bearer(good + "\x20x"),
        "GET /read\r\n" + bearer(good[:-1] + "é"),
        "GET /read\r\n" + bearer(" " + good),
        "GET /read\r\nAuthorization: Basic " + good,
        "GET /read\r\nAuthorization: " + good,
        "GET /read\r\nX-Api-Key: " + good,
        "GET /read\r\nCookie: key=" + good,
        f"GET /read?key={good}&access_token={good}",
        "GET /read\r\n" + bearer(good) + "\r\n" + bearer(good),
    ]
    before = len(shop.app.seen)
    replies = [shop.ask(head) for head in wrong]
    assert {reply.status for reply in replies} == {401}
    assert len({reply.body for reply in replies}) == 1
    assert {reply.headers["www-authenticate"] for reply in replies} == {'Bearer realm="nextbuy"'}
    assert len(shop.app.seen) == before


def test_S32_a_key_of_a_megabyte_or_with_a_newline_is_refused_by_the_parser(shop):
    shop, keys = shop
    assert shop.ask("GET /read\r\n" + bearer("A" * 2**20)).status == 431
    assert shop.ask("GET /read\r\n" + bearer(keys["read"] + "\n")).status == 400
    assert shop.ask("GET /read\r\n" + bearer(keys["read"] + "\x00")).status == 400


def test_S33_time_says_nothing_about_how_near_a_guess_is(tmp_path):
    """Medians of interleaved samples: a key that shares all but its last character, and none."""
    path = tmp_path / "keys.json"
    key = add_key(path, "a", ["read"])
    ring = KeyRing(path)
    near = f"Bearer {key[:-1]}{'A' if key[-1] != 'A' else 'B'}".encode()
    far = f"Bearer nb_{secrets.token_urlsafe(32)}".encode()
    times = {near: [], far: []}
    for round_ in range(10_000):
        for guess in (near, far) if round_ % 2 else (far, near):
            began = time.perf_counter_ns()
            ring.find(guess)
            times[guess].append(time.perf_counter_ns() - began)
    medians = [statistics.median(times[guess]) for guess in (near, far)]
    assert abs(medians[0] - medians[1]) < 0.1 * min(medians)


def test_S34_without_keys_the_service_listens_on_this_machine_only(tmp_path):
    everywhere = "0.0.0.0"  # noqa: S104 - refused, and then with a key
    for host in (everywhere, "::", "192.0.2.1", "shop.example"):
        with pytest.raises(ConfigError, match="nextbuy keys add"):
            listen(host, 0, KeyRing(None))
    for host in ("127.0.0.1", "localhost"):
        listen(host, 0, KeyRing(None)).close()
    path = tmp_path / "keys.json"
    add_key(path, "a", ["read"])
    listen(everywhere, 0, KeyRing(path)).close()


def test_S35_a_key_opens_the_routes_of_its_scopes_and_no_others(shop):
    shop, keys = shop
    routes = {"read": "GET /read", "write": "POST /write", "admin": "POST /admin/swap"}
    for scope, key in keys.items():
        for needed, route in routes.items():
            expected = 200 if scope in (needed, "admin") else 403
            reply = shop.ask(f"{route}\r\n{bearer(key)}")
            assert reply.status == expected, (scope, needed)
    assert shop.ask("GET /live").status == 200


def test_routes_that_the_table_lacks_do_not_exist(shop):
    shop, keys = shop
    admin = bearer(keys["admin"])
    before = len(shop.app.seen)
    for path in ("/", "/reads", "/read/", "/users/", "/users/a/b", "/admin", "//read", "/READ"):
        assert shop.ask(f"GET {path}\r\n{admin}").status == 404, path
    reply = shop.ask(f"DELETE /read\r\n{admin}")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert len(shop.app.seen) == before


def test_S34_open_mode_refuses_what_a_proxy_on_this_machine_brings():
    with open_shop() as shop:
        assert shop.ask("GET /read").status == 200
        for line in ("X-Forwarded-For: 198.51.100.7", "Forwarded: for=198.51.100.7", "Via: 1.1 p"):
            assert shop.ask(f"GET /read\r\n{line}").status == 401, line
        assert shop.ask("GET /live\r\nX-Forwarded-For: 198.51.100.7").status == 200


def test_the_file_survives_a_writer_that_dies_midway(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    add_key(path, "a", ["read"])
    before = path.read_bytes()

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(Exception, match="No space left"):
        add_key(path, "b", ["read"])
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("tmp-*"))
