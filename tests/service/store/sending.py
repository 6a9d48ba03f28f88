"""Submissions as a shop would send them, made from few words."""

import hashlib

from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import ServedOffer, Submission


def bought(user: str, item: str = "milk", timestamp: int = 1_000, **more) -> LivePurchase:
    return LivePurchase(user_id=user, item_id=item, timestamp=timestamp, **more)


def sent(key: str, *purchases: LivePurchase, received: int = 5_000, body: str = "") -> Submission:
    """A submission; `body` tells apart what was sent under the same key."""
    digest = hashlib.sha256(f"{body}{purchases}".encode()).digest()
    return Submission(key=key, digest=digest, purchases=purchases, received=received)


def offered(user: str, served: int, version: str = "000001") -> ServedOffer:
    return ServedOffer(
        served=served, version=version, user_id=user, items=(("milk", "Zepto"), ("käse", None)),
        probabilities=(0.1, 1 / 3), after_sequence=7,
    )  # fmt: skip
