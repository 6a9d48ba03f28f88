"""Live purchases in one SQLite file, for one service on one host."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from nextbuy.errors import ConflictError
from nextbuy.service.store.copies import published
from nextbuy.service.store.migrations import Migration
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
from nextbuy.service.store.settling import Known, settle
from nextbuy.service.store.sqlite_file import SqliteFile

_PAGE = 1_000


class SqliteStore:
    """A `Store` in a file; see `SqliteFile` for its arguments and what opening may raise.

    What `write` and `forget` return is on disk: the write-ahead log is synced at every commit.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        vfs: str | None = None,
        steps: list[Migration] | None = None,
    ) -> None:
        self._file = SqliteFile(path, read_only=read_only, vfs=vfs, steps=steps)

    def write(self, submissions: Sequence[Submission]) -> list[Receipt | ConflictError]:
        """As `Store.write`."""
        if not submissions:
            return []
        with self._file.writing() as db:
            known = _known(db, (one.key for one in submissions))
            settled = settle(submissions, known, _last_sequence(db))
            db.executemany(
                "INSERT INTO submissions (first_sequence, count, key, digest) VALUES (?, ?, ?, ?)",
                [submission_row(first, one) for first, one in settled.new],
            )
            for first, one in settled.new:
                db.executemany(
                    f"INSERT INTO purchases ({PURCHASE_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
                    purchase_rows(first, one),
                )
        return settled.outcomes

    def purchases_of(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[StoredPurchase]]:
        """As `Store.purchases_of`."""
        query = f"SELECT {PURCHASE_COLUMNS} FROM purchases WHERE user_id = ? ORDER BY sequence"  # noqa: S608
        with self._file.reading() as db:
            found = {
                user: [stored_purchase(row) for row in db.execute(query, (user,))]
                for user in dict.fromkeys(user_ids)
            }
        return {user: purchases for user, purchases in found.items() if purchases}

    def after(self, sequence: int, most: int) -> Sequence[StoredPurchase]:
        """As `Store.after`."""
        query = (
            f"SELECT {PURCHASE_COLUMNS} FROM purchases WHERE sequence > ? ORDER BY sequence LIMIT ?"  # noqa: S608
        )
        with self._file.reading() as db:
            return [stored_purchase(row) for row in db.execute(query, (sequence, most))]

    def last_sequence(self) -> int:
        """As `Store.last_sequence`."""
        with self._file.reading() as db:
            return _last_sequence(db)

    def identity(self) -> str:
        """As `Store.identity`."""
        with self._file.reading() as db:
            return str(db.execute("SELECT name FROM identity").get)

    def forget(self, user_id: str) -> int:
        """As `Store.forget`; the log beside the file is emptied, too."""
        with self._file.writing() as db:
            db.execute("DELETE FROM served WHERE user_id = ?", (user_id,))
            db.execute("DELETE FROM purchases WHERE user_id = ?", (user_id,))
            deleted = db.changes()
            db.execute("INSERT OR IGNORE INTO forgotten VALUES (?)", (digest_of(user_id),))
        self._file.empty_log()
        return deleted

    def forgotten(self) -> frozenset[bytes]:
        """As `Store.forgotten`."""
        with self._file.reading() as db:
            return frozenset(digest for (digest,) in db.execute("SELECT digest FROM forgotten"))

    def write_served(self, offers: Sequence[ServedOffer]) -> None:
        """As `Store.write_served`; a power loss may take the newest."""
        with self._file.writing(durable=False) as db:
            db.executemany(
                f"INSERT INTO served ({SERVED_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
                [served_row(offer) for offer in offers],
            )

    def served(self, since: int) -> Iterator[ServedOffer]:
        """As `Store.served`."""
        # A page at a time: a reader that is slow does not keep the log from being emptied.
        query = (
            f"SELECT id, {SERVED_COLUMNS} FROM served WHERE (served, id) > (?, ?)"  # noqa: S608
            f" ORDER BY served, id LIMIT {_PAGE}"
        )
        place = (since, 0)
        while True:
            with self._file.reading() as db:
                rows: Any = db.execute(query, place).fetchall()
            if not rows:
                return
            yield from (served_offer(row[1:]) for row in rows)
            place = (rows[-1][1], rows[-1][0])

    def prune_served(self, before: int) -> int:
        """As `Store.prune_served`; what `forget` could not empty for a long reader is emptied, as
        nobody may ever call `check`."""
        self._file.empty_log_if_due()
        total = 0
        while True:
            with self._file.writing(durable=False) as db:
                db.execute(
                    "DELETE FROM served WHERE id IN"
                    " (SELECT id FROM served WHERE served < ? ORDER BY served LIMIT ?)",
                    (before, _PAGE),
                )
                num_deleted = db.changes()
            total += num_deleted
            if num_deleted < _PAGE:
                return total

    def check(self) -> None:
        """As `Store.check`."""
        self.last_sequence()
        with self._file.writing(durable=False) as db:
            db.execute("UPDATE probe SET number = number + 1")
        self._file.empty_log_if_due()

    def check_whole(self) -> None:
        """Read every page and every row; may take minutes.

        Raises:
            StoreError: At the first damage.
        """
        with self._file.reading() as db:
            found = db.execute("PRAGMA integrity_check(1)").fetchall()
            if found != [("ok",)]:
                raise apsw.CorruptError(str(found[0][0]))
            for (sequence,) in db.execute(STRAY_PURCHASE):
                raise apsw.CorruptError(f"the purchase {sequence} belongs to no submission")

    def back_up(self, target: Path) -> None:
        """As `Store.back_up`."""
        with published(target) as part:
            copy = apsw.Connection(str(part))
            try:
                with self._file.reading() as db, copy.backup("main", db, "main") as backup:
                    backup.step()  # all at once: writes in between would begin it anew
            finally:
                copy.close(True)

    @contextmanager
    def rows(self) -> Iterator[dict[str, Iterable[Row]]]:
        """The rows of each of `TABLES`, of one moment, to be read within the block."""
        with self._file.reading() as db:
            db.execute("BEGIN")
            yield {
                table: db.execute(f"SELECT {columns} FROM {table} ORDER BY 1")  # noqa: S608
                for table, columns in TABLES.items()
            }
            db.execute("COMMIT")

    def close(self) -> None:
        """As `Store.close`."""
        self._file.close()


def _known(db: apsw.Connection, keys: Iterable[str]) -> dict[str, Known]:
    """What is stored under keys."""
    query = "SELECT digest, first_sequence, count FROM submissions WHERE key = ?"
    found: dict[str, Known] = {}
    for key in keys:
        row: Any
        for row in db.execute(query, (key,)):
            found[key] = Known(*row)
    return found


def _last_sequence(db: apsw.Connection) -> int:
    """Submissions are never deleted, so the last of them has the highest sequence ever given."""
    last: Any = db.execute(
        "SELECT first_sequence + count - 1 FROM submissions ORDER BY first_sequence DESC LIMIT 1"
    ).get
    return last or 0
