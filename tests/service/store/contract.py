"""What every store must do; the tests of each inherit it."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nextbuy.errors import ConflictError, StoreError
from nextbuy.service.store.opening import open_store
from nextbuy.service.store.protocol import Receipt, StoredPurchase
from tests.service.store.sending import bought, offered, sent

FULL = bought(
    "ann", "tea", -5, platform="Zepto", category="drinks", price=0.1, quantity=2.5, basket_id="b1"
)


class StoreContract:
    """A subclass has a fixture `reopen` that opens the same store, once it was closed, again."""

    @pytest.fixture
    def store(self, reopen):
        store = reopen()
        yield store
        store.close()

    def test_purchases_come_back_as_they_were_sent(self, store, reopen):
        receipts = store.write([sent("k1", FULL, bought("bob")), sent("k2", bought("ann", "ü 🍋"))])
        assert receipts == [
            Receipt(first_sequence=1, count=2, is_repeat=False),
            Receipt(first_sequence=3, count=1, is_repeat=False),
        ]
        expected = [
            StoredPurchase(sequence=1, received=5_000, purchase=FULL),
            StoredPurchase(sequence=2, received=5_000, purchase=bought("bob")),
            StoredPurchase(sequence=3, received=5_000, purchase=bought("ann", "ü 🍋")),
        ]
        store.close()
        again = reopen()
        assert list(again.after(0, 10)) == expected
        assert {
            user: list(found) for user, found in again.purchases_of(["ann", "zoe"]).items()
        } == {"ann": [expected[0], expected[2]]}
        assert again.last_sequence() == 3
        again.close()

    def test_after_gives_the_first_most_above_a_sequence(self, store):
        store.write([sent("k", *(bought("ann", f"i{n}") for n in range(10)))])
        assert [one.sequence for one in store.after(4, 3)] == [5, 6, 7]
        assert [one.sequence for one in store.after(8, 30)] == [9, 10]
        assert list(store.after(10, 3)) == []

    def test_an_empty_store_is_at_sequence_0(self, store):
        assert store.last_sequence() == 0
        assert list(store.after(0, 5)) == []
        assert store.purchases_of(["ann"]) == {}
        assert store.forgotten() == frozenset()
        assert store.write([]) == []

    def test_S22_a_key_again_is_stored_once_and_another_body_is_a_conflict(self, store):
        first = sent("k", bought("ann"))
        others = sent("other", bought("bob"))
        assert store.write([first])[0] == Receipt(first_sequence=1, count=1, is_repeat=False)
        found = store.write([first, sent("k", bought("eve")), others, first])
        assert found[0] == Receipt(first_sequence=1, count=1, is_repeat=True)
        assert isinstance(found[1], ConflictError)
        assert "'k'" in str(found[1])
        assert found[2] == Receipt(first_sequence=2, count=1, is_repeat=False)
        assert found[3] == Receipt(first_sequence=1, count=1, is_repeat=True)
        assert [one.purchase.user_id for one in store.after(0, 10)] == ["ann", "bob"]

    def test_S22_a_key_twice_in_one_group_is_stored_once(self, store):
        found = store.write([sent("k", bought("ann")), sent("k", bought("ann")), sent("k", FULL)])
        assert found[0] == Receipt(first_sequence=1, count=1, is_repeat=False)
        assert found[1] == Receipt(first_sequence=1, count=1, is_repeat=True)
        assert isinstance(found[2], ConflictError)
        assert len(store.after(0, 10)) == 1

    def test_keys_are_compared_byte_for_byte(self, store):
        store.write([sent("k", bought("ann")), sent("K", bought("ann")), sent("k ", bought("ann"))])
        assert store.last_sequence() == 3

    def test_a_user_is_forgotten_but_not_what_she_buys_later(self, store, reopen):
        store.write([sent("k1", bought("ann"), bought("bob"), bought("ann", "tea"))])
        store.write_served([offered("ann", 1), offered("bob", 2)])
        assert store.forget("ann") == 2
        assert store.forget("ann") == 0
        assert [one.sequence for one in store.after(0, 10)] == [2]
        assert [offer.user_id for offer in store.served(0)] == ["bob"]
        assert store.forgotten() == {hashlib.sha256(b"ann").digest()}
        store.write([sent("k2", bought("ann", "new"))])
        store.close()
        again = reopen()
        assert [one.purchase.item_id for one in again.purchases_of(["ann"])["ann"]] == ["new"]
        assert again.forgotten() == {hashlib.sha256(b"ann").digest()}
        again.close()

    def test_forgetting_the_newest_does_not_lower_the_sequence(self, store, reopen):
        store.write([sent("k1", bought("ann")), sent("k2", bought("bob"), bought("bob"))])
        assert store.forget("bob") == 2
        assert store.last_sequence() == 3
        store.close()
        again = reopen()
        assert again.write([sent("k3", bought("cat"))])[0].first_sequence == 4
        again.close()

    def test_a_retry_after_forgetting_does_not_bring_the_purchase_back(self, store):
        store.write([sent("k1", bought("ann"))])
        store.forget("ann")
        assert store.write([sent("k1", bought("ann"))])[0].is_repeat
        assert store.purchases_of(["ann"]) == {}

    def test_served_answers_come_back_in_order_from_a_moment_on(self, store):
        offers = [offered(f"u{n}", served=n // 2) for n in range(2_500)]
        store.write_served(offers[1_000:])
        store.write_served(offers[:1_000])
        assert sorted(store.served(500), key=lambda o: int(o.user_id[1:])) == offers[1_000:]
        moments = [offer.served for offer in store.served(0)]
        assert moments == [n // 2 for n in range(2_500)]
        assert list(store.served(1_250)) == []

    def test_old_answers_are_deleted_up_to_a_moment_however_many(self, store):
        store.write([sent("k", bought("u1"))])
        store.write_served([offered(f"u{n % 9}", served=n) for n in range(2_500)])
        assert store.prune_served(0) == 0
        assert store.prune_served(2_400) == 2_400
        assert [offer.served for offer in store.served(0)] == list(range(2_400, 2_500))
        assert store.prune_served(2_400) == 0
        assert store.last_sequence() == len(store.after(0, 9)) == 1

    def test_S23_64_writers_and_a_reader_meet_no_lock(self, store):
        """Writers go one at a time, as the protocol asks; readers as they like."""
        turn, stop = threading.Lock(), threading.Event()

        def write(number):
            with turn:
                return store.write([sent(f"k{number}", bought(f"u{number % 8}"))])[0]

        def read():
            lengths = [0]
            while not stop.is_set():
                lengths.append(len(store.after(0, 100)))
                store.purchases_of(["u1", "u2"])
            return lengths

        with ThreadPoolExecutor(66) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            receipts = list(pool.map(write, range(64)))
            stop.set()
            seen = [reader.result() for reader in readers]
        assert sorted(receipt.first_sequence for receipt in receipts) == list(range(1, 65))
        assert all(lengths == sorted(lengths) for lengths in seen)
        assert store.last_sequence() == 64

    def test_a_backup_opens_and_is_equal(self, store, tmp_path):
        store.write([sent("k1", FULL, bought("bob")), sent("k2", bought("eve"))])
        store.write_served([offered("bob", 3)])
        store.forget("eve")
        store.back_up(tmp_path / "backup.db")
        store.write([sent("k3", bought("late"))])
        copy = open_store(str(tmp_path / "backup.db"))
        assert list(copy.after(0, 10)) == list(store.after(0, 2))
        assert copy.last_sequence() == 3
        assert list(copy.served(0)) == [offered("bob", 3)]
        assert copy.forgotten() == store.forgotten()
        assert copy.write([sent("k1", FULL, bought("bob"))])[0].is_repeat
        assert copy.identity() == store.identity()
        copy.close()

    def test_a_backup_replaces_nothing(self, store, tmp_path):
        target = tmp_path / "backup.db"
        target.write_text("mine")
        with pytest.raises(StoreError, match="is there already"):
            store.back_up(target)
        assert target.read_text() == "mine"

    def test_a_store_keeps_its_identity_and_shares_it_with_nobody(self, store, reopen, tmp_path):
        name = store.identity()
        store.close()
        again = reopen()
        assert again.identity() == name
        again.close()
        other = open_store(str(tmp_path / "other.db"))
        assert len(name) == len(other.identity()) == 32
        assert other.identity() != name
        other.close()

    def test_check_returns_while_all_is_well_and_changes_nothing(self, store):
        store.write([sent("k", bought("ann"))])
        store.check()
        assert store.last_sequence() == 1

    def test_a_closed_store_says_so(self, store):
        store.close()
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.write([sent("k", bought("ann"))])
        with pytest.raises(StoreError, match="closed"):
            store.last_sequence()
