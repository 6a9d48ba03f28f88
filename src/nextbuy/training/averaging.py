"""A running average of the weights: what is validated and kept in place of the newest ones.

After step t, with decay d and weights w_1 ... w_t,

    average_t = sum_s d^(t - s) w_s / sum_s d^(t - s),

the bias-corrected exponential moving average: the weights before training do not count, so a high
decay is no drag in a short run, and the first average is the first step's weights. It is kept as

    average_t = average_(t-1) + (1 - d) / (1 - d^t) (w_t - average_(t-1)).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextbuy.nn.network import Weights
from nextbuy.nn.placing import copied

_STEPS = "average/steps"
_NEWEST = "average/newest/"


class WeightAverage:
    """The average of some parameters, beside them.

    Args:
        parameters: Whose average it is; before the first step it is what they are.
        decay: d of the module, in (0, 1).
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self._parameters = dict(parameters)
        self._decay = decay
        self._steps = 0
        self._averages = [p.detach().clone() for p in self._parameters.values()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters after a step."""
        self._steps += 1
        share = (1.0 - self._decay) / (1.0 - self._decay**self._steps)
        torch._foreach_lerp_(self._averages, list(self._parameters.values()), share)

    def weights(self) -> Weights:
        """A copy of the average as NumPy arrays, by the names of the parameters."""
        pairs = zip(self._parameters, self._averages, strict=True)
        return {name: copied(average) for name, average in pairs}

    def state(self) -> dict[str, NDArray[Any]]:
        """What the next update depends on beside the average: step count and parameters."""
        newest = {_NEWEST + name: copied(p) for name, p in self._parameters.items()}
        return {_STEPS: np.array(self._steps, dtype=np.int64), **newest}

    @torch.no_grad()
    def restore(
        self, weights: Mapping[str, NDArray[Any]], state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Go back to where `weights` and `state` were taken, parameters and all."""
        self._steps = int(state[_STEPS])
        for (name, parameter), average in zip(
            self._parameters.items(), self._averages, strict=True
        ):
            average.copy_(torch.from_numpy(np.array(weights[name])))
            parameter.copy_(torch.from_numpy(np.array(state[_NEWEST + name])))
