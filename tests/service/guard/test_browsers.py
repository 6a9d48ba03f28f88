"""What pages elsewhere can make a browser send, and names elsewhere that point here."""

import pytest

from nextbuy.errors import ConfigError
from nextbuy.service.guard.hosts import Hosts, is_loopback
from nextbuy.service.guard.keys import add_key
from tests.service.guard.shop import open_shop


@pytest.fixture(scope="module")
def shop():
    with open_shop(hosts=Hosts("127.0.0.1", ["shop.example"])) as shop:
        yield shop


def ask(shop, line, host, *lines):
    head = "\r\n".join([f"{line} HTTP/1.1", f"Host: {host}", *lines])
    with shop.wire() as wire:
        wire.send(f"{head}\r\n\r\n".encode("latin-1"))
        return wire.reply()


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example"]
)
def test_S37_no_origin_elsewhere_is_ever_allowed(shop, origin):
    for line in ("GET /live", "GET /read", "POST /write", "OPTIONS /write", "OPTIONS /none"):
        reply = ask(
            shop, line, "localhost", f"Origin: {origin}", "Access-Control-Request-Method: POST"
        )
        assert not [name for name in reply.headers if name.startswith("access-control-")]
        if line != "GET /live":
            assert reply.status in (403, 404, 405)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("localhost.", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("shop.example:443", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.0.2.7", 421),
        ("0.0.0.0", 421),  # noqa: S104 - a name like others
        ("localhost@evil.example", 421),
        ("localhost:80:80", 421),
        ("localhost/", 421),
        ("local host", 421),
        ("", 421),
        ("é", 421),
        ("a" * 5000, 421),
    ],
)
def test_S38_only_names_that_are_ours_are_answered(shop, host, status):
    before = len(shop.app.seen)
    assert ask(shop, "GET /read", host).status == status
    assert ask(shop, "GET /live", host).status == status
    assert (len(shop.app.seen) > before) == (status == 200)


def test_S38_a_server_on_all_addresses_answers_to_addresses_but_not_to_names():
    everywhere = Hosts("0.0.0.0", ["shop.example"])  # noqa: S104 - as an operator would
    assert everywhere.allows(b"192.0.2.7:8000")
    assert everywhere.allows(b"[2001:db8::1]")
    assert everywhere.allows(b"shop.example")
    assert not everywhere.allows(b"evil.example")
    assert not Hosts("192.0.2.7").allows(b"192.0.2.8")
    assert Hosts("2001:db8::1").allows(b"[2001:db8::1]:80")


@pytest.mark.parametrize("name", ["https://shop.example", "shop.example:80", "", "*", "a b"])
def test_S38_a_name_with_more_than_a_name_is_refused_at_the_start(name):
    with pytest.raises(ConfigError, match="host name"):
        Hosts("127.0.0.1", [name])


def test_loopback_is_this_machine_only():
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"]))
    others = ["0.0.0.0", "::", "192.0.2.1", "localhost.evil", "testclient"]  # noqa: S104
    assert not any(map(is_loopback, others))


@pytest.mark.parametrize(
    "line",
    [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://localhost:1",
        "Origin: localhost:8000",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ],
)
def test_S39_writes_from_pages_elsewhere_are_refused(shop, line):
    before = len(shop.app.seen)
    token = f"X-Nextbuy-Token: {shop.guard.page_token}"
    for route in ("POST /write", "POST /note", "POST /admin/swap", "GET /read"):
        assert ask(shop, route, "localhost:8000", line, token).status == 403, route
    assert len(shop.app.seen) == before
    assert ask(shop, "GET /live", "localhost:8000", line).status == 200


def test_S39_the_pages_own_writes_need_its_token(shop):
    ours = "Origin: http://localhost:8000"
    token = f"X-Nextbuy-Token: {shop.guard.page_token}"
    same = "Sec-Fetch-Site: same-origin"
    assert ask(shop, "POST /write", "localhost:8000", ours, same, token).status == 200
    for lines in ([ours], [same], ["Cookie: a=b"], [ours, token[:-1]], [ours, token, token]):
        assert ask(shop, "POST /write", "localhost:8000", *lines).status == 403, lines
    assert ask(shop, "GET /read", "localhost:8000", ours, same).status == 200
    assert ask(shop, "POST /write", "localhost:8000").status == 200  # a program on this machine


def test_S39_a_key_is_token_enough(tmp_path):
    path = tmp_path / "keys.json"
    key = add_key(path, "page", ["write"])
    with open_shop(keys=path) as shop:
        lines = [f"Authorization: Bearer {key}", "Origin: http://localhost"]
        assert ask(shop, "POST /write", "localhost", *lines).status == 200
        lines[1] = "Origin: http://evil.example"
        assert ask(shop, "POST /write", "localhost", *lines).status == 403
