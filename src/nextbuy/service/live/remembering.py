"""What was searched for a history is kept beside it: who asks again need not wait for it."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from nextbuy.data.histories import Float32, Histories, Int32, Int64
from nextbuy.models.protocol import Searched, SearchesApart
from nextbuy.service.live.users import Kept, UserHistory
from nextbuy.splitting.repeat import Blocked

Search = Callable[[Histories, Int64 | None, int], Searched | None]


def nowhere(histories: Histories, as_of: Int64 | None, k: int) -> None:
    """A search elsewhere, where there is none."""


class Remembering:
    """A model that is asked about some histories, one a row; implements `FindsTopK`.

    Args:
        model: The same for all that is kept.
        histories: Where it is kept.
        search: Searches elsewhere, as `Searching.search` does; None from it leaves it to the model.
    """

    name: ClassVar[str] = "remembering"

    def __init__(
        self,
        model: SearchesApart,
        histories: Sequence[UserHistory],
        search: Search,
    ) -> None:
        self._model, self._histories, self._search = model, histories, search

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """Of the model."""
        return self._model.log_probabilities(histories, as_of)

    def top_k(
        self, histories: Histories, as_of: Int64 | None, k: int, *, blocked: Blocked
    ) -> tuple[Int32, Float32]:
        """See `FindsTopK.top_k`; the rows are those that this was made for."""
        searcher = self._model.searcher()
        classes = searcher.wait_classes(histories, as_of).tolist()
        found = [history.memory.kept for history in self._histories]
        missing = [
            row
            for row, (kept, wait) in enumerate(zip(found, classes, strict=True))
            if kept is None or kept.wait_class != wait or kept.asked < k
        ]
        if missing:
            rows = np.array(missing, dtype=np.int64)
            some = histories if len(rows) == len(histories) else histories.take(rows)
            moments = None if as_of is None else as_of[rows]
            new = self._search(some, moments, k) or searcher.search(some, moments, k)
            for place, row in enumerate(missing):
                kept = Kept(new.take(np.array([place])), classes[row], k)
                found[row] = self._histories[row].memory.kept = kept
        each = [kept.searched for kept in found if kept is not None]
        width = min(one.items.shape[1] for one in each)
        searched = Searched(
            states=np.concatenate([one.states for one in each]),
            items=np.concatenate([one.items[:, :width] for one in each]),
            logits=np.concatenate([one.logits[:, :width] for one in each]),
            log_totals=np.concatenate([one.log_totals for one in each]),
        )
        return searcher.top_k(searched, histories, as_of, k, blocked=blocked)
