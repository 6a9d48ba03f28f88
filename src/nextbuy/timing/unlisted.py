"""Purchases of items that a catalog does not know: they do not tell what, but when.

A bundle's histories hold only what its catalog knows. A customer who lately bought nothing but new
things would look lost without these.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from nextbuy import storage
from nextbuy.data.histories import Float32, Histories, Int32, Int64, offsets_of
from nextbuy.errors import BundleError

FILE: Final = "unlisted.safetensors"
_KINDS: Final = {
    "users": np.int64, "times": np.int64, "baskets": np.int32,
    "prices": np.float32, "quantities": np.float32,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Unlisted:
    """Those purchases, in the order of the log.

    Attributes:
        users: Position of each one's user.
        times: UTC microseconds.
        baskets: As in the whole history of the user.
        prices: Or None.
        quantities: Or None.
    """

    users: Int64
    times: Int64
    baskets: Int32
    prices: Float32 | None = None
    quantities: Float32 | None = None

    @classmethod
    def of(cls, histories: Histories, rows: NDArray[np.bool_]) -> Self:
        """The marked purchases of whole histories."""
        return cls(
            users=histories.owners[rows],
            times=histories.times[rows],
            baskets=histories.baskets[rows],
            prices=None if histories.prices is None else histories.prices[rows],
            quantities=None if histories.quantities is None else histories.quantities[rows],
        )

    def added_to(self, histories: Histories) -> Histories:
        """The histories of the same users with these purchases in their places, for when and how
        much alone: an item that is not known is item 1."""
        if not len(self.users):
            return histories
        owners = np.concatenate([histories.owners, self.users])
        times = np.concatenate([histories.times, self.times])
        baskets = np.concatenate([histories.baskets, self.baskets])
        order = np.lexsort((baskets, times, owners))
        ones = np.ones(len(self.users), dtype=np.int32)
        optional: dict[str, Any] = {
            name: np.concatenate([getattr(histories, name), getattr(self, name)])[order]
            for name in ("prices", "quantities")
            if getattr(histories, name) is not None
        }
        return replace(
            histories,
            items=np.concatenate([histories.items, ones])[order],
            times=times[order],
            baskets=baskets[order],
            offsets=offsets_of(np.bincount(owners, minlength=len(histories))),
            **optional,
        )

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _KINDS}
        storage.write_arrays(folder / FILE, {n: a for n, a in arrays.items() if a is not None})

    @classmethod
    def load(cls, folder: Path, histories: Histories) -> Self:
        """Read what `save` wrote.

        Raises:
            BundleError: If the arrays do not fit together or to the histories that they are of.
        """
        arrays = storage.read_arrays(folder / FILE)
        optional = {n for n in ("prices", "quantities") if getattr(histories, n) is not None}
        expected = {"users", "times", "baskets"} | optional
        shapes = {array.shape for array in arrays.values()}
        fits = (
            set(arrays) == expected
            and len(shapes) == 1
            and all(a.ndim == 1 and a.dtype == _KINDS[n] for n, a in arrays.items())
        )
        users = arrays.get("users", np.array([], dtype=np.int64))
        if not fits or (len(users) and (users.min() < 0 or users.max() >= len(histories))):
            found = {name: (str(a.dtype), a.shape) for name, a in arrays.items()}
            raise BundleError(
                f"{folder / FILE} holds {found}; expected {sorted(expected)}, equally long, of the "
                f"{len(histories)} users of the bundle."
            )
        return cls(**arrays)
