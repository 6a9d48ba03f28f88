"""Scores and items in one integer each, so that one sort orders both.

Legend: N scores, M owners of them, W the longest row.
"""

from typing import Final

import torch
from torch import Tensor

NONE: Final = torch.iinfo(torch.int64).min
"""Less than the key of any score."""


def in_rows(keys_N: Tensor, owners_N: Tensor, num_owners: int) -> Tensor:
    """A row of keys for each owner, as long as the longest; `owners_N` ascend."""
    counts_M = torch.bincount(owners_N, minlength=num_owners)
    firsts_M = counts_M.cumsum(0) - counts_M
    places_N = torch.arange(len(owners_N), device=owners_N.device) - firsts_M[owners_N]
    rows_MW = keys_N.new_full((num_owners, int(counts_M.max())), NONE)
    rows_MW[owners_N, places_N] = keys_N
    return rows_MW


def keys_of(scores_N: Tensor, items_N: Tensor) -> Tensor:
    """Integers in the order of the scores and, of equal scores, against that of the items."""
    bits_N = (scores_N + 0.0).view(torch.int32).to(torch.int64)  # -0 becomes 0
    return _ordered(bits_N) * 2**32 + (2**32 - 1 - items_N)


def read_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Items and scores of keys; -1 and -inf of `NONE`."""
    items = 2**32 - 1 - (keys & (2**32 - 1))
    scores = _ordered(keys >> 32).to(torch.int32).view(torch.float32)
    is_there = keys != NONE
    return torch.where(is_there, items, -1), torch.where(is_there, scores, -torch.inf)


def _ordered(bits: Tensor) -> Tensor:
    """The bits of floats as integers of the same order, and back: negative ones turn around."""
    return torch.where(bits < 0, bits ^ (2**31 - 1), bits)
