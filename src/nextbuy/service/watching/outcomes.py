"""What became of each answer: bought, nothing yet, nothing at all, or overtaken by a later answer.

An answer speaks of the user's first basket after it. So it waits for the first purchase that is not
before it in time and was not known to it by sequence (what is reported late but was bought earlier
is no answer to it). What is bought later than the window is none either.

- `answered`: there is such a basket.
- `superseded`: the same user got a later answer before that basket, or before the window ended
  where there is none. Only the last answer before a purchase counts, so that who looks ten times
  counts once.
- `pending`: nothing bought, and the window is still open. No miss.
- `unanswered`: nothing bought, and the window is over. Nor is it a miss: what was said is what
  comes next if anything does.

Of answers that were sampled away nothing is known: they supersede none.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Final, Literal

from nextbuy.data.histories import DAY
from nextbuy.data.purchases import BasketKind
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import ServedOffer, Store, StoredPurchase

Fate = Literal["answered", "superseded", "pending", "unanswered"]
Key = tuple[str, str | None]
"""An item and its platform, as in `ServedOffer.items`."""

_USERS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an answer; `bought` are the distinct items of the basket, if answered."""

    offer: ServedOffer
    fate: Fate
    bought: frozenset[Key] = frozenset()


def outcomes(
    store: Store,
    offers: Iterable[ServedOffer],
    *,
    now: int,
    window_days: float,
    basket_kind: BasketKind,
    key_of: Callable[[LivePurchase], Key],
) -> Iterator[Outcome]:
    """What became of answers, those of one user after the other; a few users are held at a time.

    Args:
        store: Has the purchases.
        offers: In any order.
        now: UTC microseconds.
        window_days: A purchase counts if it is not later than so many days after the answer.
        basket_kind: A purchase whose basket is told is in that one, all others of one moment are
            one basket, but with `none` each purchase is its own.
        key_of: The item that was bought, at the level at which offers are made.
    """
    asked = _Asked(now, round(window_days * DAY), basket_kind, key_of)
    ordered = sorted(offers, key=lambda offer: (offer.user_id, offer.served))
    by_user = ((user, list(mine)) for user, mine in groupby(ordered, key=lambda o: o.user_id))
    while part := list(islice(by_user, _USERS_AT_ONCE)):
        bought = store.purchases_of([user for user, _ in part])
        for user, mine in part:
            theirs = sorted(bought.get(user, ()), key=lambda s: (s.purchase.timestamp, s.sequence))
            later = [*(offer.served for offer in mine[1:]), None]
            for offer, next_served in zip(mine, later, strict=True):
                yield _outcome(offer, next_served, theirs, asked)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What holds for all answers; see `outcomes`."""

    now: int
    window: int
    basket_kind: BasketKind
    key_of: Callable[[LivePurchase], Key]


def _outcome(
    offer: ServedOffer, next_served: int | None, bought: Sequence[StoredPurchase], asked: _Asked
) -> Outcome:
    end = offer.served + asked.window
    new = [
        stored.purchase
        for stored in bought
        if stored.sequence > offer.after_sequence and offer.served <= stored.purchase.timestamp
    ]
    first = new[0] if new and new[0].timestamp <= end else None
    if next_served is not None and next_served <= (end if first is None else first.timestamp):
        return Outcome(offer=offer, fate="superseded")
    if first is None:
        return Outcome(offer=offer, fate="pending" if asked.now < end else "unanswered")
    basket = [first]
    if asked.basket_kind != "none":
        basket = [purchase for purchase in new if _is_together(purchase, first)]
    return Outcome(offer=offer, fate="answered", bought=frozenset(map(asked.key_of, basket)))


def _is_together(one: LivePurchase, first: LivePurchase) -> bool:
    if first.basket_id is not None:
        return one.basket_id == first.basket_id
    return one.basket_id is None and one.timestamp == first.timestamp
