"""AdamW for tables with a row an item, of which a step touches few.

Each row has a clock of its own, which stands still while the row is not touched. In the n-th step
that touches row w, with gradient g and the learning rate r of that step,

    m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g^2,
    w <- (1 - r decay) w - r (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps),

so that a row goes exactly the way that AdamW would lead it through the steps that touch it, were
there no others. What AdamW does beside that to a table with a dense gradient is left out: it lets
moments fade in all steps in between, and moves the row on by what is left of them, whatever the
data say. Time and memory of a step are those of its rows, whatever the size of the table.

Legend: V rows of a table, K rows that are touched, R width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextbuy.nn.placing import copied

_BETA1: Final = 0.9
_EPS: Final = 1e-8
_PARTS: Final = ("exp_avg", "exp_avg_sq", "clock")
_DTYPES: Final[dict[type[np.generic], torch.dtype]] = {
    np.float32: torch.float32,
    np.int32: torch.int32,
}


class RowAdam:
    """Moments and clocks of some tables.

    Args:
        tables: By name, [V] or [V, R]; changed in place.
        beta2: b2 of the module.
        weight_decay: decay of the module.
    """

    def __init__(
        self, tables: Mapping[str, nn.Parameter], *, beta2: float, weight_decay: float
    ) -> None:
        self._tables = {name: table.detach() for name, table in tables.items()}
        self._beta2, self._weight_decay = beta2, weight_decay
        self._state = {
            name: {
                "exp_avg": _zeros(table.shape, np.float32, table.device),
                "exp_avg_sq": _zeros(table.shape, np.float32, table.device),
                "clock": _zeros(table.shape[:1], np.int32, table.device),
            }
            for name, table in self._tables.items()
        }

    @torch.no_grad()
    def step(
        self,
        name: str,
        rows_K: Tensor,
        gradient: Tensor,
        *,
        learning_rate: float,
        is_broken: Tensor | None = None,
    ) -> None:
        """Take a step with some rows of a table.

        Args:
            name: Of the table.
            rows_K: Distinct.
            gradient: Of these rows, [K] or [K, R].
            learning_rate: r of the module.
            is_broken: If it is not 0, nothing is changed; nobody waits for its value.
        """
        table, state = self._tables[name], self._state[name]
        clock = state["clock"].index_select(0, rows_K) + 1
        n = clock.double().view(-1, *[1] * (table.dim() - 1))
        m = state["exp_avg"].index_select(0, rows_K).lerp_(gradient, 1.0 - _BETA1)
        v = state["exp_avg_sq"].index_select(0, rows_K).mul_(self._beta2)
        v.addcmul_(gradient, gradient, value=1.0 - self._beta2)
        scale = ((1.0 - self._beta2**n).sqrt() / (1.0 - _BETA1**n)).float()
        # sqrt(v / (1 - b2^n)) + eps, times sqrt(1 - b2^n)
        below = v.sqrt().add_((_EPS * (1.0 - self._beta2**n).sqrt()).float())
        w = table.index_select(0, rows_K).mul_(1.0 - learning_rate * self._weight_decay)
        w.sub_(m.div(below).mul_(scale).mul_(learning_rate))
        new = {"exp_avg": m, "exp_avg_sq": v, "clock": clock}
        for whole, rows in [(table, w), *((state[part], new[part]) for part in _PARTS)]:
            kept = rows
            if is_broken is not None:
                kept = torch.where(is_broken > 0, whole.index_select(0, rows_K), rows)
            whole.index_copy_(0, rows_K, kept)

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of moments and clocks, named after table and part."""
        return {
            f"{name}/{part}": copied(values)
            for name, parts in self._state.items()
            for part, values in parts.items()
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go back to where `state` was taken."""
        for name, parts in self._state.items():
            for part, values in parts.items():
                values.copy_(torch.from_numpy(np.array(state[f"{name}/{part}"])))


def _zeros(shape: Sequence[int], dtype: type[np.generic], device: torch.device) -> Tensor:
    """Zeros; on the CPU they take memory only where they are written to, unlike torch's own."""
    if device.type == "cpu":
        return torch.from_numpy(np.zeros(tuple(shape), dtype))
    return torch.zeros(tuple(shape), dtype=_DTYPES[dtype], device=device)
