"""Live purchases in PostgreSQL, for several services on several hosts."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors

from nextbuy.errors import ConflictError, StoreError
from nextbuy.service.store.migrations import Migration, migrations_of, missing_steps
from nextbuy.service.store.opening import need_sqlite
from nextbuy.service.store.postgres_connections import Connection, Connections, is_lost
from nextbuy.service.store.protocol import Receipt, ServedOffer, StoredPurchase, Submission
from nextbuy.service.store.rows import (
    PURCHASE_COLUMNS,
    SERVED_COLUMNS,
    STRAY_PURCHASE,
    TABLES,
    Row,
    digest_of,
    purchase_rows,
    served_offer,
    served_row,
    stored_purchase,
    submission_row,
)
from nextbuy.service.store.settling import Known, Settled, settle

_WRITE_LOCK: Final = 0x4E427579
_MIGRATE_LOCK: Final = 0x4E42757A
_TRIES: Final = 4
_PAGE: Final = 1_000
_T = TypeVar("_T")


class PostgresStore:
    """A `Store` in a database of its own, or in the first schema of the `search_path`.

    Writers of all services take turns by an advisory lock, so that sequences are given in the order
    of commits: whoever has read up to a sequence misses nothing below it.

    Args:
        url: `postgresql://USER:PASSWORD@HOST:PORT/NAME`.
        place: The URL as it may be shown.
        read_only: Change nothing.
        steps: Migrations; None is those of this package.

    Raises:
        ConfigError: If the URL cannot be understood.
        StoreError: If the tables are of something else, or of a newer version.
        StoreUnavailableError: If the server cannot be reached now.
    """

    def __init__(
        self,
        url: str,
        place: str,
        *,
        read_only: bool = False,
        steps: list[Migration] | None = None,
    ) -> None:
        self.place, self._read_only = place, read_only
        self._connections = Connections(url, place, read_only=read_only)
        try:
            self._prepare(migrations_of("postgres") if steps is None else steps)
        except BaseException:
            self.close()
            raise

    def write(self, submissions: Sequence[Submission]) -> list[Receipt | ConflictError]:
        """As `Store.write`; a COMMIT without an answer is looked up before the next try."""
        if not submissions:
            return []
        self._check_writes()
        unknown: list[Settled] = []  # what a lost COMMIT may have stored
        return self._again(lambda db: _write(db, submissions, unknown))

    def purchases_of(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[StoredPurchase]]:
        """As `Store.purchases_of`."""
        rows = self._rows(
            f"SELECT {PURCHASE_COLUMNS} FROM purchases WHERE user_id = ANY(%s) ORDER BY sequence",  # noqa: S608
            (list(user_ids),),
        )
        found: dict[str, list[StoredPurchase]] = {}
        for stored in map(stored_purchase, rows):
            found.setdefault(stored.purchase.user_id, []).append(stored)
        return found

    def after(self, sequence: int, most: int) -> Sequence[StoredPurchase]:
        """As `Store.after`."""
        rows = self._rows(
            f"SELECT {PURCHASE_COLUMNS} FROM purchases WHERE sequence > %s"  # noqa: S608
            " ORDER BY sequence LIMIT %s",
            (sequence, most),
        )
        return [stored_purchase(row) for row in rows]

    def last_sequence(self) -> int:
        """As `Store.last_sequence`."""
        return self._again(_last_sequence)

    def identity(self) -> str:
        """As `Store.identity`."""
        return str(self._rows("SELECT name FROM identity", ())[0][0])

    def forget(self, user_id: str) -> int:
        """As `Store.forget`. The server removes the deleted rows from its disk when it vacuums."""
        self._check_writes()
        return self._again(lambda db: _forget(db, user_id))

    def forgotten(self) -> frozenset[bytes]:
        """As `Store.forgotten`."""
        return frozenset(bytes(row[0]) for row in self._rows("SELECT digest FROM forgotten", ()))

    def write_served(self, offers: Sequence[ServedOffer]) -> None:
        """As `Store.write_served`."""
        self._check_writes()
        self._again(lambda db: _write_served(db, offers))

    def served(self, since: int) -> Iterator[ServedOffer]:
        """As `Store.served`."""
        query = (
            f"SELECT id, {SERVED_COLUMNS} FROM served WHERE (served, id) > (%s, %s)"  # noqa: S608
            " ORDER BY served, id LIMIT %s"
        )
        place = (since, 0)
        while rows := self._rows(query, (*place, _PAGE)):
            yield from (served_offer(row[1:]) for row in rows)
            place = (rows[-1][1], rows[-1][0])

    def prune_served(self, before: int) -> int:
        """As `Store.prune_served`."""
        self._check_writes()
        query = (
            "DELETE FROM served WHERE id IN"
            " (SELECT id FROM served WHERE served < %s ORDER BY served LIMIT %s)"
        )
        total = 0
        while True:
            num_deleted = self._again(lambda db: db.execute(query, (before, _PAGE)).rowcount)
            total += num_deleted
            if num_deleted < _PAGE:
                return total

    def check(self) -> None:
        """As `Store.check`."""
        self._check_writes()
        self._again(lambda db: db.execute("UPDATE probe SET number = number + 1"))

    def check_whole(self) -> None:
        """Read every row; may take minutes.

        Raises:
            StoreError: If a purchase belongs to no submission, or the server finds damage.
        """
        with self._connections.own() as db:
            found = db.execute(STRAY_PURCHASE).fetchone()
        if found is not None:
            raise StoreError(
                f"{self.place} is damaged: the purchase {found[0]} belongs to no submission. "
                "Restore a backup."
            )

    def back_up(self, target: Path) -> None:
        """As `Store.back_up`; the copy is a store in an SQLite file.

        Raises:
            MissingExtraError: If the driver of SQLite is not installed.
        """
        need_sqlite("A backup, which is an SQLite file,")
        from nextbuy.service.store.copies import write_copy

        with self._connections.own() as db:
            db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            write_copy(target, {table: _stream(db, table, TABLES[table]) for table in TABLES})

    def fill(self, tables: Mapping[str, Iterable[Row]]) -> None:
        """Take over the rows of another store, all or nothing.

        Args:
            tables: Rows of each of `TABLES`, in the order of its columns.

        Raises:
            StoreError: If there is something in this store already.
        """
        self._check_writes()
        with self._connections.own() as db, _transaction(db):
            db.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITE_LOCK,))
            if _last_sequence(db) or db.execute("SELECT 1 FROM forgotten").fetchone():
                raise StoreError(f"{self.place} is not empty. Give a new database or schema.")
            db.execute("DELETE FROM identity")
            for table, columns in TABLES.items():
                query = f"COPY {table} ({columns}) FROM STDIN"
                with db.cursor() as cursor, cursor.copy(query.encode()) as copy:
                    for row in tables[table]:
                        copy.write_row(row)

    def close(self) -> None:
        """As `Store.close`."""
        self._connections.close()

    def _rows(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self._again(lambda db: db.execute(query.encode(), values).fetchall())

    def _check_writes(self) -> None:
        if self._read_only:
            raise StoreError(f"{self.place} was opened for reading only.")

    def _again(self, work: Callable[[Connection], _T]) -> _T:
        """Do what may be done again: on a new connection if that broke, and a few times if the
        server asks for it."""
        for num_left in reversed(range(_TRIES)):
            with self._connections.borrowed() as db:
                try:
                    return work(db)
                except (errors.SerializationFailure, errors.DeadlockDetected):
                    if not num_left:
                        raise
                except psycopg.OperationalError:
                    if not (num_left and is_lost(db)):
                        raise
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311  (so that two do not meet again)
        raise StoreError(f"{self.place} gave no answer.")

    def _prepare(self, steps: list[Migration]) -> None:
        """Bring the tables to the newest version; services that start together take turns."""
        newest = steps[-1].version
        with self._connections.own() as db:
            if self._read_only:
                version = self._version_of(db)
                if missing_steps(version, steps, self.place):
                    raise StoreError(
                        f"{self.place} is a store of version {version}; to read it, it must be of "
                        f"version {newest}. Start the service on it once."
                    )
                return
            db.execute("SELECT pg_advisory_lock(%s)", (_MIGRATE_LOCK,))
            for step in missing_steps(self._version_of(db), steps, self.place):
                with db.transaction():
                    db.execute("CREATE TABLE IF NOT EXISTS nextbuy_store (version integer)")
                    db.execute(step.sql.encode())
                    db.execute("DELETE FROM nextbuy_store")
                    db.execute("INSERT INTO nextbuy_store VALUES (%s)", (step.version,))

    def _version_of(self, db: Connection) -> int:
        """0 where there are no tables yet.

        Raises:
            StoreError: If there are tables of something else.
        """
        query = "SELECT to_regclass('nextbuy_store'), to_regclass('purchases')"
        store, purchases = db.execute(query).fetchall()[0]
        if store is not None:
            row = db.execute("SELECT version FROM nextbuy_store").fetchone()
            return 0 if row is None else int(row[0])
        if purchases is not None:
            raise StoreError(
                f"{self.place} has a table purchases, but is no store of nextbuy. Give a database "
                "of its own, or a schema: ?options=-csearch_path%3DNAME."
            )
        return 0


@contextmanager
def _transaction(db: Connection) -> Iterator[None]:
    """One transaction; by an error nothing of it stays."""
    db.execute("BEGIN")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(psycopg.Error):
            db.execute("ROLLBACK")
        raise


def _write(
    db: Connection, submissions: Sequence[Submission], unknown: list[Settled]
) -> list[Receipt | ConflictError]:
    """Store a group.

    Args:
        db: As it is.
        submissions: The group.
        unknown: What earlier tries wanted to commit; this one is added. The lock is free only when
            the server has done with them, so what is not there now will not come.
    """
    with _transaction(db):
        db.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITE_LOCK,))
        rows = db.execute(
            "SELECT key, digest, first_sequence, count FROM submissions WHERE key = ANY(%s)",
            ([one.key for one in submissions],),
        )
        known = {key: Known(bytes(digest), *place) for key, digest, *place in rows}
        for before in unknown:
            if _was_stored(before, known):
                return before.outcomes
        settled = settle(submissions, known, _last_sequence(db))
        if settled.new:
            _insert(db, settled)
            unknown.append(settled)
    return settled.outcomes


def _was_stored(settled: Settled, known: Mapping[str, Known]) -> bool:
    """Whether what was given places lies at them: all of it does, or nothing."""
    first, submission = settled.new[0]
    return known.get(submission.key) == Known(submission.digest, first, len(submission.purchases))


def _insert(db: Connection, settled: Settled) -> None:
    with db.cursor() as cursor:
        with cursor.copy("COPY submissions (first_sequence, count, key, digest) FROM STDIN") as to:
            for first, one in settled.new:
                to.write_row(submission_row(first, one))
        with cursor.copy(f"COPY purchases ({PURCHASE_COLUMNS}) FROM STDIN".encode()) as to:
            for first, one in settled.new:
                for row in purchase_rows(first, one):
                    to.write_row(row)


def _write_served(db: Connection, offers: Sequence[ServedOffer]) -> None:
    with (
        db.cursor() as cursor,
        cursor.copy(f"COPY served ({SERVED_COLUMNS}) FROM STDIN".encode()) as to,
    ):
        for offer in offers:
            to.write_row(served_row(offer))


def _last_sequence(db: Connection) -> int:
    """Submissions are never deleted, so the last of them has the highest sequence ever given."""
    row = db.execute(
        "SELECT first_sequence + count - 1 FROM submissions ORDER BY first_sequence DESC LIMIT 1"
    ).fetchone()
    return 0 if row is None else int(row[0])


def _stream(db: Connection, table: str, columns: str) -> Iterator[Row]:
    """All rows of a table, fetched a page at a time."""
    with db.cursor(name=f"copy_{table}") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(f"SELECT {columns} FROM {table} ORDER BY 1".encode())  # noqa: S608
        yield from cursor


def _forget(db: Connection, user_id: str) -> int:
    with _transaction(db):
        db.execute("DELETE FROM served WHERE user_id = %s", (user_id,))
        deleted = db.execute("DELETE FROM purchases WHERE user_id = %s", (user_id,)).rowcount
        db.execute(
            "INSERT INTO forgotten VALUES (%s) ON CONFLICT DO NOTHING", (digest_of(user_id),)
        )
    return deleted
