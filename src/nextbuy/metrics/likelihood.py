"""How much probability was given to what happened."""

import numpy as np
from numpy.typing import NDArray

from nextbuy.metrics.ranking import Float64, Offsets, sum_per_case


def log_loss(log_probabilities: NDArray[np.floating], offsets: Offsets) -> Float64:
    """Mean of -log p over the known targets of each case, in nats, length C.

    0 is certain and right, log(V) a uniform guess over V items.

    Args:
        log_probabilities: Log p of each target; `nan` for one that the catalog lacks or the policy
            excludes, which is left out.
        offsets: Case c has the targets `offsets[c]:offsets[c + 1]`.

    Returns:
        One value a case, `nan` where no target is known. The mean over purchases counts each case
        by `num_known` of them.
    """
    known = ~np.isnan(log_probabilities)
    losses = sum_per_case(np.where(known, -log_probabilities, 0.0), offsets)
    counts = num_known(log_probabilities, offsets)
    return np.where(counts > 0, losses / np.maximum(counts, 1), np.nan)


def num_known(log_probabilities: NDArray[np.floating], offsets: Offsets) -> Float64:
    """How many targets of each case have a log p, length C."""
    return sum_per_case(~np.isnan(log_probabilities), offsets)
