"""Finding things to buy by a few letters, in the catalog that answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import polars as pl

from nextbuy import columns
from nextbuy.data.catalog import Catalog

_LONGEST: Final = 256
_TARGETS: Final = 500
_LOWER: Final = "_lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One row of the catalog."""

    item_id: str
    platform: str | None
    category: str | None

    @property
    def about(self) -> str:
        """Platform and category, as far as they say something that the id does not."""
        told = (self.platform, self.category)
        return ", ".join(text for text in told if text and text != self.item_id)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Prepared:
    """A catalog, ready to be searched: ids in lower case beside it, what is bought most first."""

    catalog: Catalog
    table: pl.DataFrame
    platforms: list[str]
    categories: list[str]
    needs_platform: bool


class CatalogSearch:
    """Searches whatever catalog there is at the moment.

    Args:
        catalog: Gives the catalog of the bundle that answers, None if there is none.
    """

    def __init__(self, catalog: Callable[[], Catalog | None]) -> None:
        self._catalog = catalog
        self._prepared: _Prepared | None = None

    def like(self, text: str, most: int = 20) -> list[Item]:
        """Items whose id has the letters, upper or lower case; those that begin with them first,
        then what is bought most. Without letters: what is bought most."""
        found, letters = self._look(), text.strip().lower()
        if found is None or len(letters) > _LONGEST:
            return []
        table = found.table
        if letters:
            lower = pl.col(_LOWER)
            table = table.filter(lower.str.contains(letters, literal=True)).sort(
                lower.str.starts_with(letters), descending=True, maintain_order=True
            )
        return _items(table.head(most))

    def find(self, item_id: str, platform: str | None) -> Item | None:
        """The item of an id, on a platform; on the one where it is bought most if not told."""
        found = self._look()
        if found is None:
            return None
        wanted = pl.col(columns.ITEM) == item_id
        if platform is not None:
            wanted &= pl.col(columns.PLATFORM) == platform
        items = _items(found.table.filter(wanted).head(1))
        return items[0] if items else None

    @property
    def platforms(self) -> list[str]:
        """What is bought most first."""
        found = self._look()
        return found.platforms if found else []

    @property
    def categories(self) -> list[str]:
        """What is bought most first."""
        found = self._look()
        return found.categories if found else []

    @property
    def needs_platform(self) -> bool:
        """Whether an item is sold on several platforms, so that its id alone does not tell."""
        found = self._look()
        return found.needs_platform if found else False

    def _look(self) -> _Prepared | None:
        """The catalog of now; prepared anew when another bundle answers."""
        catalog, prepared = self._catalog(), self._prepared
        if catalog is None:
            return None
        if prepared is None or prepared.catalog is not catalog:
            table = catalog.table
            prepared = self._prepared = _Prepared(
                catalog=catalog,
                table=table.with_columns(pl.col(columns.ITEM).str.to_lowercase().alias(_LOWER)),
                platforms=_most_bought(table, columns.PLATFORM),
                categories=_most_bought(table, columns.CATEGORY),
                needs_platform=table[columns.ITEM].n_unique() < table.height,
            )
        return prepared


def _most_bought(table: pl.DataFrame, column: str) -> list[str]:
    bought = (
        table.drop_nulls(column)
        .group_by(column, maintain_order=True)
        .agg(pl.col("num_purchases").sum())
        .sort("num_purchases", descending=True, maintain_order=True)
    )
    return bought[column].head(_TARGETS).to_list()


def _items(table: pl.DataFrame) -> list[Item]:
    rows = table.select(columns.ITEM, columns.PLATFORM, columns.CATEGORY).iter_rows()
    return [Item(item_id=i, platform=p, category=c) for i, p, c in rows]
