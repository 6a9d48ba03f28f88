"""A batch cut into rows, a piece for each of a team, so that all pieces together are the batch.

Legend: B rows of a batch, L positions, M states that are asked, N targets.
"""

from dataclasses import replace

import numpy as np

from nextbuy.training.batches import Batch, Questions


def rows_of(num_rows: int, rank: int, size: int) -> slice:
    """The rows of a batch that are rank `rank`'s among `size`; perhaps none."""
    return slice(num_rows * rank // size, num_rows * (rank + 1) // size)


def part_of(batch: Batch, rows: slice) -> Batch:
    """These rows of a batch, as a batch: positions, questions and own items are renumbered.

    Args:
        batch: With its questions, perhaps with own items.
        rows: Start and stop, without a step.
    """
    asked, length = batch.questions(), batch.targets.shape[1]
    grid = np.array([rows.start, rows.stop]) * length
    low, high = np.searchsorted(asked.states, grid)
    mine = (asked.owners >= low) & (asked.owners < high)
    return replace(
        batch,
        inputs=batch.inputs[rows],
        marks=batch.marks[rows],
        targets=batch.targets[rows],
        openings=batch.openings[rows],
        gaps=None if batch.gaps is None else batch.gaps[rows],
        days=None if batch.days is None else batch.days[rows],
        moments=None if batch.moments is None else batch.moments[rows],
        weights=None if batch.weights is None else batch.weights[rows],
        own=None if batch.own is None else batch.own.take(np.arange(low, high)),
        asked=Questions(
            states=asked.states[low:high] - grid[0],
            owners=asked.owners[mine] - low,
            targets=asked.targets[mine],
            weights=None if asked.weights is None else asked.weights[mine],
        ),
    )
