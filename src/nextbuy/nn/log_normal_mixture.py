"""Mixtures of log-normals with a share that never comes: how long a wait lasts.

After Shchur, Bilos and Guennemann 2020 ("Intensity-free learning of temporal point processes"):
with y the logarithm of the wait,

    p(y) = (1 - d) sum_k pi_k normal(y; mu_k, sigma_k),    P(longer) = d + (1 - d) sum_k pi_k ...,

so that density and survival have closed forms, and a wait that is still open has a likelihood.

Legend: M states, K components; y has any shape that begins with M.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

_LEAST_SPREAD: Final = 0.05
_LOG_SPREADS: Final = (-4.0, 2.0)
_LOG_SQRT_2PI: Final = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LogNormalMixture:
    """One mixture a state.

    Attributes:
        log_shares: Log of (1 - d) pi, [M, K].
        log_never: Log of d, [M].
        means: Of y, [M, K].
        spreads: Standard deviations of y, [M, K].
    """

    log_shares: Tensor
    log_never: Tensor
    means: Tensor
    spreads: Tensor

    @classmethod
    def of(cls, said: Tensor) -> "LogNormalMixture":
        """From 3 K + 1 numbers a state: shares, means and log spreads of K, and log odds of d."""
        odds, values = said[:, 0], said[:, 1:]
        shares, means, log_spreads = values.chunk(3, dim=1)
        log_comes = F.logsigmoid(-odds)[:, None]
        return cls(
            log_shares=torch.log_softmax(shares, dim=1) + log_comes,
            log_never=F.logsigmoid(odds),
            means=means,
            spreads=log_spreads.clamp(*_LOG_SPREADS).exp() + _LEAST_SPREAD,
        )

    def take(self, states: Tensor) -> "LogNormalMixture":
        """Those of some states."""
        return LogNormalMixture(
            log_shares=self.log_shares[states], log_never=self.log_never[states],
            means=self.means[states], spreads=self.spreads[states],
        )  # fmt: skip

    def log_density(self, y: Tensor) -> Tensor:
        """Log density of y; its integral over y is 1 - d."""
        z = self._standard(y)
        by_part = -0.5 * z * z - self._beside(self.spreads, y).log() - _LOG_SQRT_2PI
        return torch.logsumexp(self._beside(self.log_shares, y) + by_part, dim=-1)

    def log_survival(self, y: Tensor) -> Tensor:
        """Log P(y is greater), at infinity log d."""
        by_part = self._beside(self.log_shares, y) + torch.special.log_ndtr(-self._standard(y))
        never = self.log_never.view(len(self.log_never), *[1] * (y.ndim - 1))
        return torch.logaddexp(torch.logsumexp(by_part, dim=-1), never)

    def survival(self, y: Tensor) -> Tensor:
        """P(y is greater), in a fifth of the time of its logarithm."""
        per_spread = self._beside(math.sqrt(0.5) / self.spreads, y)
        z = y[..., None] * per_spread
        z -= self._beside(self.means * math.sqrt(0.5) / self.spreads, y)
        by_part = torch.special.erfc(z).mul_(self._beside(0.5 * self.log_shares.exp(), y))
        never = self.log_never.exp().view(len(self.log_never), *[1] * (y.ndim - 1))
        longer: Tensor = by_part.sum(dim=-1).add_(never)
        return longer

    def _standard(self, y: Tensor) -> Tensor:
        return (y[..., None] - self._beside(self.means, y)) / self._beside(self.spreads, y)

    @staticmethod
    def _beside(values_MK: Tensor, y: Tensor) -> Tensor:
        """Values of the components, shaped to stand beside those of y."""
        return values_MK.view(len(values_MK), *[1] * (y.ndim - 1), values_MK.shape[1])
