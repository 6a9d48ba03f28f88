"""A store in memory, for what watching asks of one."""

import threading

from nextbuy.errors import StoreUnavailableError
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import StoredPurchase


class MemoryStore:
    """Purchases in the order in which they were added, and served answers."""

    def __init__(self):
        self.purchases = []
        self.offers = []
        self.may_write = threading.Event()
        self.may_write.set()
        self.is_writing = threading.Event()
        self.is_away = False
        self.most_users = 0

    def add(self, user, item, timestamp, **more):
        """Store one purchase; its sequence is one more than that of the last."""
        purchase = LivePurchase(user_id=user, item_id=item, timestamp=timestamp, **more)
        sequence = len(self.purchases) + 1
        self.purchases.append(
            StoredPurchase(sequence=sequence, received=timestamp, purchase=purchase)
        )

    def purchases_of(self, user_ids):
        self.most_users = max(self.most_users, len(user_ids))
        found = {}
        for stored in self.purchases:
            if stored.purchase.user_id in user_ids:
                found.setdefault(stored.purchase.user_id, []).append(stored)
        return found

    def after(self, sequence, most):
        return [stored for stored in self.purchases if stored.sequence > sequence][:most]

    def identity(self):
        return "memory"

    def last_sequence(self):
        return len(self.purchases)

    def write_served(self, offers):
        self.is_writing.set()
        self.may_write.wait(10)
        if self.is_away:
            raise StoreUnavailableError("away")
        self.offers += offers

    def served(self, since):
        return iter(sorted((o for o in self.offers if o.served >= since), key=lambda o: o.served))

    def prune_served(self, before):
        count = len(self.offers)
        self.offers = [offer for offer in self.offers if offer.served >= before]
        return count - len(self.offers)

    def forgotten(self):
        return frozenset()
