"""Split off each user's last basket: the papers' protocol, which leaks time."""

import numpy as np

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories, Int64
from nextbuy.errors import SplitError
from nextbuy.splitting.baskets import basket_starts, catalog_before, last_baskets, train_rows
from nextbuy.splitting.cases import Split

_LEAK = (
    "leave-last-out leaks time: a model learns from other users' purchases made after the one it "
    "is asked about. Scores compare with papers; they do not say how it does tomorrow."
)


def leave_last_out(catalog: Catalog, histories: Histories) -> Split:
    """Each user's last basket is the test, the one before it the validation, the rest is learned.

    A user with two baskets has a test case and nothing in validation (its first basket is learned);
    a user with one basket is only learned from. With dates a case is asked at the moment of its
    answer (`as_of` is the target's time, exclusive), so models know when the purchase happens, as
    they do in training; with an order only, `as_of` is None. The catalog is recounted from all but
    the test baskets.

    Raises:
        SplitError: If no user has three baskets.
    """
    starts = basket_starts(histories)
    ends = np.searchsorted(starts, histories.offsets[1:])
    num_baskets = ends - np.searchsorted(starts, histories.offsets[:-1])
    _refuse_short_histories(num_baskets)
    tested, validated = np.flatnonzero(num_baskets >= 2), np.flatnonzero(num_baskets >= 3)
    test_rows, validation_rows = starts[ends[tested] - 1], starts[ends[validated] - 2]
    train_ends = histories.offsets[1:].copy()
    train_ends[tested] = test_rows
    known, new_index = catalog_before(catalog, histories, train_ends)
    train_ends[validated] = validation_rows
    train = train_rows(histories, train_ends, new_index)
    test = last_baskets(histories, tested, test_rows, histories.offsets[1:][tested], new_index)
    validation_ends = starts[ends[validated] - 1]
    validation = last_baskets(histories, validated, validation_rows, validation_ends, new_index)
    asked = "Models know when the purchase happens. " if test.as_of is not None else ""
    description = (
        f"Each user's last basket is the test ({len(test)} users), the one before it the validation"
        f" ({len(validation)} users with three baskets or more); trained on the other "
        f"{train.num_purchases} purchases of {len(train)} users. {asked}"
        "The catalog is what was bought outside the test baskets."
    )
    return Split(
        name="leave-last-out",
        description=description,
        catalog=known,
        train=train,
        validation=validation,
        test=test,
        warning=_LEAK,
    )


def _refuse_short_histories(num_baskets: Int64) -> None:
    if not (num_baskets >= 3).any():
        most = int(num_baskets.max()) if len(num_baskets) else 0
        raise SplitError(
            f"leave-last-out needs a user with three baskets; of {len(num_baskets)} users the "
            f"longest history has {most}. Choose --split held-out-users, or --baskets none if rows "
            "were taken together that were bought apart."
        )
