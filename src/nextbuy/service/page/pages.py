"""Templates to responses: everything escaped, strict about what is missing, with its headers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from nextbuy.service.page import words
from nextbuy.service.page.assets import load_assets
from nextbuy.service.page.svg import bar, unbroken

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with none, browsers tell no origin of our own forms either
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every page: nothing but our own style sheet, script and pictures; no frames, nothing kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who looks at a page.

    Attributes:
        name: Of the key that they signed in with, None where no keys are in use.
        csrf_token: For what their browser writes; None if they may not.
        may_read: Whether there is any sense in showing them where to go.
    """

    name: str | None = None
    csrf_token: str | None = None
    may_read: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What went wrong, in words.

    Attributes:
        title: In a few words.
        words: What was found, and what to do.
        retry: Whether trying again may help.
    """

    title: str
    words: str
    retry: bool = False


class Pages:
    """The templates of the package."""

    def __init__(self) -> None:
        self.assets = load_assets()
        addresses = {n: f"/page/{n}?v={asset.digest}" for n, asset in self.assets.items()}
        self._templates = Environment(
            loader=PackageLoader("nextbuy.service.page"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals |= {
            "assets": addresses,
            "bar": bar,
            "count": words.count,
            "day": words.day,
            "duration": words.duration,
            "moment": words.moment,
            "money": words.money,
            "number": words.number,
            "percent": words.percent,
            "unbroken": unbroken,
        }

    def page(
        self,
        template: str,
        *,
        visitor: Visitor,
        version: str | None,
        here: str = "",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **shown: Any,
    ) -> HTMLResponse:
        """A whole page.

        Args:
            template: Its name, without `.html`.
            visitor: Who looks.
            version: Of the model that answers.
            here: Which entry of the navigation is current.
            status: Of HTTP.
            headers: Besides those of every page.
            shown: What the template needs.
        """
        text = self._templates.get_template(f"{template}.html").render(
            visitor=visitor, version=version, here=here, **shown
        )
        return HTMLResponse(text, status_code=status, headers={**HEADERS, **(headers or {})})

    def problem(
        self,
        problem: Problem,
        *,
        status: int,
        visitor: Visitor,
        version: str | None,
        address: str = "/",
        headers: Mapping[str, str] | None = None,
    ) -> HTMLResponse:
        """A page that says what went wrong; `address` is where another try goes."""
        return self.page(
            "problem", visitor=visitor, version=version, status=status, headers=headers,
            problem=problem, retry_address=address,
        )  # fmt: skip
