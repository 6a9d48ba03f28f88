"""One vector an item: its own, and one for everything that it shares with others.

Legend: V items, A attributes, D width.
"""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

_PIECE: Final = 2**18
"""Items whose vectors are added up at a time."""


class ItemTable(nn.Embedding):
    """e_i = own_i + sum over attributes a of shared_a[code_a(i)]; row 0 is padding.

    What is bought seldom is then known by its kind, and what a kind has in common is learnt once.

    Args:
        num_items: V.
        width: D.
        sizes: Number of codes of each attribute.
        codes: Of each item, [A, V + 1], if there are attributes.
    """

    codes: Tensor | None

    def __init__(
        self, num_items: int, width: int, sizes: Sequence[int] = (), codes: Tensor | None = None
    ) -> None:
        super().__init__(num_items + 1, width)
        self.shared = nn.ParameterList(torch.zeros(size, width) for size in sizes)
        self.register_buffer("codes", None, persistent=False)
        self.see(codes)

    def see(self, codes: Tensor | None) -> None:
        """Learn what items have in common; without attributes it does not matter."""
        self.codes = codes if len(self.shared) else None

    def forward(self, items: Tensor) -> Tensor:
        """Vectors of item indices; one more axis, of length D."""
        found = super().forward(items)
        if self.codes is not None:
            for codes, table in zip(self.codes, self.shared, strict=True):
                found = found + F.embedding(codes[items], table)
        return found

    def rows(self) -> Tensor:
        """Vectors of the items 1..V, [V, D]."""
        if self.codes is None:
            return self.weight[1:]
        if torch.is_grad_enabled():
            return self._rows(1, len(self.weight))
        found = torch.empty_like(self.weight[1:])  # filled in pieces: nothing large beside it
        for start in range(1, len(self.weight), _PIECE):
            end = min(start + _PIECE, len(self.weight))
            found[start - 1 : end - 1] = self._rows(start, end)
        return found

    def _rows(self, start: int, end: int) -> Tensor:
        found: Tensor = self.weight[start:end]
        if self.codes is not None:
            for codes, table in zip(self.codes, self.shared, strict=True):
                found = found + F.embedding(codes[start:end], table)
        return found
