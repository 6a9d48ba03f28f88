"""A history that a visitor makes up: from the fields of the form to a question."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from starlette.datastructures import QueryParams

from nextbuy.errors import ConfigError
from nextbuy.service.page.catalog_search import CatalogSearch
from nextbuy.service.purchases import LivePurchase

MOST_ROWS: Final = 12
MOST_DAYS: Final = 3_650
_BLANK: Final = 3
_LONGEST: Final = 256
_DAY: Final = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the form, as it was typed."""

    item: str = ""
    platform: str = ""
    days: str = ""


def rows_of(asked: QueryParams) -> list[Row]:
    """What was typed, without empty lines."""
    typed = zip_longest(
        asked.getlist("item"), asked.getlist("platform"), asked.getlist("days"), fillvalue=""
    )
    rows = [Row(item=i.strip(), platform=p.strip(), days=d.strip()) for i, p, d in typed]
    return [row for row in rows if row.item]


def shown(rows: Sequence[Row]) -> list[Row]:
    """The same with some empty lines, so that one may go on."""
    kept = list(rows[:MOST_ROWS])
    return kept + [Row()] * min(_BLANK, MOST_ROWS - len(kept))


def history_of(rows: Sequence[Row], search: CatalogSearch, now: int) -> tuple[LivePurchase, ...]:
    """Purchases in time order; platform and category are those of the catalog where it knows them.

    Raises:
        ConfigError: If there are too many, or days or ids make no sense.
    """
    if len(rows) > MOST_ROWS:
        raise ConfigError(f"A made-up history has at most {MOST_ROWS} purchases here.")
    dated = sorted(((_days(row), row) for row in rows), key=lambda pair: -pair[0])
    return tuple(_purchase(row, now - round(days * _DAY), search) for days, row in dated)


def _purchase(row: Row, timestamp: int, search: CatalogSearch) -> LivePurchase:
    for text in (row.item, row.platform):
        if len(text.encode("utf-8", "surrogatepass")) > _LONGEST or not text.isprintable():
            raise ConfigError(
                f"An id has at most {_LONGEST} bytes and no control characters; look at what was "
                "typed."
            )
    known = search.find(row.item, row.platform or None)
    return LivePurchase(
        user_id="made-up",
        item_id=row.item,
        timestamp=timestamp,
        platform=known.platform if known else row.platform or None,
        category=known.category if known else None,
    )


def _days(row: Row) -> float:
    """Days ago; today if nothing was typed."""
    try:
        days = float(row.days.replace(",", ".") or 0)
    except ValueError:
        days = math.nan
    if not 0 <= days <= MOST_DAYS:
        raise ConfigError(f"Days ago go from 0 to {MOST_DAYS}; one line has something else.")
    return days
