"""What was searched for a history is kept beside it: who asks again need not wait for it."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from nextbuy.data.histories import Float32, Histories, Int32, Int64
from nextbuy.models.protocol import Searched, SearchesApart
from nextbuy.service.live.users import UserHistory
from nextbuy.splitting.repeat import Blocked


class Remembering:
    """A model that is asked about some histories, one a row; implements `FindsTopK`.

    Args:
        model: The same for all that is kept.
        histories: Where it is kept.
    """

    name: ClassVar[str] = "remembering"

    def __init__(self, model: SearchesApart, histories: Sequence[UserHistory]) -> None:
        self._model, self._histories = model, histories

    def log_probabilities(self, histories: Histories, as_of: Int64 | None) -> Float32:
        """Of the model."""
        return self._model.log_probabilities(histories, as_of)

    def top_k(
        self, histories: Histories, as_of: Int64 | None, k: int, *, blocked: Blocked
    ) -> tuple[Int32, Float32]:
        """See `FindsTopK.top_k`; the rows are those that this was made for."""
        searcher = self._model.searcher()
        classes = searcher.wait_classes(histories, as_of).tolist()
        memories = [history.memory for history in self._histories]
        missing = [
            row
            for row, (memory, wait) in enumerate(zip(memories, classes, strict=True))
            if memory.searched is None or memory.wait_class != wait or memory.asked < k
        ]
        if missing:
            rows = np.array(missing, dtype=np.int64)
            some = histories if len(rows) == len(histories) else histories.take(rows)
            found = searcher.search(some, None if as_of is None else as_of[rows], k)
            for place, row in enumerate(missing):
                memory = memories[row]
                memory.searched = found.take(np.array([place]))
                memory.wait_class, memory.asked = classes[row], k
        kept = [memory.searched for memory in memories if memory.searched is not None]
        width = min(each.items.shape[1] for each in kept)
        searched = Searched(
            states=np.concatenate([each.states for each in kept]),
            items=np.concatenate([each.items[:, :width] for each in kept]),
            logits=np.concatenate([each.logits[:, :width] for each in kept]),
            log_totals=np.concatenate([each.log_totals for each in kept]),
        )
        return searcher.top_k(searched, histories, as_of, k, blocked=blocked)
