"""All purchases that are known: those of a bundle's histories and those of the store, as one log.

What a bundle learnt from may lie in a file that is long gone, and the store has only what came
since; a challenger must learn from both. A purchase that both have (the bundle was trained from
this store before) counts once. Purchases of the bundle's log whose items its catalog lacks are not
in its histories; `refit_full` leaves none out. Histories of users who were forgotten are not used.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import polars as pl

from nextbuy import columns
from nextbuy.data.options import ReadOptions
from nextbuy.predictor import Predictor
from nextbuy.service.store.log import SCHEMA, moments, purchases_until
from nextbuy.service.store.protocol import Store

_LEVELS: Final = {"item": columns.ITEM, "category": columns.CATEGORY, "platform": columns.PLATFORM}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WholeLog:
    """The log.

    Attributes:
        frame: One row a purchase, with the names of `columns`.
        options: How to read it, so that baskets are what they were.
        store_sequence: Purchases of the store up to this one are in it.
        num_stored: Of the bundle's histories, those that the store has too left out.
        num_live: Of the store.
    """

    frame: pl.DataFrame
    options: ReadOptions
    store_sequence: int
    num_stored: int
    num_live: int


def whole_log(bundle: Predictor, store: Store) -> WholeLog:
    """Join a bundle's histories and a store; time must be dates.

    Raises:
        StoreError: As the store does.
    """
    last = store.last_sequence()
    live = purchases_until(store, last).with_columns(
        pl.format("id {}", columns.BASKET).alias(columns.BASKET)
    )
    key = [columns.USER, _LEVELS[bundle.catalog.level], columns.TIME]
    if bundle.catalog.table[columns.PLATFORM].null_count() < len(bundle.catalog):
        key.append(columns.PLATFORM)
    forgotten = store.forgotten()
    ids = bundle.histories.user_ids
    gone = [user for user in ids if forgotten and sha256(user.encode()).digest() in forgotten]
    stored = _stored(bundle).filter(~pl.col(columns.USER).is_in(gone))
    stored = stored.join(live, on=list(dict.fromkeys(key)), how="anti", nulls_equal=True)
    kind = bundle.facts.get("basket_kind")
    both = pl.concat([stored, live])
    if kind != "column" and both[columns.BASKET].is_not_null().any() and kind != "none":
        kind = "column"  # the store tells baskets, the bundle's log had moments
    both = _with_baskets(both) if kind == "column" else both.drop(columns.BASKET)
    both = both.with_columns(moments())
    read = ReadOptions(
        time="dates", baskets=kind if kind in ("column", "none") else "timestamp",
        returns=bundle.read_options().returns, spaces="keep",
    )  # fmt: skip
    told = [name for name in both.columns if both[name].null_count() < both.height]
    return WholeLog(
        frame=both.select(told),
        options=read,
        store_sequence=last,
        num_stored=stored.height,
        num_live=live.height,
    )


def _stored(bundle: Predictor) -> pl.DataFrame:
    """The histories of a bundle as rows."""
    histories, catalog = bundle.histories, bundle.catalog
    named = catalog.ids(histories.items)
    of_level = named[columns.ITEM]
    told: dict[str, Any] = {
        columns.USER: histories.user_ids.gather(histories.owners),
        columns.ITEM: of_level,
        columns.TIME: histories.times,
        columns.PLATFORM: named[columns.PLATFORM],
        columns.CATEGORY: named[columns.CATEGORY],
        columns.PRICE: histories.prices,
        columns.QUANTITY: histories.quantities,
        columns.BASKET: None,
    }
    told[_LEVELS[catalog.level]] = of_level
    if bundle.facts.get("basket_kind") == "column":
        told[columns.BASKET] = pl.Series(histories.baskets).cast(pl.String)
    frame = pl.DataFrame({name: values for name, values in told.items() if values is not None})
    missing = [pl.lit(None).alias(name) for name in SCHEMA if told[name] is None]
    return (
        frame.with_columns(missing)
        .select(list(SCHEMA))
        .cast(SCHEMA)
        .with_columns(pl.col(columns.PRICE, columns.QUANTITY).fill_nan(None))
    )


def _with_baskets(frame: pl.DataFrame) -> pl.DataFrame:
    """Every row in a basket: the one that is told, or that of its moment."""
    moment = pl.format("at {}", columns.TIME)
    return frame.with_columns(pl.coalesce(columns.BASKET, moment).alias(columns.BASKET))
