"""A trivial application behind the guard, on a real server in a thread, and raw sockets."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from nextbuy.service.config import Limits
from nextbuy.service.guard.guard import Guard
from nextbuy.service.guard.hosts import Hosts
from nextbuy.service.guard.keys import KeyRing
from nextbuy.service.guard.scopes import RouteTable, Rule
from nextbuy.service.guard.serving import listen, served
from nextbuy.service.guard.visit import Observer

RULES = RouteTable(
    [
        Rule(method="GET", path="/live", scope="public"),
        Rule(method="POST", path="/note", scope="public"),
        Rule(method="GET", path="/read", scope="read"),
        Rule(method="GET", path="/users/{user_id}", scope="read"),
        Rule(method="GET", path="/slow", scope="read"),
        Rule(method="GET", path="/thread", scope="read"),
        Rule(method="GET", path="/wait", scope="read", has_deadline=False),
        Rule(method="GET", path="/big", scope="read", has_deadline=False),
        Rule(method="GET", path="/boom", scope="read"),
        Rule(method="GET", path="/half", scope="read"),
        Rule(method="POST", path="/write", scope="write"),
        Rule(method="POST", path="/bulk", scope="write", is_bulk=True),
        Rule(method="POST", path="/admin/{what}", scope="admin"),
    ]
)
SHORT = Limits(
    body_bytes=2**16,
    bulk_bytes=2**18,
    headers=50,
    header_bytes=2**13,
    path_bytes=1024,
    header_seconds=0.4,
    body_seconds=0.4,
    handler_seconds=0.3,
    keep_alive_seconds=0.4,
    write_seconds=0.4,
    rate=1e6,
    burst=10**6,
)
WITHHELD = "what-the-application-keeps-to-itself"


@dataclass
class App:
    """Says what it saw; `cancelled` and `finished` count what became of long requests."""

    seen: list[str] = field(default_factory=list)
    headers: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    cancelled: int = 0
    finished: int = 0
    go_on: asyncio.Event | None = None
    loop: asyncio.AbstractEventLoop | None = None
    in_threads: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    def let_go_on(self) -> None:
        """End every wait at `/wait`."""
        assert self.loop is not None and self.go_on is not None
        self.loop.call_soon_threadsafe(self.go_on.set)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            self.go_on, self.loop = asyncio.Event(), asyncio.get_running_loop()
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        path = scope["path"]
        self.seen.append(path)
        self.headers.append(scope["headers"])
        if path == "/boom":
            raise ValueError(WITHHELD)
        if path == "/thread":
            await anyio.to_thread.run_sync(self.block)
        if path in ("/slow", "/wait"):
            await self.wait(path)
        body = await self.body(receive)
        if path == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            await asyncio.Event().wait()
        if path == "/big":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(256):
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        said = {"path": path, "bytes": len(body), "client": scope["state"]["client"]}
        text = json.dumps(said).encode()
        fields = [(b"content-length", str(len(text)).encode()), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": text})

    async def wait(self, path):
        assert self.go_on is not None
        try:
            await (self.go_on.wait() if path == "/wait" else asyncio.Event().wait())
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1

    def block(self):
        """Work that cannot be stopped."""
        self.in_threads += 1
        self.release.wait(10)
        self.in_threads -= 1

    async def body(self, receive):
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client has left")
            body += message["body"]
            if not message["more_body"]:
                return body


@dataclass
class Shop:
    """A running server: where it is and what is behind it."""

    port: int
    app: App
    guard: Guard

    def wire(self, *, receive_buffer: int | None = None) -> "Wire":
        return Wire(self.port, receive_buffer)

    def ask(self, head: str, body: bytes = b"") -> "Reply":
        """One request on its own connection; `head` without Host and without the empty line."""
        with self.wire() as wire:
            first, _, rest = head.partition("\r\n")
            rest = rest + "\r\n" if rest else ""
            with contextlib.suppress(ConnectionError):
                wire.send(f"{first} HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n".encode() + body)
            return wire.reply()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """A raw connection."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.left = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, path: str = "/live", *lines: str) -> None:
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines])
        self.send(f"{head}\r\n\r\n".encode())

    def reply(self) -> Reply:
        """The next answer, by its length or its chunks."""
        head = self.until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
        status = int(first.split(" ")[1])
        if "content-length" in headers:
            body = self.exactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.until(b"\r\n"), 16):
                body += self.exactly(size)
                self.until(b"\r\n")
            self.until(b"\r\n")
        else:
            body = b""
        return Reply(status, headers, body)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.left:
            self.more()
        found, self.left = self.left.split(mark, 1)
        return found

    def exactly(self, count: int) -> bytes:
        while len(self.left) < count:
            self.more()
        found, self.left = self.left[:count], self.left[count:]
        return found

    def more(self) -> None:
        data = self.socket.recv(2**16)
        if not data:
            raise EOFError(f"the server closed after {self.left!r}")
        self.left += data

    def rest(self) -> bytes:
        """All that comes until the server closes; a reset ends it, too."""
        data = bytearray(self.left)
        with contextlib.suppress(ConnectionError):
            while part := self.socket.recv(2**16):
                data += part
        self.left = b""
        return bytes(data)

    def seconds_until_closed(self) -> float:
        began = time.monotonic()
        self.rest()
        return time.monotonic() - began


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError("it did not come true within 5 seconds")
        time.sleep(0.005)


@contextlib.contextmanager
def open_shop(
    *,
    limits: Limits = SHORT,
    keys: Path | None = None,
    hosts: Hosts | None = None,
    observers: Sequence[Observer] = (),
    refused: Callable[[int], None] = lambda _: None,
    stop_seconds: float = 5.0,
) -> Iterator[Shop]:
    app, ring = App(), KeyRing(keys)
    guard = Guard(
        app,
        rules=RULES,
        keys=ring,
        limits=limits,
        hosts=hosts or Hosts(),
        observers=observers,
    )
    listening = listen("127.0.0.1", 0, ring)
    with served(guard, listening, limits, refused=refused, stop_seconds=stop_seconds) as port:
        yield Shop(port, app, guard)
