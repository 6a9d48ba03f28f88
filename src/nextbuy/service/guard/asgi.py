"""The types of ASGI, and the headers of a request."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Connection = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Connection, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]


def only(headers: Headers, name: bytes) -> bytes | None:
    """The value of a header that stands once; None if it is missing or stands twice."""
    found = [value for key, value in headers if key == name]
    return found[0] if len(found) == 1 else None
