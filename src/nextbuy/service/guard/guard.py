"""The guard: an ASGI application around another, which only sees what may pass."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

import anyio

from nextbuy.errors import OverloadedError
from nextbuy.service.config import Limits
from nextbuy.service.guard.asgi import Application, Connection, Receive, Send
from nextbuy.service.guard.bodies import (
    Buffered,
    StreamedBody,
    WholeBody,
    announced,
    discard,
    expects_continue,
)
from nextbuy.service.guard.entrance import Entrance
from nextbuy.service.guard.hosts import Hosts
from nextbuy.service.guard.keys import KeyRing
from nextbuy.service.guard.logs import story_of
from nextbuy.service.guard.rates import Slots
from nextbuy.service.guard.refusals import (
    INTERNAL,
    OVERLOADED,
    STOPPING,
    TOO_SLOW,
    Refusal,
    retry_after,
)
from nextbuy.service.guard.scopes import RouteTable
from nextbuy.service.guard.visit import Answer, Observer, Presence, Visit

_log = logging.getLogger(__name__)

CLIENT_IS_GONE: Final = 499
"""In log and metrics: the client left before it was answered."""


class Guard:
    """Host, route, origin, key, rate, body, a slot and a deadline, in this order.

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
        self.slots = Slots(limits.concurrency, limits.queue)
        self.buffered = Buffered(limits.buffered_bytes)
        self._app = app
        self._entrance = Entrance(rules, keys, limits, hosts)
        self._limits = limits
        self._observers = observers

    @property
    def page_token(self) -> str:
        """What a page's scripts must send; random in each process."""
        return self._entrance.page_token

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
            await _Passage(self, scope, receive, send, visit).serve()
        finally:
            seconds = time.perf_counter() - visit.started
            for observer in self._observers:
                observer.ended(visit, seconds)

    def judge(self, scope: Connection, visit: Visit) -> tuple[Refusal | None, bool, int]:
        """Why the head is refused, whether a body follows, and how large it may be."""
        refusal = self._entrance.judge(scope, visit)
        is_bulk = visit.rule is not None and visit.rule.is_bulk
        most = self._limits.bulk_bytes if is_bulk else self._limits.body_bytes
        follows, about_body = announced(scope["headers"], most)
        return refusal or about_body, follows, most

    def seconds(self, visit: Visit) -> float | None:
        """How long the application may take; None is as long as it likes."""
        rule = visit.rule
        if rule is None or not rule.has_deadline:
            return None
        return self._limits.handler_seconds + (self._limits.body_seconds if rule.is_bulk else 0.0)

    @property
    def body_seconds(self) -> float:
        """How long a body may take to arrive."""
        return self._limits.body_seconds

    async def work(self, scope: Connection, receive: Receive, answer: Answer, visit: Visit) -> None:
        """Let the application answer, once there is a slot; public routes need none."""
        if visit.rule is not None and visit.rule.scope == "public":
            await self._app(scope, receive, answer)
            return
        await self.slots.enter()
        try:
            await self._app(scope, receive, answer)
        finally:
            self.slots.leave()


class _Passage:
    """One request on its way: its body, the work, and whatever is said instead of an answer."""

    __slots__ = (
        "_answer", "_body", "_guard", "_late", "_presence", "_receive", "_scope", "_visit", "_work",
    )  # fmt: skip

    def __init__(
        self, guard: Guard, scope: Connection, receive: Receive, send: Send, visit: Visit
    ) -> None:
        self._guard = guard
        self._scope = scope
        self._receive = receive
        self._answer = Answer(send, visit)
        self._visit = visit
        self._presence: Presence = scope.setdefault("state", {}).get("presence") or Presence()
        self._body: WholeBody | StreamedBody | None = None
        self._work = anyio.CancelScope()
        self._late: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """From the first look to the last byte. This is the outer edge: nothing is raised."""
        try:
            refusal, follows, most = self._guard.judge(self._scope, self._visit)
            if refusal is not None:
                await self._refuse(refusal, unread=follows)
                return
            self._tell_application()
            refusal = await self._read(most) if follows else None
            await self._refuse(refusal or await self._ask(), unread=self._is_unread())
        except ConnectionError:
            self._visit.status = self._visit.status or CLIENT_IS_GONE
        except asyncio.CancelledError:
            await self._refuse(STOPPING, unread=False)
        finally:
            if isinstance(self._body, WholeBody):
                self._body.close()

    def _tell_application(self) -> None:
        state, key = self._scope["state"], self._visit.key
        state["request_id"] = self._visit.id
        state["client"] = key.name if key else None
        state["page_token"] = self._guard.page_token

    async def _read(self, most: int) -> Refusal | None:
        seconds = self._guard.body_seconds
        if self._visit.rule is not None and self._visit.rule.is_bulk:
            self._body = StreamedBody(self._receive, most, seconds, self._visit)
            return None
        self._body = WholeBody(self._receive, most, self._guard.buffered)
        return await self._body.read(seconds)

    async def _ask(self) -> Refusal | None:
        """Let the application answer within its deadline, and while the client is there.

        The scope is anyio's, for it lets a thread that cannot be stopped come to its end before the
        slot is free: clients that hang up must not fill the machine with threads.
        """
        seconds, visit = self._guard.seconds(self._visit), self._visit
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._is_late) if seconds is not None else None
        self._presence.watch(self._work)
        refusal: Refusal | None = None
        try:
            with self._work:
                receive = self._body or self._receive
                await self._guard.work(self._scope, receive, self._answer, visit)
        except OverloadedError as error:
            refusal = OVERLOADED.with_headers(retry_after(error.retry_after_seconds))
        except Exception as error:
            if visit.verdict is None and not self._presence.is_gone:
                _log.error("request %s failed: %s", visit.id, story_of(error))
                refusal = INTERNAL
        finally:
            if timer is not None:
                timer.cancel()
        if self._late is not None:
            await self._late
            return None
        if self._presence.is_gone:
            raise ConnectionError
        if visit.verdict is None and refusal is None and visit.status == 0:
            _log.error("request %s was not answered by %s", visit.id, visit.route)
            refusal = INTERNAL
        return visit.verdict or refusal

    def _is_late(self) -> None:
        """Answer at once, even where a thread goes on; what has begun is broken off."""
        if self._visit.status == 0 and self._visit.verdict is None:
            self._visit.verdict = TOO_SLOW
            refusing = self._refuse(TOO_SLOW, unread=self._is_unread())
            self._late = asyncio.get_running_loop().create_task(refusing)
        self._work.cancel()

    def _is_unread(self) -> bool:
        return self._body is not None and not self._body.is_read

    async def _refuse(self, refusal: Refusal | None, *, unread: bool) -> None:
        """Send a refusal, unless there is none or an answer has begun, which then never ends."""
        if refusal is None or self._visit.status != 0:
            return
        await self._answer.refuse(refusal.closing() if unread else refusal)
        if unread and not expects_continue(self._scope["headers"]):
            await discard(self._receive)
        await self._answer.finish()
