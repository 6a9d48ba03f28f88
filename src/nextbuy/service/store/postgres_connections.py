"""Connections to one PostgreSQL server: few, watched, and given up fast while it is away."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import conninfo, errors

from nextbuy.errors import ConfigError, StoreError, StoreUnavailableError

logger = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 2
STATEMENT_SECONDS: Final = 4.0
"""The server gives a statement up after this."""
HANG_SECONDS: Final = 5.0
"""We give the server up after this: it is there but does not answer."""
PAUSE_SECONDS: Final = 1.0
"""How long a server that is away is not asked again."""
SIZE: Final = 16

Connection = psycopg.Connection[tuple[Any, ...]]

_PASSING: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # a standby, which may be promoted
    errors.InFailedSqlTransaction,
)


class Connections:
    """A pool with a breaker.

    While the server cannot be reached, one caller a second tries and all others are told at once.
    `psycopg_pool` waits longer from try to try, up to minutes, so that a server that is back would
    not be noticed.

    Args:
        url: With the password, if there is one.
        place: The URL as it may be shown.
        read_only: Whether the server shall refuse writes.
        size: Connections at most; more callers wait.

    Raises:
        ConfigError: If the URL cannot be understood.
    """

    def __init__(self, url: str, place: str, *, read_only: bool = False, size: int = SIZE) -> None:
        self.place, self.read_only = place, read_only
        self._parameters = _parameters_of(url, place, read_only=read_only)
        self._free = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._deadlines: dict[Connection, float] = {}
        self._closed = threading.Event()
        self._is_away, self._is_tried, self._ask_again = False, False, 0.0
        self._watcher = threading.Thread(
            target=self._watch, name="nextbuy-postgres-watcher", daemon=True
        )
        self._watcher.start()

    @contextmanager
    def borrowed(self) -> Iterator[Connection]:
        """A connection in autocommit, for the block; not kept if it breaks in it.

        Raises:
            StoreUnavailableError: If the server is away, hangs, or no connection is free.
            StoreError: For what another try will not mend.
        """
        with self._explained():
            if not self._free.acquire(timeout=CONNECT_SECONDS):
                raise StoreUnavailableError(f"All connections to {self.place} are in use.")
            try:
                connection = self._take()
                try:
                    yield connection
                finally:
                    self._give_back(connection)
            finally:
                self._free.release()

    @contextmanager
    def own(self) -> Iterator[Connection]:
        """A new connection that may work for as long as it takes."""
        with self._explained(), self._connect() as connection:
            connection.execute("SET statement_timeout = 0")
            connection.execute("SET idle_in_transaction_session_timeout = 0")
            yield connection

    def close(self) -> None:
        """Let go of the server; may be called twice."""
        self._closed.set()
        self._drop_idle()
        self._watcher.join()

    def _take(self) -> Connection:
        if self._closed.is_set():
            raise StoreUnavailableError(f"The store at {self.place} is closed.")
        with self._lock:
            if self._idle:
                return self._watched(self._idle.pop())
            if self._is_away and (self._is_tried or time.monotonic() < self._ask_again):
                raise StoreUnavailableError(f"{self.place} cannot be reached.", PAUSE_SECONDS)
            self._is_tried = self._is_away
        try:
            connection = self._connect()
        except psycopg.Error:
            self._is_gone()
            raise
        with self._lock:
            if self._is_away:
                logger.warning("%s can be reached again", self.place)
            self._is_away = self._is_tried = False
            return self._watched(connection)

    def _watched(self, connection: Connection) -> Connection:
        self._deadlines[connection] = time.monotonic() + HANG_SECONDS
        return connection

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            self._deadlines.pop(connection, None)
            is_whole = (
                not connection.closed
                and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            )
            if is_whole and not self._closed.is_set():
                self._idle.append(connection)
                return
        connection.close()
        if not is_whole:
            self._drop_idle()  # they are as old as this one

    def _drop_idle(self) -> None:
        with self._lock:
            dropped, self._idle = self._idle, []
        for connection in dropped:
            connection.close()

    def _is_gone(self) -> None:
        """Ask no more for a while."""
        with self._lock:
            if not self._is_away:
                logger.warning("%s cannot be reached", self.place)
            self._is_away, self._is_tried = True, False
            self._ask_again = time.monotonic() + PAUSE_SECONDS

    def _connect(self) -> Connection:
        connection: Connection = psycopg.connect(**self._parameters, autocommit=True)
        try:
            connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') IN ('off', 'local')"
            )
        except BaseException:
            connection.close()
            raise
        return connection

    def _watch(self) -> None:
        """Cut connections whose server does not answer: the driver itself would wait for ever."""
        while not self._closed.wait(HANG_SECONDS / 20):
            now = time.monotonic()
            with self._lock:
                hung = [one for one, deadline in self._deadlines.items() if deadline < now]
                for connection in hung:
                    del self._deadlines[connection]
                    _cut(connection)
            if hung:
                self._is_gone()
                self._drop_idle()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the driver become ours."""
        try:
            yield
        except _PASSING as error:
            raise StoreUnavailableError(
                f"{self.place} cannot be used now: {_first_line(error)}."
            ) from error
        except psycopg.Error as error:
            raise StoreError(f"{self.place} cannot be used: {_first_line(error)}.") from error


def is_lost(connection: Connection) -> bool:
    """Whether the server or the way to it went away, so that a new connection may do."""
    return connection.closed or connection.broken


def _first_line(error: psycopg.Error) -> str:
    text = str(error.diag.message_primary or error) or type(error).__name__
    return text.split("\n", maxsplit=1)[0].rstrip(".")


def _cut(connection: Connection) -> None:
    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as wire,
    ):
        wire.shutdown(socket.SHUT_RDWR)


def _parameters_of(url: str, place: str, *, read_only: bool) -> dict[str, Any]:
    """For the driver; what the URL says wins, but for time limits."""
    try:
        told = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        # Its text may quote the password.
        raise ConfigError(
            f"{place} cannot be understood. Write postgresql://USER:PASSWORD@HOST:PORT/NAME, "
            "with % signs and the like in the password escaped as %25."
        ) from None
    limits = {
        "statement_timeout": int(1_000 * STATEMENT_SECONDS),
        "idle_in_transaction_session_timeout": int(1_000 * HANG_SECONDS),
        "default_transaction_read_only": "on" if read_only else "off",
        "default_transaction_isolation": r"read\ committed",
    }
    options = " ".join(f"-c {name}={value}" for name, value in limits.items())
    defaults: dict[str, Any] = {
        "application_name": "nextbuy",
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 5,
        "keepalives_interval": 1,
        "keepalives_count": 3,
    }
    return defaults | told | {"options": f"{told.get('options') or ''} {options}".strip()}
