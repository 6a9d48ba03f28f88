"""Test doubles for the service: a store and a live model in memory, simple enough to read."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import polars as pl

from nextbuy.errors import (
    BundleError,
    ConflictError,
    ModelUnavailableError,
    NextbuyError,
    StoreUnavailableError,
)
from nextbuy.service.live.paging import HistoryPage, bounds, place_of
from nextbuy.service.live.protocol import Answer, Offer, Question
from nextbuy.service.store.protocol import Receipt, StoredPurchase, Submission

NOW = 1_772_323_200_000_000  # 2026-03-01T00:00:00Z
CATALOG = ("rice", "tea", "salt")


class MemoryStore:
    """Submissions by key, purchases in order."""

    def __init__(self):
        self.rows: list[StoredPurchase] = []
        self.keys: dict[str, tuple[bytes, Receipt]] = {}
        self.hashes: set[bytes] = set()
        self.trouble: NextbuyError | None = None
        self.is_closed = False

    def write(self, submissions):
        if self.trouble:
            raise self.trouble
        return [self._write(one) for one in submissions]

    def _write(self, one: Submission):
        if one.key in self.keys:
            digest, receipt = self.keys[one.key]
            if digest != one.digest:
                return ConflictError("the key was used for something else")
            return Receipt(
                first_sequence=receipt.first_sequence, count=receipt.count, is_repeat=True
            )
        first = len(self.rows) + 1
        self.rows += [
            StoredPurchase(sequence=first + place, received=one.received, purchase=purchase)
            for place, purchase in enumerate(one.purchases)
        ]
        receipt = Receipt(first_sequence=first, count=len(one.purchases), is_repeat=False)
        self.keys[one.key] = (one.digest, receipt)
        return receipt

    def of(self, user_id):
        return [row for row in self.rows if row.purchase.user_id == user_id]

    def forget(self, user_id):
        if self.trouble:
            raise self.trouble
        deleted = len(self.of(user_id))
        self.rows = [row for row in self.rows if row.purchase.user_id != user_id]
        self.hashes.add(hashlib.sha256(user_id.encode()).digest())
        return deleted

    def check(self):
        if self.trouble:
            raise self.trouble

    def close(self):
        self.is_closed = True


class DirectCommitter:
    """Writes at once, one at a time."""

    def __init__(self, store, on_stored=lambda _: None):
        self.store, self.on_stored, self.lock = store, on_stored, threading.Lock()
        self.is_closed = False

    def submit(self, submission: Submission) -> "Future[Receipt]":
        if self.is_closed:
            raise StoreUnavailableError("closed")
        told: Future[Receipt] = Future()
        try:
            with self.lock:
                before = len(self.store.rows)
                (receipt,) = self.store.write([submission])
                self.on_stored(self.store.rows[before:])
        except NextbuyError as error:
            told.set_exception(error)
            return told
        if isinstance(receipt, ConflictError):
            told.set_exception(receipt)
        else:
            told.set_result(receipt)
        return told

    def close(self):
        self.is_closed = True


class CountingModel:
    """Offers the catalog, what a user bought most often first; probabilities are shares of counts
    plus one."""

    def __init__(self, store):
        self.store = store
        self.version: str | None = "000001"
        self.versions = {"000001", "000002"}
        self.gate: threading.Event | None = None  # an audience waits for it, if it is there
        self.started = threading.Event()
        self.steps: list[float] = []  # of audiences that went on

    async def predict(self, questions: Sequence[Question]) -> list[Answer]:
        if self.version is None:
            raise ModelUnavailableError("no bundle is loaded")
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer:
        if question.history is None:
            bought = [row.purchase.item_id for row in self.store.of(question.user_id)]
        else:
            bought = [purchase.item_id for purchase in question.history]
        known = [item for item in bought if item in CATALOG]
        excluded = set(question.rules.exclude) if question.rules else set()
        counts = {item: 1 + known.count(item) for item in CATALOG if item not in excluded}
        order = sorted(counts, key=lambda item: (-counts[item], CATALOG.index(item)))
        offers = tuple(
            Offer(
                item_id=item, platform=None, category=None,
                probability=counts[item] / sum(counts.values()),
                reason="bought before" if question.explain else None,
            )
            for item in order[: question.k]
        )  # fmt: skip
        return Answer(
            user_id=question.user_id, offers=offers, version=self.version or "",
            fallback=not known,
            ignored_items=tuple(dict.fromkeys(i for i in bought if i not in CATALOG)),
            reason_empty=None if offers else "the rules leave nothing to offer",
            after_sequence=len(self.store.rows),
        )  # fmt: skip

    def forecast(self, user_ids, *, as_of=None, horizon_days=90):
        table = pl.DataFrame(
            {
                "user_id": list(user_ids),
                "p_buy_30d": [0.5] * len(user_ids),
                "days_to_next_p50": [float("nan")] * len(user_ids),
            }
        )
        return table, self.version

    def audience(self, request, *, as_of=None, progress: Callable[[float], None] = lambda _: None):
        self.started.set()
        request.target  # noqa: B018  as the real one, it refuses what names no one target
        self._step(progress, 0.0)
        if self.gate is not None:
            self.gate.wait(10)
        self._step(progress, 0.5)
        table = pl.DataFrame(
            {"user_id": ["=1+1", "ann"], "rank": [1, 2], "probability": [0.9, 0.25],
             "expected_purchases": [1.0, 0.5], "expected_value": [None, 2.0],
             "group": ["target", "target"]}
        )  # fmt: skip
        return table, self.version

    def _step(self, progress, share):
        progress(share)
        self.steps.append(share)

    def history(self, user_id, most, before=None):
        rows = sorted(self.store.of(user_id), key=lambda row: row.purchase.timestamp)
        moments = [(False, row.purchase.timestamp) for row in rows]
        start, end = bounds(moments, most, before)
        return HistoryPage(
            purchases=rows[start:end], total=len(rows), older=place_of(moments, start),
            version=self.version,
        )  # fmt: skip

    def bought(self, purchases):
        pass

    def forget(self, user_id):
        pass

    def swap(self, name):
        wanted = max(self.versions) if name == "latest" else name
        if wanted not in self.versions:
            raise BundleError(f"There is no version {name}.")
        self.version = wanted
        return wanted

    def facts(self):
        if self.version is None:
            raise ModelUnavailableError("no bundle is loaded")
        return {"version": self.version, "models": ["counting"]}
