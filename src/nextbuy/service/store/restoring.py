"""Put a backup in the place of a store that is damaged or gone; what was there is kept aside."""

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Final

from nextbuy.errors import StoreError
from nextbuy.service.store.opening import is_postgres, open_postgres, path_of
from nextbuy.service.store.sqlite import SqliteStore
from nextbuy.service.store.sqlite_file import take_lock
from nextbuy.service.store.sqlite_format import explained
from nextbuy.storage import sync

_BESIDE: Final = ("-wal", "-shm", "-journal")
"""SQLite would read these into the backup."""


def restore(backup: Path, url: str) -> Path | None:
    """Copy a backup to the file of a store, for which no service may run, or into a PostgreSQL
    store that is empty.

    Args:
        backup: As `back_up` wrote it; it is checked and stays as it is.
        url: Of the store.

    Returns:
        Where the file that was there lies now; None if there was none.

    Raises:
        StoreError: If the backup is not whole, a service is running, or PostgreSQL has purchases.
    """
    checked = SqliteStore(backup, read_only=True)
    try:
        checked.check_whole()
        if is_postgres(url):
            with closing(open_postgres(url)) as store, checked.rows() as rows:
                store.fill(rows)
            return None
    finally:
        checked.close()
    return _replace(path_of(url).absolute(), backup)


def _replace(target: Path, backup: Path) -> Path | None:
    """Put a copy of the backup in the place of a file."""
    if target.exists() and target.samefile(backup):
        raise StoreError(f"{backup} is the store itself. Give a backup of it.")
    lock = take_lock(target)
    part = target.with_name(f".{target.name}.part")
    try:
        with explained(target):
            shutil.copyfile(backup, part)
            sync(part)
            aside = _set_aside(target)
            os.replace(part, target)  # noqa: PTH105  (the word says that nothing is left)
            sync(target.parent)
    finally:
        part.unlink(missing_ok=True)
        lock.release()
    return aside


def _set_aside(target: Path) -> Path | None:
    """Rename the file and what belongs to it, so that somebody may look into them."""
    number = 1
    while (aside := target.with_name(f"{target.name}.replaced-{number}")).exists():
        number += 1
    for end in _BESIDE:
        beside = target.with_name(target.name + end)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + end))
    if not target.exists():
        return None
    return target.rename(aside)
