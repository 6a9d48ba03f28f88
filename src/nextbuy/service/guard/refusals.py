"""What a request is told that does not get through: constant answers that repeat nothing of it."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

SECURITY_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""On every answer that does not say otherwise itself; a page brings its own policy."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One answer, as `application/problem+json`.

    Attributes:
        status: Of HTTP.
        detail: What is wrong and what to do; constant, for nothing of a request is repeated.
        headers: Besides type and length.
        closes: Whether the connection ends with it.
    """

    status: int
    detail: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    closes: bool = False

    def body(self) -> bytes:
        """The problem, RFC 9457."""
        title = HTTPStatus(self.status).phrase
        problem = {
            "type": "about:blank", "title": title, "status": self.status, "detail": self.detail,
        }  # fmt: skip
        return json.dumps(problem).encode()

    def fields(self, length: int) -> list[tuple[bytes, bytes]]:
        """All headers of the answer but those for security."""
        fields = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(length).encode()),
            *self.headers,
        ]
        return [*fields, (b"connection", b"close")] if self.closes else fields

    def with_headers(self, *headers: tuple[bytes, bytes]) -> "Refusal":
        """The same with more headers."""
        return Refusal(self.status, self.detail, (*self.headers, *headers), self.closes)

    def closing(self) -> "Refusal":
        """The same, and the connection ends."""
        return Refusal(self.status, self.detail, self.headers, closes=True)

    def raw(self) -> bytes:
        """The whole answer for a connection whose request never got to the application."""
        body = self.body()
        phrase = HTTPStatus(self.status).phrase
        lines = [f"HTTP/1.1 {self.status} {phrase}".encode()]
        lines += [
            name + b": " + value
            for name, value in (*self.closing().fields(len(body)), *SECURITY_HEADERS)
        ]
        return b"\r\n".join([*lines, b"", body])


def retry_after(seconds: float) -> tuple[bytes, bytes]:
    """The header that says when another try may work: whole seconds, at least 1."""
    return (b"retry-after", str(max(1, int(-(-seconds // 1)))).encode())


_BEARER: Final = b'Bearer realm="nextbuy"'

MALFORMED: Final = Refusal(400, "The request is not valid HTTP/1.1.", closes=True)
NO_HOST: Final = Refusal(400, "A request needs exactly one Host header.", closes=True)
BAD_TEXT: Final = Refusal(400, "Path and query must be UTF-8 without NUL.")
UNAUTHORIZED: Final = Refusal(
    401,
    "A valid key is needed: Authorization: Bearer nb_...",
    ((b"www-authenticate", _BEARER),),
)
FORBIDDEN: Final = Refusal(
    403,
    "This key may not do that.",
    ((b"www-authenticate", _BEARER + b', error="insufficient_scope"'),),
)
FOREIGN: Final = Refusal(403, "Requests from pages of other origins are refused.")
NO_TOKEN: Final = Refusal(403, "The page's token is missing or old: load the page again.")
NOT_FOUND: Final = Refusal(404, "There is no such route.")
METHOD_NOT_ALLOWED: Final = Refusal(405, "This route does not know the method.")
BODY_TOO_SLOW: Final = Refusal(408, "The body did not arrive in time.", closes=True)
BODY_TOO_LARGE: Final = Refusal(413, "The body is larger than this route takes.", closes=True)
TINY_CHUNKS: Final = Refusal(413, "The body comes in too many tiny chunks.", closes=True)
PATH_TOO_LONG: Final = Refusal(414, "Path and query are too long.", closes=True)
ENCODED_BODY: Final = Refusal(415, "Compressed bodies are not read: send it as it is.", closes=True)
WRONG_HOST: Final = Refusal(
    421, "This server does not answer to the name in the Host header: see --allowed-host."
)
TOO_MANY_REQUESTS: Final = Refusal(429, "This key asks too often.")
TOO_MANY_HEADERS: Final = Refusal(431, "The headers are too many or too long.", closes=True)
INTERNAL: Final = Refusal(500, "Something went wrong; the log has it under the X-Request-Id.")
OVERLOADED: Final = Refusal(503, "Too many requests are waiting.", (retry_after(1),))
TOO_SLOW: Final = Refusal(503, "The answer took too long.", (retry_after(1),))
STOPPING: Final = Refusal(503, "The server is stopping.", (retry_after(1),), closes=True)
NO_CONNECTION: Final = Refusal(
    503, "Too many connections are open.", (retry_after(1),), closes=True
)
WRONG_VERSION: Final = Refusal(505, "Only HTTP/1.0 and HTTP/1.1 are spoken.", closes=True)
