"""What is known of users: the bundle's history, the store's purchases since, a bounded cache."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Final

from nextbuy.models.protocol import Searched
from nextbuy.service.live.joining import Rows, ignored_items, joined
from nextbuy.service.live.loaded import LoadedBundle
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import Store, StoredPurchase

CACHED_USERS: Final = 50_000


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What was searched for a history; see `SearchesApart`.

    Attributes:
        searched: Of one user.
        wait_class: As long as the wait is of this class it holds.
        asked: How many items were searched.
    """

    searched: Searched
    wait_class: int
    asked: int


@dataclass(slots=True, eq=False)
class Memory:
    """A place for what was searched; threads may replace it, whole."""

    kept: Kept | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class UserHistory:
    """A history as models read it.

    Attributes:
        rows: What the catalog knows.
        whole: With what it lacks.
        ignored: Ids of live purchases that it lacks; see `ignored_items`.
        memory: Of what was searched for it.
    """

    rows: Rows
    whole: Rows
    ignored: tuple[str, ...]
    memory: Memory = field(default_factory=Memory)

    def before(self, as_of: int) -> "UserHistory":
        """Only what was bought before a moment."""
        if not len(self.whole) or self.whole.times[-1] < as_of:
            return self
        whole = self.whole.take((self.whole.times < as_of).nonzero()[0])
        return UserHistory(rows=whole.listed(), whole=whole, ignored=self.ignored)


def history_of(
    stored: Rows, purchases: Sequence[LivePurchase], loaded: LoadedBundle
) -> UserHistory:
    """Stored rows and live purchases as one history."""
    whole = joined(stored, purchases, loaded.reading)
    rows = whole.listed()
    some_unknown = len(rows) < len(whole)
    ignored = ignored_items(purchases, loaded.reading.lookup) if some_unknown else ()
    return UserHistory(rows=rows, whole=whole, ignored=ignored)


@dataclass(slots=True)
class _Known:
    """Live purchases of a user by sequence, and the history that they make, once it is asked."""

    live: dict[int, LivePurchase] = field(default_factory=dict)
    history: UserHistory | None = None


class KnownUsers:
    """Histories of users by id, for one version of a bundle. Safe to use from several threads.

    Args:
        loaded: The bundle.
        store: Of the purchases since.
        forgotten: SHA-256 of the ids whose stored history is not used; kept, and grown by `forget`.
        most: Users that are kept in memory; those that were asked last stay.
    """

    def __init__(
        self,
        loaded: LoadedBundle,
        store: Store,
        forgotten: frozenset[bytes],
        most: int = CACHED_USERS,
    ) -> None:
        self.loaded = loaded
        self._store = store
        self._forgotten = set(forgotten)
        self._most = most
        self._known: OrderedDict[str, _Known] = OrderedDict()
        # Held while the store is read, too: what is bought meanwhile must not be missed.
        self._lock = RLock()
        self._sequence = store.last_sequence()

    def of(self, user_ids: Sequence[str]) -> tuple[list[UserHistory], int]:
        """The histories of users; empty for those whom nobody knows.

        Returns:
            One a user, and the sequence up to which purchases are known.
        """
        with self._lock:
            sequence = self._sequence
            known = self._fetched(user_ids)
            found = []
            for user in user_ids:
                entry = known[user]
                if entry.history is None:
                    entry.history = self._history(user, entry)
                found.append(entry.history)
        return found, sequence

    def bought(self, purchases: Sequence[StoredPurchase]) -> None:
        """Purchases that were stored; telling one again changes nothing."""
        with self._lock:
            for stored in purchases:
                self._sequence = max(self._sequence, stored.sequence)
                entry = self._known.get(stored.purchase.user_id)
                if entry is not None and self._is_new(stored.purchase.user_id, stored.sequence):
                    entry.live[stored.sequence] = stored.purchase
                    entry.history = None

    def forget(self, user_id: str) -> None:
        """Use no more what the bundle has of a user, nor what is cached."""
        with self._lock:
            self._forgotten.add(digest(user_id))
            self._known.pop(user_id, None)

    @property
    def forgotten(self) -> frozenset[bytes]:
        """SHA-256 of the ids that were forgotten."""
        with self._lock:
            return frozenset(self._forgotten)

    def history_with(self, user_id: str, live: Sequence[LivePurchase]) -> UserHistory:
        """The stored history of a user and these purchases, in the order of their sequence."""
        return history_of(self.stored_rows(user_id), live, self.loaded)

    def stored_rows(self, user_id: str) -> Rows:
        """What the bundle has of a user who was not forgotten."""
        is_forgotten = digest(user_id) in self._forgotten
        return self.loaded.stored_rows(None if is_forgotten else self.loaded.place_of(user_id))

    def live_purchases(self, user_id: str) -> list[StoredPurchase]:
        """What the store has of a user and the bundle's history does not."""
        found = self._store.purchases_of([user_id]).get(user_id, ())
        return [stored for stored in found if self._is_new(user_id, stored.sequence)]

    def _is_new(self, user_id: str, sequence: int) -> bool:
        """Whether a purchase is not in the stored history; that of the forgotten is not used."""
        return sequence > self.loaded.store_sequence or digest(user_id) in self._forgotten

    def _fetched(self, user_ids: Sequence[str]) -> dict[str, _Known]:
        wanted = dict.fromkeys(user_ids)
        missing = [user for user in wanted if user not in self._known]
        found = self._store.purchases_of(missing) if missing else {}
        for user in missing:
            live = {s.sequence: s.purchase for s in found.get(user, ())}
            kept = {n: p for n, p in live.items() if self._is_new(user, n)}
            self._known[user] = _Known(live=kept)
        for user in wanted:
            self._known.move_to_end(user)
        known = {user: self._known[user] for user in wanted}
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return known

    def _history(self, user_id: str, entry: _Known) -> UserHistory:
        return self.history_with(user_id, [purchase for _, purchase in sorted(entry.live.items())])


def digest(user_id: str) -> bytes:
    """SHA-256, as `Store.forgotten` tells it."""
    return hashlib.sha256(user_id.encode()).digest()
