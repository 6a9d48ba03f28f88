"""Names of items and users are hostile text: pages keep their shape, whatever stands in them."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest

from nextbuy.errors import ConfigError
from nextbuy.service.live.protocol import Offer
from tests.service.page.client import Client
from tests.service.page.doubles import CATALOG, KnownModel, app_of, catalog_of, parts_of, stored
from tests.service.page.payloads import PAYLOADS

_VALUES = frozenset({"value", "href", "aria-label", "content"})
"""Attributes whose text may follow the names; all others must not change at all."""


class Shape(HTMLParser):
    """Elements and attributes in their order, and all text apart."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[object] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        kept = [(name, None if name in _VALUES else value) for name, value in attrs]
        self.tags.append((tag, kept))
        self.links += [value or "" for name, value in attrs if name in ("href", "action", "src")]

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_data(self, data):
        self.text.append(data)

    def handle_comment(self, data):
        self.tags.append(("comment", data))

    def handle_decl(self, decl):
        self.tags.append(("declaration", decl))

    def handle_pi(self, data):
        self.tags.append(("instruction", data))

    def unknown_decl(self, data):
        self.tags.append(("unknown", data))


def client_with(name: str) -> Client:
    """Everything that can be called something is called so."""
    live = KnownModel(
        histories={
            name: [
                stored(name, name, 9, platform=name, category=name),
                stored(name, f"{name} 2", 3, platform=f"{name} 2", category=name, sequence=4),
            ]
        },
        offers=[Offer(item_id=name, platform=f"{name} p", category=f"{name} c", probability=0.3,
                      reason=f"{name} r")],
        card={
            "version": name, "created": name, "level": name, "data": {"first": name, "last": name},
            "protocol": {"split": name, "warning": name, "description": name, "repeat": name},
            "models": [{"model": name, "validation": {"loss": 1.0},
                        "test": {"accuracy": 0.5, "loss": 1.0}}],
            "blend_weights": {"choice": {name: 1.0}, "repeat_share": 0.5},
            "timing": {"reason": name}, "versions": {"nextbuy": name},
        },
    )  # fmt: skip
    catalog = catalog_of((name, name, name), (name, f"{name} 2", name))
    return Client(app_of(parts_of(live, catalog=catalog, examples=lambda: [name])))


def addresses(name: str) -> list[str]:
    return [
        "/",
        f"/page/user?{urlencode({'id': name})}",
        f"/page/user?{urlencode({'id': name, 'by': name})}",
        f"/page/user?{urlencode({'id': f'{name} unknown'})}",
        f"/page/try?{urlencode({'item': name, 'platform': name, 'days': '1'})}",
        f"/page/try?{urlencode({'item': f'{name} unknown', 'days': name})}",
        "/page/audience",
        "/page/model",
    ]


@pytest.fixture(scope="module")
def harmless() -> list[Shape]:
    return [Shape(client_with("name").get(path).text) for path in addresses("name")]


@pytest.mark.parametrize("name", PAYLOADS, ids=range(len(PAYLOADS)))
def test_S40_names_change_neither_elements_nor_attributes(name, harmless):
    client = client_with(name)
    for path, expected in zip(addresses(name), harmless, strict=True):
        response = client.get(path)
        found = Shape(response.text)
        assert found.tags == expected.tags, path
        for link in found.links:
            assert link == "#main" or re.match(r"/(page/[a-z]|$)", link), link
    shown = Shape(client.get(addresses(name)[1]).text)
    assert any(name in text for text in shown.text)


@pytest.mark.parametrize("name", PAYLOADS[:10], ids=range(10))
def test_S40_errors_change_neither_elements_nor_attributes(name):
    def page(words: str) -> str:
        live = KnownModel(error=ConfigError(words))
        return Client(app_of(parts_of(live))).get("/page/user?id=anna").text

    assert Shape(page(name)).tags == Shape(page("harmless")).tags
    assert name in "".join(Shape(page(name)).text)


def test_S40_what_the_script_asks_for_is_json_that_no_browser_reads_as_a_page():
    live, catalog = KnownModel(), catalog_of(*((name, None, None) for name in PAYLOADS))
    client = Client(app_of(replace(parts_of(live), catalog=lambda: catalog)))
    response = client.get("/page/items?q=alert")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    names = [item["item_id"] for item in response.json()["items"]]
    fitting = [name for name in PAYLOADS if "alert" in name.lower()]
    assert names == sorted(fitting, key=lambda name: not name.lower().startswith("alert"))[:20]


def test_a_page_with_a_script_in_it_would_be_noticed():
    page = Client(app_of(parts_of(KnownModel(), catalog=CATALOG))).get("/").text
    broken = page.replace("</main>", "<script>1</script></main>")
    assert Shape(broken).tags != Shape(page).tags
