"""Histories as the arrays that an exported network takes."""

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import Histories, Int64


def inputs_of(histories: Histories, as_of: Int64 | None = None) -> dict[str, NDArray[np.int64]]:
    """`items`, `baskets` and, where time is dates, `times` and `as_of`; see `export.json`.

    Args:
        histories: In the catalog of the network.
        as_of: When each is asked, UTC microseconds, later than its purchases; right at the last
            purchase if not told.

    Returns:
        Arrays with one row a history and as many columns as the longest has purchases, at least 1.
    """
    lengths = histories.lengths
    inside = np.arange(max(1, int(lengths.max(initial=0)))) < lengths[:, None]

    def filled(values: NDArray[np.integer]) -> NDArray[np.int64]:
        found = np.zeros(inside.shape, dtype=np.int64)
        found[inside] = values[histories.offsets[0] : histories.offsets[-1]]
        return found

    found = {"items": filled(histories.items), "baskets": filled(histories.baskets)}
    if histories.time_kind == "dates":
        found["times"] = filled(histories.times)
        last = found["times"].max(axis=1)
        found["as_of"] = last if as_of is None else np.asarray(as_of, dtype=np.int64)
    return found
