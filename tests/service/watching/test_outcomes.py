"""What became of an answer, one case after the other, by days counted on the fingers."""

import pytest

from nextbuy.data.histories import DAY
from nextbuy.service.store.protocol import ServedOffer
from nextbuy.service.watching.outcomes import outcomes
from tests.service.watching.memory_store import MemoryStore

WINDOW = 14


def offer(day, user="ann", after=0):
    return ServedOffer(
        served=day * DAY, version="000001", user_id=user, items=(("tea", None),),
        probabilities=(0.5,), after_sequence=after,
    )  # fmt: skip


def fates(store, offers, *, now, kind="timestamp"):
    found = outcomes(
        store, offers, now=now * DAY, window_days=WINDOW, basket_kind=kind,
        key_of=lambda purchase: (purchase.item_id, purchase.platform),
    )  # fmt: skip
    return [(o.offer.served // DAY, o.fate, {item for item, _ in o.bought}) for o in found]


@pytest.fixture
def store():
    return MemoryStore()


def test_the_first_basket_after_the_answer_is_the_answer_to_it(store):
    store.add("ann", "soap", 1 * DAY)  # before
    store.add("bob", "rice", 6 * DAY)  # somebody else
    store.add("ann", "tea", 7 * DAY)
    store.add("ann", "milk", 7 * DAY)  # the same moment
    store.add("ann", "bread", 8 * DAY)  # the next basket
    assert fates(store, [offer(5, after=1)], now=9) == [(5, "answered", {"tea", "milk"})]


def test_a_basket_is_what_the_log_says_it_is(store):
    store.add("ann", "tea", 7 * DAY, basket_id="b1")
    store.add("ann", "milk", 7 * DAY)
    store.add("ann", "soap", 8 * DAY, basket_id="b1")
    assert fates(store, [offer(5)], now=9, kind="column") == [(5, "answered", {"tea", "soap"})]
    assert fates(store, [offer(5)], now=9, kind="none") == [(5, "answered", {"tea"})]


def test_what_the_answer_knew_and_what_was_bought_before_it_is_no_answer(store):
    store.add("ann", "known", 5 * DAY)  # at the same moment, but the answer knew it
    store.add("ann", "late", 4 * DAY)  # reported late
    assert fates(store, [offer(5, after=1)], now=9) == [(5, "pending", set())]
    store.add("ann", "tea", 5 * DAY)  # right at the moment
    assert fates(store, [offer(5, after=1)], now=9) == [(5, "answered", {"tea"})]


def test_nothing_bought_is_pending_until_the_window_ends_and_never_a_miss(store):
    assert fates(store, [offer(5)], now=5 + WINDOW - 1) == [(5, "pending", set())]
    assert fates(store, [offer(5)], now=5 + WINDOW) == [(5, "unanswered", set())]
    store.add("ann", "tea", (5 + WINDOW) * DAY + 1)  # a moment too late
    assert fates(store, [offer(5)], now=30) == [(5, "unanswered", set())]
    store.add("bob", "tea", (5 + WINDOW) * DAY)  # at the last moment
    assert fates(store, [offer(5, "bob")], now=30) == [(5, "answered", {"tea"})]


def test_only_the_last_answer_before_a_purchase_counts(store):
    store.add("ann", "tea", 8 * DAY)
    given = [offer(9, after=1), offer(5), offer(6), offer(30)]
    assert fates(store, given, now=31) == [
        (5, "superseded", set()),
        (6, "answered", {"tea"}),
        (9, "unanswered", set()),  # its fourteen days were over before the next answer
        (30, "pending", set()),
    ]
    # While nothing is bought, too; and another user's answers change nothing.
    given = [offer(5, "bob"), offer(6, "bob"), offer(6, "eve")]
    found = fates(store, given, now=7)
    assert [fate for _, fate, _ in found] == ["superseded", "pending", "pending"]


def test_a_purchase_between_two_answers_is_the_first_ones_even_if_reported_late(store):
    store.add("ann", "tea", 6 * DAY)  # the second answer, of day 7, knew nothing yet
    found = fates(store, [offer(5), offer(7)], now=8)
    assert found == [(5, "answered", {"tea"}), (7, "pending", set())]


def test_users_are_asked_for_some_at_a_time(store):
    offers = [offer(5, f"u{n}") for n in range(1000)]
    assert len(fates(store, offers, now=6)) == 1000
    assert store.most_users == 256
