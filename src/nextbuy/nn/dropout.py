"""Dropout whose masks come from a generator that the caller names."""

from typing import Final

import torch
from torch import Tensor

_STEPS: Final = 256


class RowsGenerator(torch.Generator):
    """Draws for some rows of a batch what they get when the whole batch is drawn for.

    Attributes:
        first: The first of the rows.
        whole: Rows of the whole batch.
    """

    first: int
    whole: int


def drop(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Set elements to 0 and scale up the rest; without a generator `x` stays.

    A mask needs one byte of randomness an element, an eighth of a drawn number; probabilities are
    therefore rounded to 1/256.

    Args:
        x: Rows of a batch first.
        probability: Of an element to be set to 0.
        generator: Of the batch; a `RowsGenerator` if `x` is some of its rows.
    """
    dropped = min(round(probability * _STEPS), _STEPS - 1)
    if generator is None or dropped == 0:
        return x
    first, whole = 0, len(x)
    if isinstance(generator, RowsGenerator):
        first, whole = generator.first, generator.whole
    size = whole * x[0].numel() if len(x) else 0
    words = torch.empty((size + 7) // 8, dtype=torch.int64, device=x.device)
    # random_() of int64 leaves the sign bit 0; the full range needs its own bounds.
    words.random_(torch.iinfo(torch.int64).min, None, generator=generator)
    drawn = words.view(torch.uint8)[:size].view(whole, *x.shape[1:])[first : first + len(x)]
    kept = torch.ge(drawn, dropped, out=torch.empty_like(x))  # 1.0 or 0.0
    return x * kept.mul_(_STEPS / (_STEPS - dropped))
