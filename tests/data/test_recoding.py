"""From one catalog to another: the same items, or openly unknown ones."""

import numpy as np

from nextbuy.data.histories import UNKNOWN, Histories
from nextbuy.data.recoding import in_catalog, index_map
from nextbuy.splitting.cases import Cases
from tests.splitting.small_logs import catalog_of

OLD = catalog_of(4)  # a b c d
NEW = type(OLD)(table=OLD.table[[3, 0, 1]])  # d a b


def test_indices_follow_the_items():
    assert index_map(OLD, NEW).tolist() == [0, 2, 3, UNKNOWN, 1]


def test_histories_lose_what_the_new_catalog_lacks_and_users_stay():
    histories = Histories.from_lists([[1, 3, 4], [3]])
    moved = in_catalog(histories, OLD, NEW)
    assert moved.items.tolist() == [2, 1]
    assert moved.lengths.tolist() == [2, 0]
    assert histories.items.tolist() == [1, 3, 4, 3]


def test_cases_keep_targets_that_the_new_catalog_lacks_as_unknown():
    cases = Cases(
        histories=Histories.from_lists([[1], [2, 3]]),
        as_of=None,
        target_items=np.array([4, UNKNOWN, 3], dtype=np.int32),
        target_offsets=np.array([0, 2, 3]),
    )
    moved = cases.in_catalog(OLD, NEW)
    assert moved.target_items.tolist() == [1, UNKNOWN, UNKNOWN]
    assert moved.histories.items.tolist() == [2, 3]
    assert moved.target_offsets.tolist() == [0, 2, 3]
