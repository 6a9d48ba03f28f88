"""The outlook of a mixture of log-normals: what is left of a wait, given what has elapsed of it.

Legend: U users, H horizons, F moments at which distributions are asked.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nextbuy.errors import ConfigError
from nextbuy.nn.log_normal_mixture import LogNormalMixture
from nextbuy.timing.events import Float64
from nextbuy.timing.protocol import Outlook, horizons
from nextbuy.timing.renewal_equation import STEPS, after_the_first, moments_asked

_BLOCK = 2_048
_SHORTEST_DAYS = 1e-12
_FAINT = -400.0  # of a log-probability; what is left of less has to be taken by logarithms


class NeuralOutlook(Outlook):
    """Mixtures of the whole wait of U users, and how much of it has elapsed.

    Args:
        mixture: Of y = (log days - mean) / spread; `nan` for a user without a purchase.
        elapsed_U1: Days, [U, 1].
        scale: Mean and spread of log days.
    """

    def __init__(
        self, mixture: LogNormalMixture, elapsed_U1: Tensor, scale: tuple[float, float]
    ) -> None:
        self._mixture, self._elapsed, self._scale = mixture, elapsed_U1, scale
        self._log_seen = mixture.log_survival(self._standard(elapsed_U1))

    def __len__(self) -> int:
        return len(self._elapsed)

    def take(self, users: NDArray[np.integer]) -> "NeuralOutlook":
        """See `Outlook.take`."""
        rows = torch.from_numpy(np.asarray(users, dtype=np.int64))
        return NeuralOutlook(self._mixture.take(rows), self._elapsed[rows], self._scale)

    def log_survival(self, days: Float64) -> Float64:
        """See `Outlook.log_survival`."""
        total = self._elapsed + torch.from_numpy(np.atleast_1d(days))
        left = self._mixture.log_survival(self._standard(total)) - self._log_seen
        return np.asarray(left.numpy())

    def log_density(self, days: Float64) -> Float64:
        """See `Outlook.log_density`."""
        total = self._elapsed + torch.from_numpy(np.atleast_1d(days))
        log_density = self._mixture.log_density(self._standard(total)) - self._log_seen
        per_day = total.clamp_min(_SHORTEST_DAYS).log() + float(np.log(self._scale[1]))
        return np.asarray((log_density - per_day).numpy())

    def p_active(self) -> Float64:
        """See `Outlook.p_active`."""
        never = self._mixture.log_never - self._log_seen[:, 0]
        return np.asarray(-torch.expm1(never.clamp_max(0.0)).numpy())

    def expected_purchases(self, days: ArrayLike) -> Float64:
        """See `Outlook.expected_purchases`.

        The first of them by its distribution. Those after it are a renewal process whose waits are
        all as the present one is when it begins: what the network would say after the purchases
        that are still to come is not simulated.
        """
        asked = horizons(days)
        if not np.isfinite(asked).all():
            raise ConfigError("Expected purchases were asked forever. Give finite horizons.")
        longest = float(asked.max(initial=1e-9))
        places = asked / longest * STEPS
        after_UH = np.empty((len(self), asked.shape[-1]))
        for start in range(0, len(self), _BLOCK):
            users = np.arange(start, min(start + _BLOCK, len(self)))
            mine = places[users] if places.ndim == 2 and len(places) == len(self) else places
            after_UH[users] = self.take(users)._after_the_first(longest, mine)
        return self.probability_within(days) + after_UH

    def _after_the_first(self, longest: float, places: Float64) -> Float64:
        asked_F = torch.from_numpy(moments_asked(longest))
        later_UF = 1.0 - self._mixture.survival(self._standard(asked_F[None])).clamp_max_(1.0)
        longer_UF = self._mixture.survival(self._standard(self._elapsed + asked_F))
        first_UF = 1.0 - longer_UF.div_(self._log_seen.exp()).clamp_max_(1.0)
        faint = torch.nonzero(self._log_seen[:, 0] < _FAINT)[:, 0].numpy()
        first = first_UF.numpy()
        if len(faint):
            first[faint] = self.take(faint).probability_within(asked_F.numpy())
        return after_the_first(first, later_UF.numpy(), places)

    def _standard(self, days: Tensor) -> Tensor:
        mean, spread = self._scale
        return (days.clamp_min(_SHORTEST_DAYS).log() - mean) / spread
