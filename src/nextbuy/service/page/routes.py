"""The addresses of the page, and who may call them."""

from collections.abc import Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nextbuy.service.guard.scopes import Rule, Scope
from nextbuy.service.page.assets import Asset
from nextbuy.service.page.pages import Pages
from nextbuy.service.page.parts import PageParts
from nextbuy.service.page.signing import Signing
from nextbuy.service.page.views import View, Views


def page_routes(parts: PageParts, pages: Pages) -> list[tuple[Rule, Route]]:
    """Every route with its rule.

    Forms are read by GET, so that everything that can be seen has an address and works without
    JavaScript. What changes something goes through the routes for programs.

    Args:
        parts: What the page works with.
        pages: Its templates; the door needs the same.
    """
    views, signing = Views(parts, pages), Signing(parts, pages)
    read: Sequence[tuple[str, View]] = (
        ("/", views.start),
        ("/page/user", views.user),
        ("/page/try", views.try_history),
        ("/page/audience", views.audience),
        ("/page/model", views.model),
        ("/page/counters", views.counters),
        ("/page/items", views.items),
    )
    found = [_route("GET", path, views.safely(view), "read") for path, view in read]
    found += [
        _route("GET", "/page/sign-in", signing.form, "public"),
        _route("POST", "/page/sign-in", signing.sign_in, "public"),
        _route("POST", "/page/sign-out", signing.sign_out, "public"),
    ]
    for name, asset in pages.assets.items():
        found.append(_route("GET", f"/page/{name}", partial(_send, asset), "public"))
    return found


def _route(method: str, path: str, view: View, scope: Scope) -> tuple[Rule, Route]:
    return Rule(method=method, path=path, scope=scope), Route(path, view, methods=[method])


async def _send(asset: Asset, request: Request) -> Response:
    return asset.response(request)
