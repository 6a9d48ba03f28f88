"""Rules of the shop by item index; those that were asked last are kept."""

from typing import Final

from nextbuy.data.catalog import Catalog
from nextbuy.splitting.rules import CatalogRules, Rules

_MOST_RULES: Final = 256


class FollowedRules:
    """What rules mean for a catalog.

    Args:
        catalog: Of a bundle.
        own: Rules of the bundle, which are followed where none are asked; or None.
    """

    def __init__(self, catalog: Catalog, own: Rules | None) -> None:
        self._catalog, self._own = catalog, own
        self._kept: dict[str, CatalogRules] = {}

    def of(self, rules: Rules | None) -> CatalogRules | None:
        """The rules that are asked, or those of the bundle; None if there are none.

        Raises:
            ConfigError: If they leave nothing to offer.
        """
        rules = self._own if rules is None else rules
        if rules is None:
            return None
        key = rules.model_dump_json()
        found = self._kept.get(key)
        if found is None:
            found = rules.for_catalog(self._catalog)
            while len(self._kept) >= _MOST_RULES:
                self._kept.pop(next(iter(self._kept)), None)
            self._kept[key] = found
        return found
