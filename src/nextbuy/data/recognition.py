"""Which column is which: told names are looked up, untold ones recognised, never both silently."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from nextbuy import columns
from nextbuy.data.options import ReadOptions
from nextbuy.errors import ColumnError

_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    columns.USER: (
        "user_id", "user", "userid", "customer_id", "customer", "customerid", "client_id", "client",
        "buyer_id", "buyer", "member_id", "household_id", "household_key", "shopper_id",
        "account_id", "visitor_id", "cust_id", "uid",
    ),
    columns.ITEM: (
        "item_id", "item", "itemid", "product_id", "product", "productid", "sku", "sku_id",
        "stock_code", "stockcode", "article_id", "article", "asin", "movie_id", "product_name",
        "item_name", "purchase", "purchases", "items", "products",
    ),
    columns.TIME: (
        "timestamp", "time", "datetime", "date", "date_time", "purchase_date", "purchase_time",
        "purchased_at", "order_date", "order_time", "created_at", "event_time", "invoice_date",
        "invoicedate", "transaction_timestamp", "transaction_date", "ts",
    ),
    columns.PLATFORM: (
        "platform", "merchant", "store", "shop", "marketplace", "retailer", "channel", "site",
        "app",
    ),
    columns.CATEGORY: (
        "category", "product_category", "category_name", "category_id", "department", "genre",
    ),
    columns.PRICE: (
        "price", "unit_price", "unitprice", "item_price", "sale_price", "sales_value", "amount",
    ),
    columns.QUANTITY: ("quantity", "qty", "units"),
    columns.BASKET: (
        "basket_id", "basket", "basketid", "order_id", "orderid", "invoice", "invoice_no",
        "invoiceno", "invoice_id", "transaction_id", "receipt_id", "receipt", "cart_id",
    ),
}  # fmt: skip
_POSITIONS: Final = ("position", "pos", "sequence", "step")
_DATA: Final = re.compile(r"\s*[-+]?[\d.,:/TZ -]*\d[\d.,:/TZ -]*\s*")


def recognise(
    source: str, names: Sequence[str], options: ReadOptions, *, is_untitled: bool = False
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The source's name of each contract column that is there, and a sentence for each guess.

    Args:
        source: The file or table, for messages.
        names: The columns that were found.
        options: With told names; None is to be recognised.
        is_untitled: The names are only positions: user, item, time and the rest unless told.

    Raises:
        ColumnError: If a told column is missing, or user or item cannot be recognised.
    """
    found: dict[str, str] = {}
    guesses: list[str] = []
    for column, told in options.mapping.items():
        if told is not None:
            found[column] = _told(source, names, column, told)
    free = [name for name in names if name not in found.values()]
    if is_untitled and not found:
        for column, name in zip((columns.USER, columns.ITEM, columns.TIME), free, strict=False):
            found[column] = name
            guesses.append(f"{column} is {name} (there is no header)")
    for column in (column for column in _ALIASES if column not in found):
        is_position = column == columns.TIME and options.time == "order"
        aliases = (*_POSITIONS, *_ALIASES[column]) if is_position else _ALIASES[column]
        hit = _alias(source, free, column, aliases)
        if hit is not None:
            found[column] = hit
            free.remove(hit)
            if hit != column:
                guesses.append(f"{column} is the column {hit!r}")
    if columns.ITEM not in found and columns.PLATFORM in found:
        found[columns.ITEM] = found.pop(columns.PLATFORM)
        guesses.append(f"item_id is the column {found[columns.ITEM]!r}: there is no other item")
    for column in columns.REQUIRED:
        if column not in found:
            raise ColumnError(_missing(source, names, column))
    return found, tuple(guesses)


def _told(source: str, names: Sequence[str], column: str, told: str) -> str:
    if told in names:
        return told
    alike = [name for name in names if _plain(name) == _plain(told)]
    if len(alike) == 1:
        return alike[0]
    near = difflib.get_close_matches(told, names, n=1, cutoff=0.5)
    hint = f" Nearest is {near[0]!r}." if near else ""
    raise ColumnError(
        f"{source} has no column {told!r}, asked for as {column}. It has {list(names)}.{hint}"
    )


def _alias(source: str, free: Sequence[str], column: str, aliases: Sequence[str]) -> str | None:
    if column in free:
        return column
    for alias in aliases:
        alike = [name for name in free if _plain(name) == alias]
        if len(alike) > 1:
            raise ColumnError(
                f"{source} has {len(alike)} columns that could be {column}: {alike}. "
                f"Say which, with {_flag(column)}."
            )
        if alike:
            return alike[0]
    return None


def _missing(source: str, names: Sequence[str], column: str) -> str:
    message = f"{source} has no column that looks like {column}; it has {list(names)[:30]}."
    if any(_DATA.fullmatch(name) for name in names):
        return f"{message} Its first line looks like data: if there is no header, say --no-header."
    plain = {_plain(name): name for name in names}
    near = [
        hit
        for alias in _ALIASES[column]
        for hit in difflib.get_close_matches(alias, plain, n=1, cutoff=0.7)
    ]
    hint = f" Nearest is {plain[near[0]]!r}." if near else ""
    return f"{message}{hint} Say which one it is, with {_flag(column)}."


def _flag(column: str) -> str:
    words = {
        columns.TIME: "time",
        columns.USER: "user",
        columns.ITEM: "item",
        columns.BASKET: "basket",
    }
    return f"--{words.get(column, column)}-column"


def _plain(name: str) -> str:
    """Lower case, with `_` for whatever separates words."""
    return re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_")
