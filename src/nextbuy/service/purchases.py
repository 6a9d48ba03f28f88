"""A live purchase: one row of a log, as a shop sends it."""

from typing import NamedTuple


class LivePurchase(NamedTuple):
    """One purchase, checked at the edge: ids are text of 1 to 256 bytes without control characters.

    A tuple, since a history of thousands is made of them for each question; name the fields.

    Attributes:
        user_id: Who bought.
        item_id: What was bought; it need not be in any catalog.
        timestamp: When, UTC microseconds.
        platform: Where, or None.
        category: Kind of the item, or None.
        price: Of one unit, finite, or None.
        quantity: Units, finite and above 0, or None.
        basket_id: What was bought together, or None: then equal timestamps are one basket.
    """

    user_id: str
    item_id: str
    timestamp: int
    platform: str | None = None
    category: str | None = None
    price: float | None = None
    quantity: float | None = None
    basket_id: str | None = None
