"""A store in memory: the contract of `Store`, as plainly as it can be written."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nextbuy.errors import ConflictError
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import Receipt, ServedOffer, StoredPurchase, Submission


class MemoryStore:
    def __init__(self) -> None:
        self.rows: list[StoredPurchase] = []
        self.receipts: dict[str, tuple[bytes, Receipt]] = {}
        self.gone: set[bytes] = set()
        self.offers: list[ServedOffer] = []
        self.sequence = 0
        self.reads = 0

    def add(self, *purchases: LivePurchase) -> list[StoredPurchase]:
        """As if a client had sent them."""
        before = len(self.rows)
        self.write(
            [
                Submission(
                    key=f"key {self.sequence}", digest=b"", purchases=tuple(purchases), received=0
                )
            ]
        )
        return self.rows[before:]

    def write(self, submissions: Sequence[Submission]) -> list[Receipt | ConflictError]:
        found: list[Receipt | ConflictError] = []
        for each in submissions:
            if each.key in self.receipts:
                digest, old = self.receipts[each.key]
                same = digest == each.digest
                found.append(
                    Receipt(first_sequence=old.first_sequence, count=old.count, is_repeat=True)
                    if same
                    else ConflictError(f"the key {each.key} was used")
                )
                continue
            receipt = Receipt(
                first_sequence=self.sequence + 1, count=len(each.purchases), is_repeat=False
            )
            for purchase in each.purchases:
                self.sequence += 1
                self.rows.append(
                    StoredPurchase(
                        sequence=self.sequence, received=each.received, purchase=purchase
                    )
                )
            self.receipts[each.key] = each.digest, receipt
            found.append(receipt)
        return found

    def purchases_of(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[StoredPurchase]]:
        self.reads += 1
        found: dict[str, list[StoredPurchase]] = {}
        for row in self.rows:
            if row.purchase.user_id in user_ids:
                found.setdefault(row.purchase.user_id, []).append(row)
        return found

    def after(self, sequence: int, most: int) -> Sequence[StoredPurchase]:
        return [row for row in self.rows if row.sequence > sequence][:most]

    def identity(self) -> str:
        return "memory"

    def last_sequence(self) -> int:
        return self.sequence

    def forget(self, user_id: str) -> int:
        kept = [row for row in self.rows if row.purchase.user_id != user_id]
        count = len(self.rows) - len(kept)
        self.rows = kept
        self.gone.add(hashlib.sha256(user_id.encode()).digest())
        return count

    def forgotten(self) -> frozenset[bytes]:
        return frozenset(self.gone)

    def write_served(self, offers: Sequence[ServedOffer]) -> None:
        self.offers += offers

    def served(self, since: int) -> Iterator[ServedOffer]:
        return (offer for offer in self.offers if offer.served >= since)

    def prune_served(self, before: int) -> int:
        count = len(self.offers)
        self.offers = [offer for offer in self.offers if offer.served >= before]
        return count - len(self.offers)

    def check(self) -> None:
        return None

    def back_up(self, target: Path) -> None:
        raise NotImplementedError

    def close(self) -> None:
        return None
