"""The purchases of a store as a log to learn from."""

from collections.abc import Iterator, Sequence
from typing import Final

import polars as pl

from nextbuy import columns
from nextbuy.data.sources import NamedFrame
from nextbuy.errors import EmptyDataError
from nextbuy.progress import Progress, SilentProgress
from nextbuy.service.store.opening import open_store, shown
from nextbuy.service.store.protocol import Store, StoredPurchase

PREFIX: Final = "store:"
STORE_FACT: Final = "store_identity"
SEQUENCE_FACT: Final = "store_sequence"
"""Facts of a bundle: it has learnt from the purchases of this store up to this sequence."""

SCHEMA: Final = pl.Schema(
    {
        columns.USER: pl.String(),
        columns.ITEM: pl.String(),
        columns.TIME: pl.Int64(),
        columns.PLATFORM: pl.String(),
        columns.CATEGORY: pl.String(),
        columns.PRICE: pl.Float64(),
        columns.QUANTITY: pl.Float64(),
        columns.BASKET: pl.String(),
    }
)
"""Of live purchases as rows; times are UTC microseconds."""

_PAGE: Final = 50_000


def read_store(url: str, progress: Progress = SilentProgress()) -> NamedFrame:  # noqa: B008
    """All purchases of a store, a page at a time; a service may go on writing to it.

    Columns that no purchase has are left out. Forgotten users are not in it.

    Raises:
        EmptyDataError: If there is no purchase.
        StoreError: As `open_store` does.
    """
    store = open_store(url, read_only=True)
    try:
        last, identity = store.last_sequence(), store.identity()
        frame = purchases_until(store, last, progress)
    finally:
        store.close()
    if frame.is_empty():
        raise EmptyDataError(f"{shown(url)} has no purchases yet. Send some, or import a log.")
    frame = frame.with_columns(moments())
    used = [name for name in frame.columns if frame[name].null_count() < frame.height]
    return NamedFrame(
        name=PREFIX + shown(url),
        frame=frame.select(used),
        facts={STORE_FACT: identity, SEQUENCE_FACT: last},
    )


def purchases_until(
    store: Store,
    last: int,
    progress: Progress = SilentProgress(),  # noqa: B008  (no state)
) -> pl.DataFrame:
    """The purchases of a store up to a sequence, of `SCHEMA`; those that come meanwhile are for the
    next time.

    Raises:
        StoreError: As the store does.
    """
    pages = [SCHEMA.to_frame()]
    progress.start("reading the store", last)
    try:
        for page, place in _pages(store, last):
            pages.append(_frame(page))
            progress.advance(page[-1].sequence - place, {})
    finally:
        progress.finish()
    return pl.concat(pages)


def moments() -> pl.Expr:
    """The times of `SCHEMA` as moments."""
    return pl.from_epoch(columns.TIME, "us").dt.replace_time_zone("UTC")


def _pages(store: Store, last: int) -> Iterator[tuple[Sequence[StoredPurchase], int]]:
    """Purchases up to a sequence, and the sequence that they come after."""
    place = 0
    while page := [one for one in store.after(place, _PAGE) if one.sequence <= last]:
        yield page, place
        place = page[-1].sequence


def _frame(page: Sequence[StoredPurchase]) -> pl.DataFrame:
    bought = [one.purchase for one in page]
    values = {name: [getattr(purchase, name) for purchase in bought] for name in SCHEMA}
    return pl.DataFrame(values, schema=SCHEMA)
