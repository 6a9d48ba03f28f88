"""Copies of a store: one SQLite file, synced, that appears whole or not at all."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import apsw

from nextbuy.errors import StoreError
from nextbuy.service.store.migrations import migrations_of
from nextbuy.service.store.rows import TABLES, Row
from nextbuy.service.store.sqlite_format import explained, take_step
from nextbuy.storage import sync


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """A path to write a copy to; at the end of the block it is checked and becomes the target.

    Raises:
        StoreError: If the target is there already, or the copy is not whole.
    """
    if target.exists():
        raise _taken(target)
    if not target.absolute().parent.is_dir():
        raise StoreError(f"{target} lies in a folder that is not there. Make it first.")
    part = target.with_name(f".{target.name}.part")
    with explained(target):
        try:
            part.unlink(missing_ok=True)
            yield part
            _finish(part)
            os.link(part, target)  # unlike a rename it never replaces what is there
            sync(target.parent)
        except FileExistsError as error:
            raise _taken(target) from error
        finally:
            part.unlink(missing_ok=True)


def write_copy(target: Path, tables: Mapping[str, Iterable[Row]]) -> None:
    """Make a store in a new file from rows.

    Args:
        target: Must not be there.
        tables: Rows of each of `TABLES`, in the order of its columns.
    """
    with published(target) as part:
        copy = apsw.Connection(str(part))
        try:
            copy.pragma("journal_mode", "OFF")  # what is not whole is thrown away
            copy.pragma("synchronous", "OFF")
            for step in migrations_of("sqlite"):
                take_step(copy, step)
            copy.execute("BEGIN")
            copy.execute("DELETE FROM identity")
            for table, columns in TABLES.items():
                marks = ", ".join("?" for _ in columns.split(","))
                copy.executemany(
                    f"INSERT INTO {table} ({columns}) VALUES ({marks})",  # noqa: S608
                    tables[table],
                )
            copy.execute("COMMIT")
        finally:
            copy.close(True)


def _finish(part: Path) -> None:
    """Check the copy, leave no log beside it, and sync it."""
    copy = apsw.Connection(str(part))
    try:
        copy.pragma("journal_mode", "DELETE")
        found = copy.execute("PRAGMA quick_check(1)").fetchall()
    finally:
        copy.close(True)
    if found != [("ok",)]:
        raise apsw.CorruptError(f"the copy is not whole, {found[0][0]}")
    sync(part)


def _taken(target: Path) -> StoreError:
    return StoreError(f"{target} is there already. Give the copy a new name.")
