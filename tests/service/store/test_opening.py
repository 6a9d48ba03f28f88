"""Stores are opened by URL, and no URL is shown with its password."""

import importlib.util

import pytest

from nextbuy.errors import ConfigError, MissingExtraError
from nextbuy.service.store.opening import open_store, shown
from tests.service.store.sending import bought, sent


def test_a_path_and_a_url_of_sqlite_are_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store("my live.db")
    store.write([sent("k", bought("ann"))])
    store.close()
    for url in ("sqlite:///my%20live.db", f"sqlite:///{tmp_path}/my live.db", "./my live.db"):
        again = open_store(url)
        assert again.last_sequence() == 1
        again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my live.db", "my live.db.lock"]


@pytest.mark.parametrize(
    "url", ["mysql://a:secret@host/x", "sqlite://live.db", "sqlite:///", "", ":memory:", "a\0b"]
)
def test_what_is_no_store_is_refused(url):
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h:5/x", "postgresql://u:***@h:5/x"),
        ("postgresql://u:p%40@h/x?a=b", "postgresql://u:***@h/x?a=b"),
        ("postgresql://u:p:q@h1,h2/x", "postgresql://u:***@h1,h2/x"),
        ("postgresql://u:a@b@h/x", "postgresql://u:***@h/x"),
        ("postgresql://u:a/b?c@h/x", "postgresql://u:***@h/x"),
        ("postgresql://:p@h/x", "postgresql://:***@h/x"),
        ("postgresql:///x?user=u&password=p&sslmode=require",
         "postgresql:///x?user=u&password=***&sslmode=require"),
        ("postgresql://h/x?Password=p%20q", "postgresql://h/x?Password=***"),
        ("postgresql://u@h/x", "postgresql://u@h/x"),
        ("sqlite:///live.db", "sqlite:///live.db"),
        ("live@home:1.db", "live@home:1.db"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_password(url, expected):
    assert shown(url) == expected


def test_a_driver_that_is_missing_is_named_with_its_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "nextbuy.service.store.opening.find_spec",
        lambda name: None if name in ("apsw", "psycopg") else found(name),
    )
    with pytest.raises(MissingExtraError, match=r"nextbuy\[serve\]"):
        open_store("live.db")
    with pytest.raises(MissingExtraError, match=r"nextbuy\[postgres\]"):
        open_store("postgresql://h/x")
