"""One request on its way through the guard."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Final, Protocol

from nextbuy.service.guard.asgi import Headers, Message, Send
from nextbuy.service.guard.keys import Key
from nextbuy.service.guard.refusals import SECURITY_HEADERS, Refusal
from nextbuy.service.guard.scopes import Rule

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECURITY_NAMES: Final = frozenset(name for name, _ in SECURITY_HEADERS)


@dataclass(slots=True, eq=False)
class Visit:
    """What is known of a request, for its answer, the log and the metrics.

    Attributes:
        method: As it came.
        id: Random; sent back as `X-Request-Id`.
        started: By `time.perf_counter`, seconds.
        rule: Of the route, once it is found.
        key: Whose request it is, once that is known.
        status: Of the answer, 0 until it begins.
        verdict: What to answer instead of what the application says.
        is_complete: Whether the answer was handed over in full.
    """

    method: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    started: float = field(default_factory=time.perf_counter)
    rule: Rule | None = None
    key: Key | None = None
    status: int = 0
    verdict: Refusal | None = None
    is_complete: bool = False

    @property
    def route(self) -> str:
        """The template of the route; never a path, for paths have ids in them."""
        return self.rule.path if self.rule else "none"

    @property
    def known_method(self) -> str:
        """The method, or `other`: clients may invent methods."""
        return self.method if self.method in METHODS else "other"


class Cancellable(Protocol):
    """Work that can be ended."""

    def cancel(self) -> object:
        """End it."""
        ...


class Presence:
    """Whether the client of a request is still there; `scope["state"]["presence"]`."""

    __slots__ = ("_work", "is_gone")

    def __init__(self) -> None:
        self.is_gone = False
        self._work: Cancellable | None = None

    def watch(self, work: Cancellable) -> None:
        """End this work when the client leaves, or now if it has left."""
        self._work = work
        if self.is_gone:
            work.cancel()

    def leave(self) -> None:
        """The client has left."""
        self.is_gone = True
        if self._work is not None:
            self._work.cancel()


class Observer(Protocol):
    """Whoever wants to know of requests: metrics, the log."""

    def began(self, visit: Visit) -> None:
        """A request came in."""
        ...

    def ended(self, visit: Visit, seconds: float) -> None:
        """It was answered, or the client left (status 499), or the answer broke off."""
        ...


class Answer:
    """`send` for the application: adds headers, keeps count, and gives way to a verdict."""

    __slots__ = ("_send", "_visit")

    def __init__(self, send: Send, visit: Visit) -> None:
        self._send = send
        self._visit = visit

    async def __call__(self, message: Message) -> None:
        """Pass a message on; nothing of the application passes once there is a verdict."""
        visit = self._visit
        if visit.verdict is not None:
            return
        if message["type"] == "http.response.start":
            visit.status = message["status"]
            message = {**message, "headers": self._headers(message.get("headers", ()))}
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            visit.is_complete = True
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer instead of the application; the last message is left to `finish`."""
        self._visit.status = refusal.status
        body = refusal.body()
        headers = self._headers(refusal.fields(len(body)))
        await self._send(
            {"type": "http.response.start", "status": refusal.status, "headers": headers}
        )
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self) -> None:
        """End what `refuse` began."""
        self._visit.is_complete = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _headers(self, fields: Headers) -> list[tuple[bytes, bytes]]:
        headers = list(fields)
        present = {name for name, _ in headers}
        if present.isdisjoint(_SECURITY_NAMES):
            headers += SECURITY_HEADERS
        else:
            headers += [pair for pair in SECURITY_HEADERS if pair[0] not in present]
        headers.append((b"x-request-id", self._visit.id.encode()))
        return headers
