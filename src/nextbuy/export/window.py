"""The newest purchases of histories as a network reads them, in operations that ONNX has.

Histories of any lengths lie side by side, filled up with 0 at their ends. What
`nextbuy.models.neural_scoring` does for histories of one length with NumPy is done here for rows of
different lengths: a network that reads in order sees what fills up only after the state that is
asked.

Legend: B rows, L purchases of the longest, W positions of a window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nextbuy.data.histories import DAY
from nextbuy.nn.transformer import NUM_GAPS

_MINUTE = 60e6


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Asked:
    """What is asked, as the graph gets it.

    Attributes:
        items: Item index of each purchase, the oldest first, 0 after the last one; [B, L].
        baskets: Number of its basket, 0, 1, ... for each row; [B, L].
        times: UTC microseconds, [B, L]; None where time is only an order.
        as_of: When each row is asked, UTC microseconds, [B]; None likewise.
        lengths: Purchases of each row, [B].
    """

    items: Tensor
    baskets: Tensor
    times: Tensor | None
    as_of: Tensor | None
    lengths: Tensor

    def ages(self) -> Tensor | None:
        """Days from each purchase to the question, double precision, [B, L]."""
        if self.times is None or self.as_of is None:
            return None
        return (self.as_of[:, None] - self.times).double() / DAY


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Window:
    """See `nextbuy.nn.network.Sequences`; `ends` are the positions that are asked, [B]."""

    items: Tensor
    marks: Tensor
    gaps: Tensor | None
    days: Tensor | None
    ends: Tensor


def window_of(asked: Asked, *, longest: int, num_items: int) -> Window:
    """The newest `longest - 1` purchases of each row, and the one before as the first input.

    Inside a basket purchases are put in the order of their index, as everywhere.
    """
    most = asked.items.shape[1]
    size = torch.sym_min(most, longest - 1) + 1  # type: ignore[no-untyped-call]
    places = torch.arange(size)[None, :]
    ends = asked.lengths.clamp_max(longest - 1)
    flat = (asked.lengths - ends - 1)[:, None] + places
    seen = (flat >= 0) & (places <= ends[:, None])
    here = flat.clamp(0, most - 1)
    after = (flat + 1).clamp(0, most - 1)
    items = torch.where(seen, _canonical(asked, num_items).gather(1, here), 0)
    baskets = torch.where(seen, asked.baskets.gather(1, here), -1)
    opens = (asked.baskets.gather(1, after) != baskets) | (places >= ends[:, None])
    marks = opens.long()
    gaps = days = None
    if asked.times is not None and asked.as_of is not None:
        times = asked.times.gather(1, here)
        minutes = (times[:, 1:] - times[:, :-1]).clamp_min(0).double() / _MINUTE
        between = torch.where(seen[:, :-1], _doublings(minutes), 0)
        gaps = torch.cat([torch.zeros_like(between[:, :1]), between], dim=1)
        last = asked.times.gather(1, (asked.lengths - 1).clamp_min(0)[:, None])[:, 0]
        since = (asked.as_of - last).clamp_min(0).double() / DAY
        minutes = since.float() * 1440.0
        days = torch.where(asked.lengths > 0, _doublings(minutes), 0)
    return Window(items=items, marks=marks, gaps=gaps, days=days, ends=ends)


def _canonical(asked: Asked, num_items: int) -> Tensor:
    """The items, ascending inside each basket; what fills up stays at the end."""
    is_there = asked.items > 0
    keys = asked.baskets * (num_items + 1) + asked.items
    keys = torch.where(is_there, keys, torch.iinfo(torch.int64).max)
    order = keys.argsort(dim=1)  # equal keys have equal items
    return asked.items.gather(1, order)


def _doublings(minutes: Tensor) -> Tensor:
    """1 for less than a minute, then one more each time it doubles, by comparison: logarithms are
    rounded in another way by every runtime."""
    edges = 2.0 ** torch.arange(1, NUM_GAPS - 1, dtype=minutes.dtype)
    return 1 + ((1 + minutes)[..., None] >= edges).long().sum(-1)
