"""Hostile ids through the whole service: stored as they came, told as they came, and inert."""

import csv
import io
import json
import socket
import sqlite3
from contextlib import closing
from urllib.parse import quote

import pytest

from nextbuy.service.store.opening import open_store
from tests.service.assembled import using
from tests.service.page.payloads import PAYLOADS
from tests.service.page.test_hostile_names import Shape

FORMULAS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "=cmd|'/C calc'!A0", '=HYPERLINK("//evil.example","x")',
    "=1,2", '"=1"', "'=1", "=1;2", "-2+3+cmd|' /C calc'!A0", "＝1",
]  # fmt: skip
SQL = [
    "'", "''", '"', "' OR '1'='1", "'; DROP TABLE purchases; --", "x'); DELETE FROM purchases; --",
    "1 UNION SELECT sql FROM sqlite_schema", "%", "_", "' || (SELECT name FROM identity) || '",
    "?", "?1", ":user_id", "$1", "%s", "%(user_id)s", "\\'", "0x27", "a/**/b", "[purchases]",
]  # fmt: skip
PATHS = [
    "../../../etc/passwd", "..%2f..%2fetc/passwd", "/etc/passwd", "file:///etc/passwd",
    "C:\\Windows\\win.ini", "\\\\host\\share", "http://169.254.169.254/latest/meta-data",
    "s3://bucket/key", "purchases.sqlite", "~root", "$HOME", "`id`", "$(id)", "|id", ";id",
    "%00", "%2e%2e%2f", "....//....//", "a//b", "/",
]  # fmt: skip
ALL = [*dict.fromkeys([*PAYLOADS, *FORMULAS, *SQL, *PATHS])]


@pytest.fixture(scope="module")
def told(fitted, tmp_path_factory):
    """What the service says after purchases of users and items that are called so; nothing outside
    of this process may be asked meanwhile."""
    folder = tmp_path_factory.mktemp("shop")
    fitted.save(folder)

    async def ask(client):
        found = {"users": {}, "pages": {}}
        purchases = [
            {"user_id": text, "item_id": item, "platform": text, "category": text,
             "basket_id": text}
            for text in ALL
            for item in (text, "tea", "tea")
        ]  # fmt: skip
        stored = await client.post("/v1/purchases", json={"purchases": purchases})
        assert stored.json()["stored"] == 3 * len(ALL)
        html = {"Accept": "text/html"}
        for text in ALL:
            path = quote(text, safe="").replace(".", "%2E")  # clients go up a folder by ..
            found["users"][text] = await client.get(f"/v1/users/{path}")
        for text in ["plain", *ALL[:: len(ALL) // 10], *SQL]:
            found["pages"][text] = await client.get("/page/user", params={"id": text}, headers=html)
            found["pages"][text, "model"] = await client.post("/v1/model", json={"name": text})
        job = {"item": "tea", "within_days": 30}
        job_id = (await client.post("/v1/audience", json=job)).json()["id"]
        while (await client.get(f"/v1/jobs/{job_id}")).json()["state"] in ("waiting", "running"):
            pass
        for kind in ("csv", "jsonl"):
            result = await client.get(f"/v1/jobs/{job_id}/result?format={kind}")
            assert result.status_code == 200, result.text
            found[kind] = result.text
        found["metrics"] = (await client.get("/metrics")).text
        return found

    def refuse(_, address):
        raise AssertionError(f"{address} was asked")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        found = using(ask, folder, page=True)
    return found, folder


def test_S43_S44_hostile_ids_are_texts_and_nothing_else(told):
    found, folder = told
    assert len(ALL) >= 140
    for text, answer in found["users"].items():
        assert answer.status_code == 200, text
        shown = answer.json()
        assert shown["user_id"] == text
        assert [row["item_id"] for row in shown["purchases"]] == [text, "tea", "tea"]
        assert {row["category"] for row in shown["purchases"]} == {text}
    with closing(open_store(str(folder / "purchases.sqlite"))) as store:
        store.check_whole()
        assert store.last_sequence() == 3 * len(ALL)
        assert set(store.purchases_of(ALL)) == set(ALL)
    with closing(sqlite3.connect(folder / "purchases.sqlite")) as db:
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
    assert {"purchases", "submissions", "served", "forgotten", "identity"} <= names


def test_S44_no_text_makes_a_version_of_another_place_answer(told):
    models = [answer for key, answer in told[0]["pages"].items() if isinstance(key, tuple)]
    assert len(models) > 20
    assert {answer.status_code for answer in models} <= {409, 422}


def test_S40_pages_keep_their_shape_with_stored_names(told):
    pages = {key: page for key, page in told[0]["pages"].items() if isinstance(key, str)}
    assert len(pages) > 20
    known = [page for key, page in pages.items() if key != "plain"]
    assert {page.status_code for page in known} == {200}
    for page in known:
        tags = [tag[0] for tag in Shape(page.text).tags if isinstance(tag, tuple)]
        assert not {"iframe", "object", "embed", "base", "comment"} & set(tags)
        handlers = [
            name
            for tag in Shape(page.text).tags
            if isinstance(tag, tuple) and isinstance(tag[1], list)
            for name, _ in tag[1]
            if name.startswith("on")
        ]
        assert handlers == []


def test_S41_an_audience_in_csv_holds_no_formula_and_is_exact_in_json_lines(told):
    rows = list(csv.DictReader(io.StringIO(told[0]["csv"], newline="")))
    exact = [json.loads(line) for line in told[0]["jsonl"].splitlines()]
    assert len(rows) == len(exact)
    assert {row["user_id"] for row in exact} >= set(ALL)
    for shown, true in zip(rows, exact, strict=True):
        text = true["user_id"]
        assert shown["user_id"] == (f"'{text}" if text[0] in "=+-@\t\r" else text)
    assert sum(row["user_id"].startswith("'") for row in rows) >= 8


def test_S46_no_id_is_in_the_metrics(told):
    """More requests than there may be series were made, each with an id of its own."""
    series = [line for line in told[0]["metrics"].splitlines() if not line.startswith("#")]
    assert sum(line.startswith("nextbuy_requests_total") for line in series) < 20
    for text in ALL:
        assert len(text) < 4 or text not in told[0]["metrics"], text


def test_S45_letters_of_a_search_are_letters(shop_folder):
    """No pattern, no wildcard: what is typed is looked for as it is."""

    async def ask(client):
        async def hits(text):
            return (await client.get("/page/items", params={"q": text})).text

        assert "tea" in await hits("te")
        for text in (".*", "[a-z]+", "%", "_", "t?a", "t.a", "(a+)+$", "(?i)TEA", "a" * 300):
            assert "tea" not in await hits(text), text

    using(ask, shop_folder)
