"""One SQLite file: its place, its lock and its connections."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw
from filelock import FileLock, Timeout

from nextbuy.errors import StoreError, StoreUnavailableError
from nextbuy.service.store.file_systems import refuse_network
from nextbuy.service.store.migrations import Migration, migrations_of, missing_steps
from nextbuy.service.store.sqlite_format import (
    check_pages,
    check_version,
    explained,
    how_to_restore,
    shut,
    take_step,
    version_of,
)

logger = logging.getLogger(__name__)

BUSY_SECONDS: Final = 5.0
"""How long a write waits for another process, such as a backup by hand."""


class SqliteFile:
    """A file that is open: one connection that writes durably, one that does not, many that read.

    Args:
        path: Made anew if it is not there.
        read_only: Do not lock, make or change it; a service may be running on it.
        vfs: SQLite's name of the operating system; another one for tests of faults.
        steps: Migrations; None is those of this package.

    Raises:
        StoreError: If it is damaged, something else, in use, or of a newer version.
        StoreUnavailableError: If it cannot be opened now.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        vfs: str | None = None,
        steps: list[Migration] | None = None,
    ) -> None:
        check_version(apsw.sqlite_lib_version())
        self.path, self.read_only, self._vfs = path.absolute(), read_only, vfs
        self._write_lock, self._pool_lock = threading.Lock(), threading.Lock()
        self._idle: list[apsw.Connection] = []
        self._anchors: list[apsw.Connection] = []
        self._writers: dict[bool, apsw.Connection] = {}
        self._closed = threading.Event()
        self._marks: dict[Path, tuple[int, int]] = {}
        self._check_place()
        self._lock = None if read_only else self._take_lock()
        try:
            with explained(self.path):
                self._prepare(migrations_of("sqlite") if steps is None else steps)
                self._anchors = [self._anchor()]
                self._marks = {} if read_only else self._found()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """A connection for reading, for this thread alone until the end of the block."""
        with self._pool_lock:
            if self._closed.is_set():
                raise StoreUnavailableError(f"{self.path} is closed.")
            connection = self._idle.pop() if self._idle else None
        with explained(self.path):
            if connection is None:
                self._check_is_same()
                connection = self._connect(reads=True)
            try:
                yield connection
            except BaseException:
                shut(connection)
                raise
        with self._pool_lock:
            if not self._closed.is_set():
                self._idle.append(connection)
                return
        shut(connection)

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[apsw.Connection]:
        """One transaction, committed at the end of the block; by an error nothing of it stays.

        Args:
            durable: Whether it must survive a power loss; otherwise only a crash of this process.
        """
        if self.read_only:
            raise StoreError(f"{self.path} was opened for reading only.")
        if not self._write_lock.acquire(timeout=BUSY_SECONDS):
            raise StoreUnavailableError(f"{self.path} is busy: another write goes on.")
        try:
            with explained(self.path):
                self._check_is_same()
                connection = self._writer(durable)
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
                    connection.execute("COMMIT")
                except BaseException as error:
                    self._undo(durable, error)
                    raise
        finally:
            self._write_lock.release()

    def empty_log(self) -> None:
        """Move what the write-ahead log holds into the file and cut the log to nothing, so that
        what was deleted is gone from both."""
        with self._write_lock, explained(self.path):
            busy = self._writer(True).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]
        if busy:
            logger.warning(
                "%s: the log could not be emptied; the next writes will do it", self.path
            )

    def close(self) -> None:
        """Let go of connections and lock; may be called twice."""
        with self._write_lock, self._pool_lock:
            self._closed.set()
            for connection in (*self._idle, *self._writers.values(), *self._anchors):
                shut(connection)
            self._idle.clear()
            self._anchors.clear()
            self._writers.clear()
        if self._lock is not None:
            self._lock.release()

    def _check_place(self) -> None:
        if self.path.is_dir() or not self.path.parent.is_dir():
            what = "is a folder" if self.path.is_dir() else "lies in a folder that is not there"
            raise StoreError(f"{self.path} {what}. Give the path of a file in a folder.")
        if self.read_only and not self.path.exists():
            raise StoreError(f"{self.path} is not there. {how_to_restore(self.path)}")
        refuse_network(self.path)

    def _take_lock(self) -> FileLock:
        """The lock dies with the process that holds it."""
        lock = FileLock(
            self.path.with_name(self.path.name + ".lock"),
            thread_local=False,
            fallback_to_soft=False,
        )
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"{self.path} is in use by another service. Stop that one, or give another file; "
                "several services share a store through postgresql://."
            ) from None
        except OSError as error:
            raise StoreError(f"{lock.lock_file} cannot be made: {error.strerror}.") from error
        return lock

    def _prepare(self, steps: list[Migration]) -> None:
        """Check what the file is, and bring it to the newest version."""
        connection = self._connect(reads=self.read_only)
        try:
            version = version_of(connection, self.path)
            missing = missing_steps(version, steps, str(self.path))
            if self.read_only:
                self._check_is_newest(version, steps[-1].version)
                self._idle.append(connection)
                return
            if connection.readonly("main"):
                raise apsw.ReadOnlyError("the file is read-only")
            mode = connection.pragma("journal_mode", "WAL")
            if mode != "wal":
                raise StoreError(f"{self.path} cannot have a write-ahead log, only {mode!r}.")
            check_pages(connection, self.path)
            for step in missing:
                take_step(connection, step)
        except BaseException:
            shut(connection)
            raise
        self._writers[True] = connection

    def _check_is_newest(self, version: int, newest: int) -> None:
        if version < newest:
            raise StoreError(
                f"{self.path} is a store of version {version}; to read it, it must be of version "
                f"{newest}. Start the service on it once."
            )

    def _connect(self, *, reads: bool, durable: bool = True) -> apsw.Connection:
        access = apsw.SQLITE_OPEN_READONLY
        if not self.read_only:
            access = apsw.SQLITE_OPEN_READWRITE
            access |= 0 if self._marks else apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(str(self.path), flags=access, vfs=self._vfs)
        try:
            connection.set_busy_timeout(int(1_000 * BUSY_SECONDS))
            connection.pragma("synchronous", "FULL" if durable else "NORMAL")
            connection.pragma("query_only" if reads else "secure_delete", True)
        except BaseException:
            shut(connection)
            raise
        return connection

    def _anchor(self) -> apsw.Connection:
        """A connection that stays, since the last one to go would take the log with it."""
        connection = self._connect(reads=True)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # opens the log
        return connection

    def _writer(self, durable: bool) -> apsw.Connection:
        if self._closed.is_set():
            raise StoreUnavailableError(f"{self.path} is closed.")
        if durable not in self._writers:
            self._writers[durable] = self._connect(reads=False, durable=durable)
        return self._writers[durable]

    def _undo(self, durable: bool, error: BaseException) -> None:
        """Roll back; where the driver failed, go on with a new connection."""
        connection = self._writers[durable]
        with suppress(apsw.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if isinstance(error, apsw.Error) and not isinstance(error, apsw.BusyError):
            del self._writers[durable]
            shut(connection)

    def _found(self) -> dict[Path, tuple[int, int]]:
        """The file and its log as they lie on disk: device and number of each."""
        marks = {}
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            status = path.stat()
            marks[path] = (status.st_dev, status.st_ino)
        return marks

    def _check_is_same(self) -> None:
        """Refuse a file that has no name any more, since nobody would find again what is written
        there, and one that took the name of ours."""
        if not self._marks:
            return
        try:
            is_same = self._found() == self._marks
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise StoreError(
                f"{self.path} or its log was deleted or replaced while the service was running. "
                f"{how_to_restore(self.path)}"
            )
