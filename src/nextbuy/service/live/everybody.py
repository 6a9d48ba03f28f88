"""All users at one moment: the bundle's histories with the store's purchases since.

Legend: U stored users, E users whose history has changed or begun.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from nextbuy.data.histories import UNKNOWN, Histories, Int64
from nextbuy.service.live.joining import Rows
from nextbuy.service.live.loaded import LoadedBundle
from nextbuy.service.live.users import KnownUsers, digest
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import Store
from nextbuy.timing.forecaster import Forecaster
from nextbuy.timing.unlisted import Unlisted

_PIECE = 10_000


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Everybody:
    """All histories: first those of the bundle in their order, then those of new users.

    Attributes:
        histories: What the catalog knows.
        unlisted: What it does not.
    """

    histories: Histories
    unlisted: Unlisted

    def forecaster(self, of: Forecaster) -> Forecaster:
        """The same forecaster, for these histories."""
        return Forecaster(of.blend, of.amounts, of.sizes, self.unlisted)


def everybody(users: KnownUsers, store: Store) -> Everybody:
    """The histories of all users, as `KnownUsers.of` gives them one by one."""
    loaded, forgotten = users.loaded, users.forgotten
    stored = loaded.predictor.histories
    changed: dict[str, list[LivePurchase]] = {}
    if forgotten:
        ids = stored.user_ids.to_list()
        changed = {user: [] for user in ids if digest(user) in forgotten}
    for user, purchase in _since(loaded, store, forgotten):
        changed.setdefault(user, []).append(purchase)
    rows = [users.history_with(user, live).whole for user, live in changed.items()]
    places = np.arange(len(stored))
    new = []
    for number, user in enumerate(changed):
        place = loaded.place_of(user)
        if place is None:
            new.append(len(stored) + number)
        else:
            places[place] = len(stored) + number
    order = np.concatenate([places, np.array(new, dtype=np.int64)])
    extra = loaded.histories(list(changed), [r.listed() for r in rows])
    return Everybody(
        histories=_both(stored, extra).take(order),
        unlisted=_unlisted(loaded, rows, order, len(stored)),
    )


def _since(
    loaded: LoadedBundle, store: Store, forgotten: frozenset[bytes]
) -> Iterator[tuple[str, LivePurchase]]:
    """What the store has and the stored histories do not; those of the forgotten are not used."""
    sequence = 0 if forgotten else loaded.store_sequence
    while found := store.after(sequence, _PIECE):
        sequence = found[-1].sequence
        for each in found:
            user = each.purchase.user_id
            if each.sequence > loaded.store_sequence or digest(user) in forgotten:
                yield user, each.purchase


def _both(first: Histories, second: Histories) -> Histories:
    """The users of the one, then those of the other."""
    prices, quantities = (
        None if a is None or b is None else np.concatenate([a, b])
        for a, b in ((first.prices, second.prices), (first.quantities, second.quantities))
    )
    return Histories(
        user_ids=pl.concat([first.user_ids, second.user_ids.alias(first.user_ids.name)]),
        items=np.concatenate([first.items, second.items]),
        times=np.concatenate([first.times, second.times]),
        baskets=np.concatenate([first.baskets, second.baskets]),
        offsets=np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        prices=prices,
        quantities=quantities,
        time_kind=first.time_kind,
    )


def _unlisted(loaded: LoadedBundle, rows: list[Rows], order: Int64, num_stored: int) -> Unlisted:
    """What the catalog lacks, by the place of its user in `order`."""
    place_of = np.full(num_stored + len(rows), -1)
    place_of[order] = np.arange(len(order))
    parts = [_of_rows(r.take(np.flatnonzero(r.items == UNKNOWN))) for r in rows]
    owners = [np.full(len(p.times), num_stored + n) for n, p in enumerate(parts)]
    if loaded.unlisted is not None:
        parts.insert(0, loaded.unlisted)
        owners.insert(0, loaded.unlisted.users)
    empty = loaded.stored_rows(None)
    parts.append(_of_rows(empty))
    owners.append(np.empty(0, np.int64))
    users = place_of[np.concatenate(owners).astype(np.int64)]
    kept = np.flatnonzero(users >= 0)
    kept = kept[np.argsort(users[kept], kind="stable")]
    prices = [p.prices for p in parts if p.prices is not None]
    quantities = [p.quantities for p in parts if p.quantities is not None]
    return Unlisted(
        users=users[kept],
        times=np.concatenate([p.times for p in parts])[kept],
        baskets=np.concatenate([p.baskets for p in parts])[kept],
        prices=np.concatenate(prices)[kept] if empty.prices is not None else None,
        quantities=np.concatenate(quantities)[kept] if empty.quantities is not None else None,
    )


def _of_rows(rows: Rows) -> Unlisted:
    return Unlisted(
        users=np.zeros(len(rows), np.int64), times=rows.times, baskets=rows.baskets,
        prices=rows.prices, quantities=rows.quantities,
    )  # fmt: skip
