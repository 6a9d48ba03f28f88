"""What an audience is asked for: an item, or everything of a platform or a category."""

import difflib
from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.errors import ConfigError

Kind = Literal["item", "platform", "category"]

KINDS: Final[dict[Kind, str]] = {
    "platform": columns.PLATFORM,
    "category": columns.CATEGORY,
    "item": columns.ITEM,
}
"""Each with its column of the catalog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing to be bought.

    Attributes:
        kind: What it is.
        name: Its id; an item that is sold on several platforms is meant on any of them.
    """

    kind: Kind
    name: str

    @classmethod
    def of(cls, *, item: str | None, platform: str | None, category: str | None) -> Self:
        """The one that was named.

        Raises:
            ConfigError: If not exactly one was.
        """
        asked: dict[Kind, str | None] = {"item": item, "platform": platform, "category": category}
        named = [(kind, name) for kind, name in asked.items() if name is not None]
        if len(named) != 1:
            found = " and ".join(f"{kind} {name!r}" for kind, name in named) or "nothing"
            raise ConfigError(
                f"An audience is for one item, one platform or one category; {found} was named."
            )
        return cls(kind=named[0][0], name=named[0][1])

    def members(self, catalog: Catalog) -> NDArray[np.bool_]:
        """Which item indices belong to it, length V + 1.

        Raises:
            ConfigError: If none does.
        """
        column = catalog.table[KINDS[self.kind]]
        found = (column == self.name).fill_null(False).to_numpy()
        if not found.any():
            raise ConfigError(self._unknown(column))
        return np.concatenate([[False], found])

    def _unknown(self, column: pl.Series) -> str:
        known = column.drop_nulls().unique(maintain_order=True).to_list()
        if not known:
            return (
                f"The {self.kind} {self.name!r} was asked for, but this log has no {column.name}."
            )
        near = difflib.get_close_matches(self.name, known, n=3, cutoff=0.0)
        return (
            f"The {self.kind} {self.name!r} is not among the {len(known)} that were bought; the "
            f"nearest are {', '.join(map(repr, near))}."
        )


def most_bought(catalog: Catalog, kind: Kind, most: int) -> list[Target]:
    """The targets of a kind with the most purchases, so many at most; ties by name."""
    column = KINDS[kind]
    counts = catalog.table.drop_nulls(column).group_by(column).agg(pl.col("num_purchases").sum())
    names = counts.sort("num_purchases", column, descending=[True, False])[column].head(most)
    return [Target(kind=kind, name=name) for name in names]
