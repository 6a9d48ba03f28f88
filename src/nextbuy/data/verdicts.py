"""Which rows are rejected, and why: the first reason counts."""

import numpy as np
from numpy.typing import NDArray

from nextbuy.data.histories import Int64


class Verdicts:
    """Collects the rejected rows of one table."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._codes: NDArray[np.uint8] | None = None
        self._reasons: list[tuple[str, str]] = []

    def reject(self, rows: NDArray[np.bool_] | Int64, column: str, reason: str) -> int:
        """Reject rows (a mask, or positions) that were not rejected yet; returns how many."""
        positions = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        if not len(positions):
            return 0
        if self._codes is None:
            self._codes = np.zeros(self._num_rows, dtype=np.uint8)
        fresh = positions[self._codes[positions] == 0]
        if len(fresh):
            self._reasons.append((column, reason))
            self._codes[fresh] = len(self._reasons)
        return len(fresh)

    @property
    def kept(self) -> NDArray[np.bool_] | None:
        """Mask of the rows without a verdict; None if that is all of them."""
        return None if self._codes is None else self._codes == 0

    def rejected(self) -> tuple[Int64, list[str], list[str]]:
        """Rows in increasing order, with the column and the reason of each."""
        if self._codes is None:
            return np.zeros(0, np.int64), [], []
        rows = np.flatnonzero(self._codes)
        found = [self._reasons[code - 1] for code in self._codes[rows]]
        return rows, [column for column, _ in found], [reason for _, reason in found]
