"""Purchases and answers as rows of a database, and back; the same columns in every store."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import ServedOffer, StoredPurchase, Submission

PURCHASE_COLUMNS: Final = (
    "sequence, received, user_id, item_id, timestamp, platform, category, price, quantity,"
    " basket_id"
)
SERVED_COLUMNS: Final = "served, version, user_id, items, probabilities, after_sequence"
TABLES: Final = {
    "submissions": "first_sequence, count, key, digest",
    "purchases": PURCHASE_COLUMNS,
    "forgotten": "digest",
    "served": SERVED_COLUMNS,
}
"""What a copy of a store holds; the same columns in every kind."""
STRAY_PURCHASE: Final = (
    "SELECT sequence FROM purchases p WHERE sequence >= coalesce((SELECT first_sequence + count"
    " FROM submissions WHERE first_sequence <= p.sequence"
    " ORDER BY first_sequence DESC LIMIT 1), 0) LIMIT 1"
)
"""A purchase that belongs to no submission, if there is one: the sign of a damage."""

Row = Sequence[Any]
"""What a driver gives: its types are known only to the tables."""


def submission_row(first: int, submission: Submission) -> Row:
    """first_sequence, count, key, digest."""
    return (first, len(submission.purchases), submission.key, submission.digest)


def purchase_rows(first: int, submission: Submission) -> Iterator[Row]:
    """One row a purchase, in the order of `PURCHASE_COLUMNS`."""
    received = submission.received
    for sequence, p in enumerate(submission.purchases, first):
        yield (
            sequence, received, p.user_id, p.item_id, p.timestamp, p.platform, p.category,
            p.price, p.quantity, p.basket_id,
        )  # fmt: skip


def stored_purchase(row: Row) -> StoredPurchase:
    """The purchase of a row."""
    sequence, received, user_id, item_id, timestamp, platform, category, price, quantity, basket = (
        row
    )
    purchase = LivePurchase(
        user_id=user_id, item_id=item_id, timestamp=timestamp, platform=platform,
        category=category, price=price, quantity=quantity, basket_id=basket,
    )  # fmt: skip
    return StoredPurchase(sequence=sequence, received=received, purchase=purchase)


def served_row(offer: ServedOffer) -> Row:
    """In the order of `SERVED_COLUMNS`."""
    return (
        offer.served, offer.version, offer.user_id, json.dumps(offer.items, ensure_ascii=False),
        json.dumps(offer.probabilities), offer.after_sequence,
    )  # fmt: skip


def served_offer(row: Row) -> ServedOffer:
    """The answer of a row."""
    served, version, user_id, items, probabilities, after_sequence = row
    return ServedOffer(
        served=served,
        version=version,
        user_id=user_id,
        items=tuple((item, platform) for item, platform in json.loads(items)),
        probabilities=tuple(json.loads(probabilities)),
        after_sequence=after_sequence,
    )


def digest_of(user_id: str) -> bytes:
    """Under which a forgotten user is remembered."""
    return hashlib.sha256(user_id.encode()).digest()
