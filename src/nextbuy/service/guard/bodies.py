"""Bodies of requests: never more of them in memory than the limits say, and not for long."""

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from nextbuy.service.guard.asgi import Headers, Message, Receive
from nextbuy.service.guard.refusals import (
    BODY_TOO_LARGE,
    BODY_TOO_SLOW,
    ENCODED_BODY,
    OVERLOADED,
    Refusal,
)
from nextbuy.service.guard.visit import Visit

_LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 2**26
_DISCONNECT: Final[Message] = {"type": "http.disconnect"}


def announced(headers: Headers, most: int) -> tuple[bool, Refusal | None]:
    """Whether a body follows, and why it would be refused without reading any of it."""
    follows, refusal = False, None
    for name, value in headers:
        if name == b"content-length":
            length = int(value) if len(value) < 20 and value.isdigit() else most + 1
            follows = follows or length > 0
            if length > most:
                refusal = BODY_TOO_LARGE
        elif name == b"transfer-encoding":
            follows = True
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            refusal = ENCODED_BODY
    return follows, refusal


class Buffered:
    """How many bytes of bodies are held by all requests together."""

    def __init__(self, most: int) -> None:
        self.left = most

    def take(self, count: int) -> bool:
        """Count bytes in, if there is room."""
        if count > self.left:
            return False
        self.left -= count
        return True

    def give_back(self, count: int) -> None:
        """Count them out."""
        self.left += count


class WholeBody:
    """A body that is read before the application is called, so that slow clients hold no slot.

    Args:
        receive: Of the server.
        most: Bytes.
        room: What all bodies share.
    """

    def __init__(self, receive: Receive, most: int, room: Buffered) -> None:
        self._receive = receive
        self._most = most
        self._room = room
        self._body = bytearray()
        self._is_read = False
        self._is_given = False

    async def read(self, seconds: float) -> Refusal | None:
        """Read it to its end; a refusal if it is too large or too slow.

        Raises:
            ConnectionError: If the client left before the end.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._read()
        except TimeoutError:
            return BODY_TOO_SLOW

    async def _read(self) -> Refusal | None:
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ConnectionError
            part = message.get("body", b"")
            if len(self._body) + len(part) > self._most:
                return BODY_TOO_LARGE
            if not self._room.take(len(part)):
                return OVERLOADED.closing()
            self._body += part
            if not message.get("more_body", False):
                self._is_read = True
                return None

    async def __call__(self) -> Message:
        """`receive` for the application: the body in one piece, then whatever the server says."""
        if self._is_given:
            return await self._receive()
        self._is_given = True
        return {"type": "http.request", "body": bytes(self._body), "more_body": False}

    def close(self) -> None:
        """Let go of the bytes."""
        self._room.give_back(len(self._body))
        self._body = bytearray()

    @property
    def is_read(self) -> bool:
        """Whether nothing of it is still to come."""
        return self._is_read


class StreamedBody:
    """A long body that the application reads piece by piece.

    What is too large or too slow ends as if the client had left; the guard then answers with the
    verdict of the visit. Only waiting for the client counts as slow, not the application's work.
    """

    def __init__(self, receive: Receive, most: int, seconds: float, visit: Visit) -> None:
        self._receive = receive
        self._left = most
        self._seconds = seconds
        self._visit = visit
        self.is_read = False

    async def __call__(self) -> Message:
        """`receive` for the application."""
        if self.is_read:
            return await self._receive()
        if self._visit.verdict is not None:
            return _DISCONNECT
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                message = await self._receive()
        except TimeoutError:
            return self._refuse(BODY_TOO_SLOW)
        self._seconds -= time.monotonic() - began
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            return self._refuse(BODY_TOO_LARGE)
        self.is_read = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def _refuse(self, refusal: Refusal) -> Message:
        if self._visit.status == 0:
            self._visit.verdict = refusal
        return _DISCONNECT


async def discard(receive: Receive) -> None:
    """Read what still comes for a moment and drop it.

    Closing while bytes are unread would make the system throw away the answer on its way.
    """
    count = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while count < _LINGER_BYTES:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                count += len(message.get("body", b""))
    except TimeoutError:
        return


def expects_continue(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the client waits with its body for a word of ours."""
    return any(name == b"expect" for name, _ in headers)
