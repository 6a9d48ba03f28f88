"""What makes an SQLite file a store, whether it is whole, and what the driver's errors mean."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

from nextbuy.errors import StoreError, StoreUnavailableError
from nextbuy.service.store.migrations import Migration

logger = logging.getLogger(__name__)

APPLICATION_ID: Final = 0x4E427579
"""`NBuy`, in the header of every store."""
CHECK_SECONDS: Final = 2.0
"""How long the check at opening may take; a larger store is checked in part."""

_SAFE: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""Before these, two connections to one WAL file could lose what was committed."""
_PASSING: Final = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.IOError,
    apsw.NoMemError,
    apsw.ProtocolError,
    apsw.InterruptError,
    apsw.CantOpenError,
    apsw.ConnectionClosedError,
)


def check_version(version: str) -> None:
    """Return if this SQLite keeps what it commits.

    Raises:
        StoreError: If it is of a version that can lose writes of a WAL file.
    """
    numbers = tuple(int(part) for part in version.split("."))
    is_patched = any(numbers[:2] == safe[:2] and numbers >= safe for safe in _SAFE)
    if not (is_patched or numbers >= _SAFE[-1]):
        raise StoreError(
            f"SQLite {version} can lose committed writes. Install a newer one: "
            "pip install --upgrade apsw"
        )


def version_of(connection: apsw.Connection, path: Path) -> int:
    """The version of the store in a file; 0 for a new file.

    Raises:
        StoreError: If it is a database of something else.
    """
    application = connection.pragma("application_id")
    version = connection.pragma("user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError(
            f"{path} is an SQLite database, but no store of nextbuy (application id "
            f"{application}, {tables} tables and indexes). Give another path. If a store was "
            f"there: {how_to_restore(path)}"
        )
    return int(version)


def check_pages(connection: apsw.Connection, path: Path) -> None:
    """Look for damage, for some seconds at most."""
    end = time.monotonic() + CHECK_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchall()
    except apsw.InterruptError:
        logger.info("%s is large and was checked in part", path)
        return
    finally:
        connection.set_progress_handler(None)
    if found != [("ok",)]:
        raise apsw.CorruptError(str(found[0][0]))


def take_step(connection: apsw.Connection, step: Migration) -> None:
    """Bring a file to the version of a step, whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for _ in connection.execute(step.sql):
            pass
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", step.version)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(apsw.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


def shut(connection: apsw.Connection) -> None:
    """Close a connection; what the disk says to that changes nothing of what was committed."""
    try:
        connection.close(True)
    except apsw.Error as error:
        logger.warning("a connection was closed with an error: %s", error)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of the driver and of the disk become ours."""
    try:
        yield
    except apsw.Error as error:
        raise _meaning(error, path) from error
    except OSError as error:
        raise StoreUnavailableError(
            f"{path} cannot be reached: {error.strerror or error}."
        ) from error


def how_to_restore(path: Path) -> str:
    """What to type, for the end of a message."""
    return f"Stop the service and restore a backup: nextbuy store restore BACKUP {path}"


def _meaning(error: apsw.Error, path: Path) -> StoreError:
    if isinstance(error, apsw.FullError):
        return StoreUnavailableError(
            f"The disk of {path} is full. Nothing was written; free some space.", 5.0
        )
    if isinstance(error, _PASSING):
        return StoreUnavailableError(f"{path} cannot be used now: {error}.")
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError):
        return StoreError(f"{path} cannot be written: {error}. Give the service the right to.")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        first = str(error).replace("*** in database main ***\n", "").split("\n", maxsplit=1)[0]
        return StoreError(f"{path} is damaged or no store: {first}. {how_to_restore(path)}")
    return StoreError(f"{path} cannot be used: {error}.")
