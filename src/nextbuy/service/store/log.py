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

_PAGE: Final = 50_000
_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    columns.USER: pl.String,
    columns.ITEM: pl.String,
    columns.TIME: pl.Datetime("us", "UTC"),
    columns.PLATFORM: pl.String,
    columns.CATEGORY: pl.String,
    columns.PRICE: pl.Float64,
    columns.QUANTITY: pl.Float64,
    columns.BASKET: pl.String,
}


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
        progress.start("reading the store", last)
        try:
            pages = [_frame(page) for page in _pages(store, last, progress)]
        finally:
            progress.finish()
    finally:
        store.close()
    if not pages:
        raise EmptyDataError(f"{shown(url)} has no purchases yet. Send some, or import a log.")
    frame = pl.concat(pages)
    used = [name for name in frame.columns if frame[name].null_count() < frame.height]
    return NamedFrame(
        name=PREFIX + shown(url),
        frame=frame.select(used),
        facts={STORE_FACT: identity, SEQUENCE_FACT: last},
    )


def _pages(store: Store, last: int, progress: Progress) -> Iterator[Sequence[StoredPurchase]]:
    """Purchases up to a sequence; those that come meanwhile are for the next time."""
    place = 0
    while page := [one for one in store.after(place, _PAGE) if one.sequence <= last]:
        yield page
        progress.advance(page[-1].sequence - place, {})
        place = page[-1].sequence


def _frame(page: Sequence[StoredPurchase]) -> pl.DataFrame:
    bought = [one.purchase for one in page]
    values = {name: [getattr(purchase, name) for purchase in bought] for name in _SCHEMA}
    return pl.DataFrame(values, schema={**_SCHEMA, columns.TIME: pl.Int64}).with_columns(
        pl.col(columns.TIME).cast(_SCHEMA[columns.TIME])
    )
