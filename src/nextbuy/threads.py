"""Work in pieces, a thread a core."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

THREADS_VARIABLES: Final = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS",
)  # fmt: skip
"""Variables of the environment that say how many threads a process may use."""

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Piece], Result],
    pieces: Iterable[Piece],
    *,
    prepare: Callable[[], None] | None = None,
) -> list[Result]:
    """What `work` gives for each piece, in their order.

    NumPy and SciPy work on one core and let others go on meanwhile. Pieces must not write to the
    same place. The first error is raised. `prepare` is called first in each thread.
    """
    with ThreadPoolExecutor(max_workers=num_cores(), initializer=prepare) as pool:
        return list(pool.map(work, pieces))


def use_one_core_each() -> None:
    """From now on each operation of torch in this process uses one core, unless `OMP_NUM_THREADS`
    says otherwise."""
    import torch  # takes a second, and not everybody here needs it

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def num_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))
