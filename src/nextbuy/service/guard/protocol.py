"""HTTP/1.1 with limits that hold before any application is asked.

uvicorn's protocol waits for ever for the end of a head, takes heads of any size, and answers what
it cannot parse even while an earlier answer is under way. This one does not.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from nextbuy.service.config import Limits
from nextbuy.service.guard.refusals import (
    MALFORMED,
    NO_CONNECTION,
    PATH_TOO_LONG,
    TINY_CHUNKS,
    TOO_MANY_HEADERS,
    WRONG_VERSION,
    Refusal,
)
from nextbuy.service.guard.visit import Presence

_LINGER_SECONDS: Final = 1.0
_MOST_TURNED_AWAY: Final = 64
"""Connections above the cap that are told so at one time; more are closed without a word."""
_MOST_PIPELINED: Final = 16
_CHUNKS: Final = 1024
_BYTES_A_CHUNK: Final = 16
"""A body of more than `_CHUNKS` chunks needs so many bytes a chunk on average."""
_WIRE_BYTES: Final = 2**20
"""What the framing of a body may take besides as many bytes as the body has."""


class _StopError(Exception):
    """Ends parsing from inside a callback of the parser."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        config: As uvicorn has it, and so the next three.
        server_state: Shared by all connections.
        app_state: Of the lifespan.
        limits: Of heads, connections and times.
        turned_away: Connections above the cap that are being told so, shared by all.
        refused: Told the status of what never got to the application.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        turned_away: set[asyncio.BaseTransport],
        refused: Callable[[int], None],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # What follows `Connection: close` is an error, not another request.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self.limits = limits
        self.timeout_keep_alive = limits.keep_alive_seconds  # type: ignore[assignment]
        self._turned_away = turned_away
        self._refused = refused
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        self._verdict: Refusal | None = None
        self._last_words: Refusal | None = None
        self._is_deaf = False
        self._is_in_body = False
        self._is_in_head = False
        self._is_new_head = False
        self._late_head_bytes = 0
        self._num_headers = self._header_bytes = 0
        self._num_chunks = self._body_bytes = self._wire_bytes = 0

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give it time for a head, or turn it away."""
        super().connection_made(transport)
        if len(self.connections) <= self.limits.connections:
            self._start_head_timer()
            return
        self.connections.discard(self)
        self._is_deaf = True
        if len(self._turned_away) >= _MOST_TURNED_AWAY:
            self._refused(NO_CONNECTION.status)
            transport.abort()
            return
        self._turned_away.add(transport)
        self._say(NO_CONNECTION)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the work that nobody waits for any more."""
        self._turned_away.discard(self.transport)
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self.pipeline.clear()
        self._stop_work()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the limits."""
        if self._is_deaf:
            return
        self._unset_keepalive_if_required()
        self._is_new_head = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_deaf = True  # answered as HTTP/1.1, then closed: see on_headers_complete
        except httptools.HttpParserError:
            self._refuse(self._verdict or MALFORMED)
            return
        if self._is_in_head and not self._is_new_head:
            self._late_head_bytes += len(data)
            if self._late_head_bytes > self.limits.header_bytes + self.limits.path_bytes:
                self._refuse(TOO_MANY_HEADERS)
                return
        if self._is_in_body:
            self._wire_bytes += len(data)
            if self._wire_bytes > 2 * self._body_bytes + _WIRE_BYTES:
                self._refuse(TINY_CHUNKS)
                return
        if self._is_idle():
            self._start_head_timer()

    def eof_received(self) -> None:
        """The client has nothing more to say, so it has left."""

    # The head

    def on_message_begin(self) -> None:
        """Start counting."""
        super().on_message_begin()
        self.scope["state"]["presence"] = Presence()
        self._is_in_head = self._is_new_head = True
        self._late_head_bytes = self._num_headers = self._header_bytes = 0
        self._num_chunks = self._body_bytes = self._wire_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Only paths: neither whole URLs nor `*`."""
        super().on_url(url)
        if len(self.url) > self.limits.path_bytes:
            self._stop(PATH_TOO_LONG)
        if self.url[:1] != b"/":
            self._stop(MALFORMED)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count; trailers count as well, but are dropped: the application has its headers."""
        self._num_headers += 1
        self._header_bytes += len(name) + len(value) + 4
        if self._num_headers > self.limits.headers or self._header_bytes > self.limits.header_bytes:
            self._stop(TOO_MANY_HEADERS)
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Refuse what two parsers might read in two ways, then let the application answer."""
        self._is_in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            self._stop(WRONG_VERSION)
        encodings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if encodings and (version == "1.0" or encodings != [b"chunked"]):
            self._stop(MALFORMED)
        if self.parser.get_method() == b"CONNECT" or len(self.pipeline) >= _MOST_PIPELINED:
            self._stop(MALFORMED)
        super().on_headers_complete()
        self._is_in_body = True
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def _should_upgrade(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        return

    # The body

    def on_chunk_header(self) -> None:
        """A body of very many tiny chunks costs more than it says."""
        self._num_chunks += 1
        if self._num_chunks > _CHUNKS and self._body_bytes < self._num_chunks * _BYTES_A_CHUNK:
            self._stop(TINY_CHUNKS)

    def on_body(self, body: bytes) -> None:
        """Count, and hand over."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next byte belongs to the next request."""
        self._is_in_body = False
        super().on_message_complete()

    # The answer

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, app)
        self._running = cycle

    def on_response_complete(self) -> None:
        """Go on with the next request, or say what must be said last."""
        self._running = None
        if self.transport.is_closing() and self._write_timer is None:
            self._start_write_timer()
        if self._last_words is not None and not self.pipeline:
            self.server_state.total_requests += 1
            self._say(self._last_words)
            return
        super().on_response_complete()
        if self._is_in_body and self._is_idle() and not self.transport.is_closing():
            self._start_head_timer()  # the rest of a body that nobody reads

    def pause_writing(self) -> None:
        """The client reads slower than it is answered."""
        super().pause_writing()
        if self._write_timer is None:
            self._start_write_timer()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def _start_write_timer(self) -> None:
        self._write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """Close what has been idle; what is still unread by then is thrown away."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    # Refusing

    def _stop(self, refusal: Refusal) -> None:
        self._verdict = refusal
        raise _StopError

    def _refuse(self, refusal: Refusal) -> None:
        """Answer instead of the application, but only after what was asked before."""
        self._is_in_head, self._is_deaf = False, True
        newest = self.cycle
        if self._is_idle():
            if self._is_in_body:
                self.transport.close()  # it was answered before its body went wrong
            else:
                self._say(refusal)
        elif not newest.more_body:
            self._last_words = refusal  # the newest request is whole; what follows it is not
        elif self.pipeline and self.pipeline[0][0] is newest:
            self.pipeline.popleft()
            self._last_words = refusal
        elif newest.response_started:
            self.transport.abort()
        else:
            self._stop_work()
            self._say(refusal)

    def _stop_work(self) -> None:
        if self._running is None:
            return
        cycle, self._running = self._running, None
        cycle.disconnected = True
        cycle.message_event.set()
        cycle.scope["state"]["presence"].leave()

    def _say(self, refusal: Refusal) -> None:
        """Write an answer and end; what still comes is dropped for a moment, or the answer would be
        thrown away by the system."""
        if self.transport.is_closing():
            return
        self._refused(refusal.status)
        self.flow.resume_reading()
        self.transport.write(refusal.raw())
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    # Waiting

    def _is_idle(self) -> bool:
        """Whether no answer is under way, so that the next head is due."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        self._is_deaf = True
        self.transport.close()
