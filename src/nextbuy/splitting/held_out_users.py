"""Split off whole users: is the last basket of people never seen predicted from the rest?"""

import numpy as np

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories, Int64
from nextbuy.errors import SplitError
from nextbuy.seeding import generator
from nextbuy.splitting.baskets import basket_starts, catalog_before, last_baskets, train_rows
from nextbuy.splitting.cases import Split

_LEAK = (
    "held-out-users leaks time: the users that are learned from may have bought later than the "
    "users that are asked about."
)


def hold_out_users(
    catalog: Catalog,
    histories: Histories,
    *,
    test_share: float = 0.2,
    validation_share: float = 0.05,
    seed: int,
) -> Split:
    """Ask for the last basket of users who were drawn out; learn everything of the others.

    The target of a held-out user is its last basket, given its earlier ones (none, if it has only
    one basket). With dates a case is asked at the moment of its answer. The catalog is recounted
    from everything but the held-out last baskets.

    Args:
        catalog, histories: Of the whole log.
        test_share: Share of the users who are asked about at the end, above 0.
        validation_share: Share of the users on whom choices are made, above 0.
        seed: Decides who is drawn.

    Raises:
        SplitError: If a side would be empty.
    """
    tested, validated = _drawn_users(histories, test_share, validation_share, seed)
    starts = basket_starts(histories)
    last_rows = starts[np.searchsorted(starts, histories.offsets[1:]) - 1]
    visible_ends, train_ends = histories.offsets[1:].copy(), histories.offsets[1:].copy()
    for users in (tested, validated):
        visible_ends[users] = last_rows[users]
        train_ends[users] = histories.offsets[users]
    known, new_index = catalog_before(catalog, histories, visible_ends)
    train = train_rows(histories, train_ends, new_index)
    test, validation = (
        last_baskets(histories, users, last_rows[users], histories.offsets[1:][users], new_index)
        for users in (tested, validated)
    )
    description = (
        f"{len(test)} users drawn for the test and {len(validation)} for validation (seed {seed}): "
        f"the target is their last basket, given what came before; trained on {train.num_purchases}"
        f" purchases of the other {len(train)} users. The catalog lacks only those last baskets."
    )
    return Split(
        name="held-out-users",
        description=description,
        catalog=known,
        train=train,
        validation=validation,
        test=test,
        warning=_LEAK if histories.time_kind == "dates" else None,
    )


def _drawn_users(
    histories: Histories, test_share: float, validation_share: float, seed: int
) -> tuple[Int64, Int64]:
    """Positions of the users of the test and of the validation, ascending."""
    if min(test_share, validation_share) <= 0 or test_share + validation_share >= 1:
        raise SplitError(
            f"Shares of users must be above 0 and leave some to learn from; "
            f"got test {test_share} and validation {validation_share}."
        )
    buyers = np.flatnonzero(histories.lengths > 0)
    num_test = max(1, round(test_share * len(buyers)))
    num_validation = max(1, round(validation_share * len(buyers)))
    if num_test + num_validation >= len(buyers):
        raise SplitError(
            f"{len(buyers)} users with purchases cannot be cut into {num_test} for the test, "
            f"{num_validation} for validation and some to learn from. Take smaller shares."
        )
    drawn = generator(seed, "held-out-users").permutation(buyers)
    return np.sort(drawn[:num_test]), np.sort(drawn[num_test : num_test + num_validation])
