"""Run a guarded application until it is told to stop."""

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn

from nextbuy.errors import ConfigError
from nextbuy.service.config import Limits
from nextbuy.service.guard.asgi import Application
from nextbuy.service.guard.hosts import is_loopback
from nextbuy.service.guard.keys import KeyRing
from nextbuy.service.guard.protocol import GuardedProtocol

_log = logging.getLogger(__name__)

STOP_SECONDS: Final = 8
"""Answers under way get so long after a signal; the rest of ten seconds is for closing files."""
_OTHER_DESCRIPTORS: Final = 256
_BACKLOG: Final = 2048


def listen(host: str, port: int, keys: KeyRing) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        ConfigError: If others could reach the service and there are no keys, or the address is
            taken or not ours.
    """
    if keys.is_open and not is_loopback(host):
        raise ConfigError(
            f"Without keys only this machine may ask, and {host} is open to others. Make a key "
            "with 'nextbuy keys add keys.json --name NAME --scope read', and start with "
            "'--keys keys.json'; or listen on 127.0.0.1."
        )
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"{host} is no address to listen on: {error}.") from error
    listening = socket.socket(family, kind)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"Port {port} of {host} is taken, perhaps by another nextbuy. Stop that, or choose "
                "another with --port; 0 takes a free one."
            ) from error
        raise ConfigError(f"{host}:{port} cannot be listened on: {error.strerror}.") from error
    listening.setblocking(False)
    return listening


def server_for(
    app: Application,
    limits: Limits,
    *,
    refused: Callable[[int], None] = lambda _: None,
    stop_seconds: float = STOP_SECONDS,
) -> uvicorn.Server:
    """A server that reads HTTP within the limits, on uvloop where there is one.

    Args:
        app: The guard.
        limits: Of heads, connections and times.
        refused: Told the status of what never got to the guard, such as `Metrics.refused`.
        stop_seconds: How long answers may take after a signal.
    """
    limits = _within_descriptors(limits)
    turned_away: set[asyncio.BaseTransport] = set()
    protocol: Any = functools.partial(
        GuardedProtocol, limits=limits, turned_away=turned_away, refused=refused
    )
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is who connects; a header cannot make a client local
        backlog=_BACKLOG,
        timeout_graceful_shutdown=stop_seconds,  # type: ignore[arg-type]
    )
    return uvicorn.Server(config)


def serve(
    app: Application,
    listening: socket.socket,
    limits: Limits,
    refused: Callable[[int], None] = lambda _: None,
) -> None:
    """Answer until SIGTERM or SIGINT; then stop within ten seconds, and end as signals do."""
    _spare_what_stays()
    host, port = listening.getsockname()[:2]
    _log.info("listening on %s, port %d", host, port)
    server_for(app, limits, refused=refused).run(sockets=[listening])


@contextlib.contextmanager
def served(
    app: Application,
    listening: socket.socket,
    limits: Limits,
    *,
    refused: Callable[[int], None] = lambda _: None,
    stop_seconds: float = STOP_SECONDS,
) -> Iterator[int]:
    """Answer from a thread while the block runs; gives the port.

    Raises:
        ConfigError: If the application does not start.
    """
    server = server_for(app, limits, refused=refused, stop_seconds=stop_seconds)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="nextbuy-server", daemon=True
    )
    port: int = listening.getsockname()[1]
    thread.start()
    try:
        while not server.started:
            thread.join(0.005)
            if not thread.is_alive():
                raise ConfigError("The application did not start; the log says why.")
        yield port
    finally:
        server.should_exit = True
        thread.join()


def _spare_what_stays() -> None:
    """Keep the collector of cycles away from what is loaded.

    A catalog is some hundred thousand objects, and each full collection would hold all requests up
    until it had seen them. It goes on looking as often as ever at what comes later: what an error
    holds may hang in a cycle with it.
    """
    gc.collect()
    gc.freeze()


def _within_descriptors(limits: Limits) -> Limits:
    """Connections that this process may hold: raise the system's limit, or lower ours."""
    try:
        import resource
    except ImportError:  # not on Windows
        return limits
    needed = limits.connections + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
        soft = max(soft, most)
        if soft < needed:
            held = max(1, soft - _OTHER_DESCRIPTORS)
            _log.warning(
                "at most %d connections, not %d: this process may open %d files",
                held, limits.connections, soft,
            )  # fmt: skip
            return limits.model_copy(update={"connections": held})
    return limits
