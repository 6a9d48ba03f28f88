"""Signing in and out: a key is typed once, and the browser keeps a random id instead."""

import re
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from nextbuy.service.page.pages import HEADERS, Pages, Problem, Visitor
from nextbuy.service.page.parts import PageParts, SignedIn
from nextbuy.service.page.sessions import COOKIE, is_token

_MOST_BYTES: Final = 4_096
_PAGE: Final = re.compile(r"/(page/[a-z-]+)?")
_WRONG: Final = Problem(
    title="That key is not known", words="Look whether it was copied whole; it begins with nb_."
)


class Signing:
    """The two forms that need no session."""

    def __init__(self, parts: PageParts, pages: Pages) -> None:
        self._parts = parts
        self._pages = pages

    async def form(self, request: Request) -> Response:
        """Where a key is typed."""
        if self._parts.find_key is None:
            return _to("/")
        return self._form(_local(request.query_params.get("next")), None, 200)

    async def sign_in(self, request: Request) -> Response:
        """Check the key, open a session, go where the visitor wanted to go."""
        told = await _fields(request)
        after = _local(told.get("next"))
        if self._parts.find_key is None:
            return _to("/")
        authorization = b"Bearer " + told.get("key", "").strip().encode("utf-8", "replace")
        name = await run_in_threadpool(self._parts.find_key, authorization)
        if name is None:
            return self._form(after, _WRONG, 403)
        session_id = self._parts.sessions.open(SignedIn(name=name, authorization=authorization))
        response = _to(after)
        response.set_cookie(
            COOKIE, session_id, path="/", httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response

    async def sign_out(self, request: Request) -> Response:
        """Close the session, if the form is ours."""
        session = self._parts.sessions.find(request.cookies.get(COOKIE))
        if session is not None and is_token(session, (await _fields(request)).get("csrf_token")):
            self._parts.sessions.close(request.cookies.get(COOKIE))
            response = _to("/page/sign-in")
            response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
            return response
        return _to("/")

    def _form(self, after: str, problem: Problem | None, status: int) -> Response:
        return self._pages.page(
            "sign_in", visitor=Visitor(may_read=False), version=self._parts.live.version,
            status=status, next=after, problem=problem,
        )  # fmt: skip


def _to(address: str) -> RedirectResponse:
    return RedirectResponse(address, status_code=303, headers=dict(HEADERS))


def _local(address: str | None) -> str:
    """An address of ours to go on to; the first page for anything that could lead elsewhere."""
    if not address or not address.startswith("/") or not address.isprintable():
        return "/"
    split = urlsplit(address)
    is_page = _PAGE.fullmatch(split.path) is not None
    return address if is_page and not split.scheme and not split.netloc else "/"


async def _fields(request: Request) -> dict[str, str]:
    """Of a form; nothing of what is too large or no text."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            return {}
    try:
        told = parse_qs(body.decode(), max_num_fields=10, strict_parsing=False)
    except ValueError:
        return {}
    return {name: values[0] for name, values in told.items()}
