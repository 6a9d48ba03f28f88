"""Before the guard: turns the session of a browser into the key it stands for, and what a browser
is refused into a page.

Programs send their key with each request; browsers send a cookie, which any page elsewhere could
make them send, too. So a request that changes something needs the token of the session in a header
as well, which only our own script can read.
"""

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nextbuy.service.page.pages import HEADERS, Pages, Visitor
from nextbuy.service.page.parts import SignedIn
from nextbuy.service.page.problems import problem_of_status
from nextbuy.service.page.sessions import COOKIE, TOKEN_HEADER, Session, Sessions, is_token

_SAFE: Final = frozenset({"GET", "HEAD"})
_OPEN: Final = frozenset({"/page/sign-in", "/page/sign-out"})
_FOR_PROGRAMS: Final = "/v1/"
_PROBLEM: Final = "application/problem+json"


class Door:
    """An ASGI application around the guard.

    Args:
        app: The guard.
        sessions: Who is signed in.
        pages: To show refusals.
        version: Of the model that answers, for the foot of the page.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        sessions: Sessions[SignedIn],
        pages: Pages,
        version: Callable[[], str | None],
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._pages = pages
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or _is_of_a_program(scope):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        session_id = _cookie(headers)
        session = None if "authorization" in headers else self._sessions.find(session_id)
        if session is not None:
            if _changes(scope) and not is_token(session, headers.get(TOKEN_HEADER)):
                await _NO_TOKEN(scope, receive, send)
                return
            scope = _with_key(scope, session)
        if not _is_navigation(scope, headers):
            await self._app(scope, receive, send)
            return
        refusal = _Refusal(send)
        await self._app(scope, receive, refusal)
        if refusal.status is not None:
            if refusal.status == 401:
                self._sessions.close(session_id)
            await self._shown(refusal, scope, session)(scope, receive, send)

    def _shown(
        self, refusal: "_Refusal", scope: Scope, session: Session[SignedIn] | None
    ) -> Response:
        """A page in place of a problem object; the form to sign in where a key is needed."""
        query = scope["query_string"].decode("latin-1")
        address = quote(scope["path"]) + (f"?{query}" if query else "")
        if refusal.status == 401:
            after = f"/page/sign-in?next={quote(address, safe='')}"
            return RedirectResponse(after, status_code=303, headers=dict(HEADERS))
        status = refusal.status or 500
        visitor = Visitor()
        if session is not None:
            visitor = Visitor(name=session.identity.name, csrf_token=session.csrf_token)
        headers = {name: refusal.headers[name] for name in _KEPT if name in refusal.headers}
        problem = problem_of_status(status, refusal.detail())
        return self._pages.problem(
            problem, status=status, visitor=visitor, version=self._version(), address=address,
            headers=headers,
        )  # fmt: skip


_KEPT: Final = ("retry-after", "allow", "x-request-id")
"""Headers of a refusal that stay when it becomes a page."""

_NO_TOKEN: Final = Response(
    json.dumps(
        {
            "type": "about:blank",
            "title": "Forbidden",
            "status": 403,
            "detail": "The page's token is missing or old: load the page again.",
        }
    ),
    status_code=403,
    media_type=_PROBLEM,
    headers=dict(HEADERS),
)


class _Refusal:
    """`send` that lets everything pass but problem objects, which it keeps."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._body = b""
        self.status: int | None = None
        self.headers = Headers(raw=[])

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            headers = Headers(raw=list(message.get("headers", ())))
            if headers.get("content-type", "").startswith(_PROBLEM):
                self.status, self.headers = message["status"], headers
                return
        if self.status is None:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")

    def detail(self) -> str:
        """What the problem object says."""
        try:
            told: Any = json.loads(self._body)
        except ValueError:
            told = None
        detail = told.get("detail") if isinstance(told, dict) else None
        return detail if isinstance(detail, str) else "The service says no more about it."


def _cookie(headers: Headers) -> str | None:
    return cookie_parser(headers.get("cookie", "")).get(COOKIE)


def _is_of_a_program(scope: Scope) -> bool:
    """Whether there is no session to be looked for, and nobody who looks at the answer."""
    is_for_programs: bool = scope["path"].startswith(_FOR_PROGRAMS)
    return is_for_programs and all(name != b"cookie" for name, _ in scope["headers"])


def _changes(scope: Scope) -> bool:
    return scope["method"] not in _SAFE and scope["path"] not in _OPEN


def _with_key(scope: Scope, session: Session[SignedIn]) -> Scope:
    """The same request as a program would send it; the page finds the session in the state."""
    raw = [*scope["headers"], (b"authorization", session.identity.authorization)]
    state = {**scope.get("state", {}), "page_session": session}
    return {**scope, "headers": raw, "state": state}


def _is_navigation(scope: Scope, headers: Headers) -> bool:
    """Whether a person looks at what comes back."""
    is_for_programs = scope["path"].startswith(_FOR_PROGRAMS)
    return "text/html" in headers.get("accept", "") and not is_for_programs
