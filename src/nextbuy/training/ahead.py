"""Make the next pieces while the last one is worked on."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

Piece = TypeVar("Piece")

_PIECES: Final = 2


class _End:
    """Stands behind the last piece."""


def ahead(pieces: Iterator[Piece]) -> Generator[Piece]:
    """The same pieces in the same order, made by one thread up to two pieces before their turn.

    An error is raised where its piece would have come. Close the generator (`contextlib.closing`)
    if it is left before its end: the thread then stops with the piece that it is at.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
    end = _End()
    waiting: deque[Future[Piece | _End]] = deque()
    try:
        while True:
            while len(waiting) < _PIECES:
                waiting.append(pool.submit(next, pieces, end))
            piece = waiting.popleft().result()
            if isinstance(piece, _End):
                return
            yield piece
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
