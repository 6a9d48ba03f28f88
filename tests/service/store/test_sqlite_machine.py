"""Whatever is done to a store, in any order, it holds what a dictionary would."""

import hashlib
import itertools
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from nextbuy.errors import ConflictError, StoreUnavailableError
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import Receipt, StoredPurchase
from nextbuy.service.store.sqlite import SqliteStore
from tests.service.store.faulty_disk import FaultyDisk
from tests.service.store.sending import offered, sent

_names = itertools.count()
ids = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=4)
users = st.sampled_from(["ann", "bob", "zoë"]) | ids
purchases = st.builds(
    LivePurchase,
    user_id=users, item_id=ids, timestamp=st.integers(-(2**62), 2**62),
    platform=st.none() | ids, category=st.none() | ids, basket_id=st.none() | ids,
    price=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    quantity=st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
)  # fmt: skip
submissions = st.builds(
    lambda key, bought, received: sent(key, *bought, received=received),
    st.sampled_from("abcdefgh"), st.lists(purchases, min_size=1, max_size=3),
    st.integers(0, 2**50),
)  # fmt: skip


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "live.db"
        self.disk = FaultyDisk(f"machine-{next(_names)}")
        self.disk.fault = "power"
        self.store = SqliteStore(self.path, vfs=self.disk.name)
        self.receipts, self.sent, self.rows, self.served = {}, {}, [], []
        self.forgotten, self.last = set(), 0

    def teardown(self):
        if hasattr(self, "store"):
            self.disk.mend()
            self.store.close()
            self.disk.unregister()
            self.folder.cleanup()

    def expect(self, submission):
        """What the dictionary answers; it keeps what is new."""
        if submission.key in self.sent:
            same = self.sent[submission.key].digest == submission.digest
            return self.receipts[submission.key] if same else None
        receipt = (self.last + 1, len(submission.purchases))
        self.sent[submission.key], self.receipts[submission.key] = submission, receipt
        for purchase in submission.purchases:
            self.last += 1
            self.rows.append(
                StoredPurchase(sequence=self.last, received=submission.received, purchase=purchase)
            )
        return receipt

    @rule(group=st.lists(submissions, min_size=1, max_size=4))
    def append(self, group):
        for submission, found in zip(group, self.store.write(group), strict=True):
            is_new = submission.key not in self.sent
            expected = self.expect(submission)
            if expected is None:
                assert isinstance(found, ConflictError)
            else:
                first, count = expected
                assert found == Receipt(first_sequence=first, count=count, is_repeat=not is_new)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def retry(self, data):
        submission = data.draw(st.sampled_from(list(self.sent.values())))
        first, count = self.receipts[submission.key]
        expected = Receipt(first_sequence=first, count=count, is_repeat=True)
        assert self.store.write([submission]) == [expected]

    @rule(user=users)
    def forget(self, user):
        kept = [row for row in self.rows if row.purchase.user_id != user]
        assert self.store.forget(user) == len(self.rows) - len(kept)
        self.rows = kept
        self.served = [offer for offer in self.served if offer.user_id != user]
        self.forgotten.add(hashlib.sha256(user.encode()).digest())

    @rule(user=users, moment=st.integers(0, 9))
    def serve(self, user, moment):
        self.store.write_served([offered(user, moment)])
        self.served.append(offered(user, moment))

    @rule()
    def reopen(self):
        self.store.close()
        self.store = SqliteStore(self.path, vfs=self.disk.name)

    @rule(submission=submissions, at=st.integers(1, 12), torn=st.integers(0, 9))
    def lose_power(self, submission, at, torn):
        """At the `at`-th operation of a write; a key that is known is not written at all."""
        self.disk.at, self.disk.operations, before = at, 0, len(self.sent)
        try:
            self.store.write([submission])
            is_acknowledged = True
        except StoreUnavailableError:
            is_acknowledged = False
        self.store.close()
        self.disk.mend()
        folder = tempfile.TemporaryDirectory()
        self.disk.disk_after_power_loss(Path(folder.name), torn)
        self.folder.cleanup()
        self.folder, self.path = folder, Path(folder.name) / "live.db"
        self.disk.platters.clear()
        self.store = SqliteStore(self.path, vfs=self.disk.name)
        self.served = list(self.store.served(0))  # these may be lost
        if is_acknowledged or self.store.last_sequence() > self.last:
            self.expect(submission)
            assert len(self.sent) <= before + 1

    @rule()
    def back_up(self):
        target = self.path.with_name("backup.db")
        self.store.back_up(target)
        copy = SqliteStore(target)
        assert list(copy.after(0, 1_000)) == self.rows
        assert copy.last_sequence() == self.last
        copy.close()
        target.unlink()

    @invariant()
    def holds_what_the_dictionary_holds(self):
        if not hasattr(self, "store"):
            return
        assert list(self.store.after(0, 1_000)) == self.rows
        assert self.store.last_sequence() == self.last
        assert self.store.forgotten() == self.forgotten
        by_user = {}
        for row in self.rows:
            by_user.setdefault(row.purchase.user_id, []).append(row)
        assert self.store.purchases_of([*by_user, "nobody"]) == by_user
        assert sorted(o.user_id for o in self.store.served(0)) == sorted(
            o.user_id for o in self.served
        )


TestG23StoreMachine = StoreMachine.TestCase
TestG23StoreMachine.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
