"""Bulk import: the purchases of a log into a store, each once however often it is imported."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from nextbuy import columns
from nextbuy.data.purchases import Purchases
from nextbuy.errors import ConfigError, ConflictError
from nextbuy.progress import Progress, SilentProgress
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import Store, Submission

GROUP: Final = 1_000
"""Purchases of one transaction."""

_OCCURRENCE: Final = "occurrence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of the purchases of a log.

    Attributes:
        stored: That were new.
        repeated: That an earlier import had stored.
        last_sequence: Of the store, afterwards.
    """

    stored: int
    repeated: int
    last_sequence: int


def import_log(
    store: Store,
    purchases: Purchases,
    progress: Progress = SilentProgress(),  # noqa: B008  (no state)
) -> Imported:
    """Store the purchases of a log in the order of their times.

    Each has a key of its content and of how many equal rows come before it in the log, so that an
    import that was stopped goes on, and of a longer export of the same log only the rest is new.

    Raises:
        ConfigError: If the log has an order instead of dates.
        StoreError: As `Store.write` does; what was stored until then stays.
    """
    if purchases.time_kind != "dates":
        raise ConfigError("A store keeps moments, but this log has only an order.")
    stored = repeated = 0
    progress.start("importing", purchases.frame.height)
    try:
        for group in _groups(purchases.frame, time.time_ns() // 1_000):
            for outcome in store.write(group):
                if isinstance(outcome, ConflictError):
                    raise outcome
                repeated += outcome.is_repeat
                stored += not outcome.is_repeat
            progress.advance(len(group), {})
    finally:
        progress.finish()
    return Imported(stored=stored, repeated=repeated, last_sequence=store.last_sequence())


def _groups(frame: pl.DataFrame, received: int) -> Iterator[list[Submission]]:
    names = [name for name in columns.ALL if name in frame.columns]
    rows = (
        frame.select(
            *(pl.col(name) for name in names),
            pl.int_range(pl.len()).over(names).alias(_OCCURRENCE),
        )
        .with_columns(pl.col(columns.TIME).dt.timestamp("us"))
        .sort(columns.TIME, maintain_order=True)
    )
    for part in rows.iter_slices(GROUP):
        yield [_submission(row, received) for row in part.iter_rows(named=True)]


def _submission(row: dict[str, Any], received: int) -> Submission:
    occurrence = row.pop(_OCCURRENCE)
    purchase = LivePurchase(**row)
    digest = hashlib.sha256(repr(purchase).encode()).digest()
    key = f"import/{digest.hex()}/{occurrence}"
    return Submission(key=key, digest=digest, purchases=(purchase,), received=received)
