"""A model whose answers are written down, and the cases to ask it."""

import numpy as np

from nextbuy.data.histories import Histories, offsets_of
from nextbuy.splitting.cases import Cases


class TableModel:
    """Gives user `u<row>` the probabilities of that row, whatever was bought."""

    name = "table"

    def __init__(self, rows):
        self.rows = np.asarray(rows, dtype=np.float64)
        self.most_asked = 0

    def log_probabilities(self, histories, as_of):
        assert as_of is None or len(as_of) == len(histories)
        self.most_asked = max(self.most_asked, len(histories))
        chosen = self.rows[[int(user[1:]) for user in histories.user_ids]]
        with np.errstate(divide="ignore"):
            logs = np.log(chosen)
        return np.hstack([np.full((len(chosen), 1), -np.inf), logs]).astype(np.float32)


def cases_of(histories, targets, *, values=None, as_of=None):
    """Cases from lists of bought items and lists of target items."""
    return Cases(
        histories=histories
        if isinstance(histories, Histories)
        else Histories.from_lists(histories),
        as_of=as_of,
        target_items=np.array([i for basket in targets for i in basket], dtype=np.int32),
        target_offsets=offsets_of(np.array([len(basket) for basket in targets])),
        target_values=None if values is None else np.array(values, dtype=np.float32),
    )


def random_cases(rng, num_cases, num_items):
    """A table of probabilities with ties, and cases with histories and baskets of any size."""
    rows = rng.integers(1, 5, size=(num_cases, num_items)).astype(float)
    rows /= rows.sum(axis=1, keepdims=True)
    everything = [-1, *range(1, num_items + 1)]
    targets = [
        sorted(rng.choice(everything, size=rng.integers(1, 4), replace=False).tolist())
        for _ in range(num_cases)
    ]
    histories = [
        rng.integers(1, num_items + 1, rng.integers(0, 8)).tolist() for _ in range(num_cases)
    ]
    return rows, histories, targets
