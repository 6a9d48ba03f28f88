"""The guard: an ASGI application around another, which only sees what may pass."""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from nextbuy.errors import OverloadedError
from nextbuy.service.config import Limits
from nextbuy.service.guard.asgi import Application, Connection, Receive, Send, only
from nextbuy.service.guard.bodies import (
    Buffered,
    StreamedBody,
    WholeBody,
    announced,
    discard,
    expects_continue,
)
from nextbuy.service.guard.hosts import Hosts, is_foreign, is_loopback
from nextbuy.service.guard.keys import KeyRing
from nextbuy.service.guard.logs import story_of
from nextbuy.service.guard.rates import Rates, Slots
from nextbuy.service.guard.refusals import (
    BAD_TEXT,
    FORBIDDEN,
    FOREIGN,
    INTERNAL,
    METHOD_NOT_ALLOWED,
    NO_HOST,
    NO_TOKEN,
    NOT_FOUND,
    OVERLOADED,
    STOPPING,
    TOO_MANY_REQUESTS,
    TOO_SLOW,
    UNAUTHORIZED,
    WRONG_HOST,
    Refusal,
    retry_after,
)
from nextbuy.service.guard.scopes import RouteTable
from nextbuy.service.guard.visit import Answer, Observer, Visit

_log = logging.getLogger(__name__)

TOKEN_HEADER: Final = "x-nextbuy-token"  # noqa: S105 - the name of a header
CLIENT_IS_GONE: Final = 499
"""In log and metrics: the client left before it was answered."""

_SAFE: Final = frozenset({"GET", "HEAD"})
_PROXIED: Final = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})


class Guard:
    """Host, route, origin, key, rate, body, a slot and a deadline; in this order, cheapest first.

    The application finds in `scope["state"]`: `request_id`, `client` (the name of the key, None in
    open mode and on public routes) and `page_token`, which a page gives its scripts: a browser must
    send it as `X-Nextbuy-Token` where it writes without a key.

    Args:
        app: What is guarded.
        rules: Its routes; others do not exist for clients.
        keys: Who may come in.
        limits: How much and how long.
        hosts: The names that it answers to.
        observers: Told of each request, in order.
    """

    def __init__(
        self,
        app: Application,
        *,
        rules: RouteTable,
        keys: KeyRing,
        limits: Limits,
        hosts: Hosts,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.page_token = secrets.token_urlsafe(32)
        self.slots = Slots(limits.concurrency, limits.queue)
        self._app = app
        self._rules = rules
        self._keys = keys
        self._limits = limits
        self._hosts = hosts
        self._observers = observers
        self._rates = Rates(limits.rate, limits.burst)
        self._room = Buffered(limits.buffered_bytes)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Serve one connection of ASGI; websockets are refused."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        visit = Visit(scope["method"])
        for observer in self._observers:
            observer.began(visit)
        try:
            await self._serve(scope, receive, Answer(send, visit), visit)
        finally:
            seconds = time.perf_counter() - visit.started
            for observer in self._observers:
                observer.ended(visit, seconds)

    async def _serve(
        self, scope: Connection, receive: Receive, answer: Answer, visit: Visit
    ) -> None:
        """From the first look to the last byte. This is the outer edge: nothing is raised."""
        state = scope.setdefault("state", {})
        body: WholeBody | StreamedBody | None = None
        try:
            refusal = self._judge(scope, visit)
            is_bulk = visit.rule is not None and visit.rule.is_bulk
            most = self._limits.bulk_bytes if is_bulk else self._limits.body_bytes
            follows, about_body = announced(scope["headers"], most)
            refusal = refusal or about_body
            if refusal is not None:
                await self._refuse(refusal, scope, receive, answer, unread=follows)
                return
            state["request_id"] = visit.id
            state["client"] = visit.key.name if visit.key else None
            state["page_token"] = self.page_token
            if follows:
                body = self._body(receive, most, visit)
            if isinstance(body, WholeBody):
                refusal = await body.read(self._limits.body_seconds)
            if refusal is None:
                refusal = await self._ask(scope, body or receive, answer, visit)
            if refusal is not None:
                unread = body is not None and not body.is_read
                await self._refuse(refusal, scope, receive, answer, unread=unread)
        except ConnectionError:
            visit.status = visit.status or CLIENT_IS_GONE
        except asyncio.CancelledError:
            if _is_gone(scope):
                visit.status = visit.status or CLIENT_IS_GONE
            elif visit.status == 0:
                await self._refuse(STOPPING, scope, receive, answer, unread=False)
        finally:
            if isinstance(body, WholeBody):
                body.close()

    def _body(self, receive: Receive, most: int, visit: Visit) -> WholeBody | StreamedBody:
        if visit.rule is not None and visit.rule.is_bulk:
            return StreamedBody(receive, most, self._limits.body_seconds, visit)
        return WholeBody(receive, most, self._room)

    def _judge(self, scope: Connection, visit: Visit) -> Refusal | None:
        """All that the head of a request decides."""
        headers = scope["headers"]
        host = only(headers, b"host")
        if host is None:
            return NO_HOST
        if not self._hosts.allows(host):
            return WRONG_HOST
        if not _is_clean(scope):
            return BAD_TEXT
        rule = visit.rule = self._rules.find(visit.method, scope["path"])
        if rule is None:
            known = ", ".join(self._rules.methods(scope["path"]))
            return (
                METHOD_NOT_ALLOWED.with_headers((b"allow", known.encode())) if known else NOT_FOUND
            )
        is_safe = visit.method in _SAFE
        if not (is_safe and rule.scope == "public") and is_foreign(headers, host):
            return FOREIGN
        return None if rule.scope == "public" else self._identify(scope, visit, is_safe=is_safe)

    def _identify(self, scope: Connection, visit: Visit, *, is_safe: bool) -> Refusal | None:
        """Whose request it is, whether that client may ask this, and not too often."""
        rule, headers, name = visit.rule, scope["headers"], ""
        if self._keys.is_open:
            client = scope.get("client")
            if client is None or not is_loopback(client[0]):
                return UNAUTHORIZED
            if any(field in _PROXIED for field, _ in headers):
                return UNAUTHORIZED  # a proxy on this machine brings clients from elsewhere
            if not is_safe and _is_browser(headers) and not self._has_token(headers):
                return NO_TOKEN
        else:
            key = visit.key = self._keys.find(only(headers, b"authorization"))
            if key is None:
                return UNAUTHORIZED
            if rule is None or not key.may(rule.scope):
                return FORBIDDEN
            name = key.name
        wait = self._rates.wait(name)
        return TOO_MANY_REQUESTS.with_headers(retry_after(wait)) if wait else None

    def _has_token(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        token = only(headers, TOKEN_HEADER.encode())
        return token is not None and secrets.compare_digest(token, self.page_token.encode())

    async def _ask(
        self, scope: Connection, receive: Receive, answer: Answer, visit: Visit
    ) -> Refusal | None:
        """Let the application answer, with a slot and within the deadline."""
        rule = visit.rule
        seconds = self._limits.handler_seconds if rule and rule.has_deadline else None
        if rule and rule.is_bulk and seconds is not None:
            seconds += self._limits.body_seconds
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                if rule and rule.scope == "public":
                    await self._app(scope, receive, answer)
                else:
                    await self.slots.enter()
                    try:
                        await self._app(scope, receive, answer)
                    finally:
                        self.slots.leave()
        except OverloadedError as error:
            return OVERLOADED.with_headers(retry_after(error.retry_after_seconds))
        except Exception as error:
            if deadline.expired():
                return TOO_SLOW
            if _is_gone(scope):
                raise ConnectionError from None
            if visit.verdict is None:
                _log.error("request %s failed: %s", visit.id, story_of(error))
                return INTERNAL
        if visit.verdict is None and visit.status == 0:
            _log.error("request %s was not answered by %s", visit.id, visit.route)
            return INTERNAL
        return visit.verdict

    async def _refuse(
        self, refusal: Refusal, scope: Connection, receive: Receive, answer: Answer, *, unread: bool
    ) -> None:
        """Send a refusal, unless an answer has begun: that is broken off by not ending it."""
        if answer.has_begun:
            return
        await answer.refuse(refusal.closing() if unread else refusal)
        if unread and not expects_continue(scope["headers"]):
            await discard(receive)
        await answer.finish()


def _is_clean(scope: Connection) -> bool:
    """Whether path and query are UTF-8 without NUL; the server puts U+FFFD where they are not."""
    path, query = scope["path"], scope["query_string"]
    if "\0" in path or b"\0" in query:
        return False
    parts = [query] if b"%" in query else []
    if "\ufffd" in path:
        parts.append(scope.get("raw_path") or b"\xff")
    try:
        return not any("\0" in unquote_to_bytes(part).decode() for part in parts)
    except UnicodeDecodeError:
        return False


def _is_gone(scope: Connection) -> bool:
    """Whether the client hung up, as `GuardedProtocol` says."""
    presence = scope["state"].get("presence")
    return presence is not None and bool(presence.is_gone)


def _is_browser(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(name in (b"origin", b"sec-fetch-site", b"cookie") for name, _ in headers)
