"""The repeat head: which of the own items is bought again, and whether one is.

With phi_i the features of own item i, h the state, e_i the item's embedding and sigma the logistic
function,

    t_i  = w phi_i + mlp(phi_i) + rho_i + c (A h) e_i / sqrt(D)
    s_i  = log(exp(t_i) + sum_n exp(kappa_g(i)(ln a_in)))
    q_i  = softmax over own items of s_i
    r    = sigma(v psi + mlp(psi, h)),  psi the summary of the history
    p(i) = r q_i [i is an own item] + (1 - r) softmax(h E' + b)_i.

It starts with w on a decayed count and everything else at 0, where q is personal frequency, and
with the biases b at the log of popularity, so near a mixture of personal frequency and popularity,
and learns from there. kappa_g is the cadence of the item's group, piecewise linear in the log of
the ages a_in of the newest purchases of the item: each purchase proposes its item again when its
time has come, as in a Hawkes process with a learnt kernel. Mixing what is repeated with what is not
goes back to RepeatNet (Ren et al. 2019).

Legend: M states, P pairs of a state and an own item, N targets, D width, F features, S summaries, G
groups of items, K knots of a cadence.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from numpy.typing import NDArray
from torch import Tensor, nn

_FIRST_KNOT: Final = math.log(1.0 / 24.0)
_KNOT_STEP: Final = 0.1
NUM_KNOTS: Final = 102
"""Knots lie evenly in the log of an age, from an hour to about three years."""

_REACH: Final = 10.0
"""Cadences are this many times their parameters, so that training can bend them fast."""

_FIRST_KAPPA: Final = -4.0
_LEAST: Final = 1e-30


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class OwnTensors:
    """The own items of the states that are asked; see `nextbuy.nn.own_items`.

    Attributes:
        owners: State of each pair, ascending; [P].
        items: Item index of each pair, 1..V; [P].
        groups: Group of the item of each pair, [P].
        features: [P, F].
        days: Ages of the newest purchases of the item, [P, n]; infinite where there are none.
        summaries: [M, S].
    """

    owners: Tensor
    items: Tensor
    groups: Tensor
    features: Tensor
    days: Tensor
    summaries: Tensor

    def to(self, device: torch.device) -> "OwnTensors":
        """The same on a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Repeats:
    """What the head answers.

    Attributes:
        log_own: log(r q_i) of each pair, [P].
        log_rest: log(1 - r) of each state, [M]; 0 where there is no own item.
    """

    log_own: Tensor
    log_rest: Tensor

    def of_targets(self, pairs_N: Tensor, owners_N: Tensor) -> tuple[Tensor, Tensor]:
        """Both for targets that are a pair (-1 if the target is new) of a state; [N]."""
        if len(self.log_own) == 0:
            own = self.log_rest.new_full(pairs_N.shape, -torch.inf)
        else:
            found = self.log_own.index_select(0, pairs_N.clamp_min(0))
            own = torch.where(pairs_N >= 0, found, -torch.inf)
        return own, self.log_rest.index_select(0, owners_N)


class RepeatHead(nn.Module):
    """See the module."""

    def __init__(
        self,
        *,
        num_items: int,
        width: int,
        num_features: int,
        num_summaries: int,
        num_groups: int = 0,
        hidden: int = 32,
    ) -> None:
        super().__init__()
        self.cadence = nn.Embedding(num_groups + 1, NUM_KNOTS) if num_groups else None
        self.linear = nn.Linear(num_features, 1, bias=False)
        self.inner, self.outer = nn.Linear(num_features, hidden), nn.Linear(hidden, 1, bias=False)
        self.propensity = nn.Embedding(num_items + 1, 1)
        self.context = nn.Linear(width, width, bias=False)
        self.context_scale = nn.Parameter(torch.zeros(1))
        self.gate_linear = nn.Linear(num_summaries, 1)
        self.gate_inner = nn.Linear(num_summaries + width, hidden)
        self.gate_outer = nn.Linear(hidden, 1, bias=False)

    def forward(self, states_MD: Tensor, own: OwnTensors, items_PD: Tensor) -> Repeats:
        """See `Repeats`; `items_PD` are the vectors of the own items."""
        owners = own.owners
        by_features = self.linear(own.features) + self.outer(F.silu(self.inner(own.features)))
        wanted_MD = self.context(states_MD) * (self.context_scale / math.sqrt(states_MD.shape[1]))
        # index_select: the backward pass of indexing adds up in any order on several cores.
        wanted_PD = wanted_MD.index_select(0, owners)
        fits = (wanted_PD * items_PD).sum(1)
        scores = by_features[:, 0] + self.propensity(own.items)[:, 0] + fits
        if self.cadence is not None:
            scores = torch.logaddexp(scores, self._due(own, self.cadence.weight))
        top = scores.new_full((len(states_MD),), -torch.inf).scatter_reduce(
            0, owners, scores.detach(), "amax"
        )
        above = scores - top.index_select(0, owners)
        total = above.new_zeros(len(states_MD)).index_add(0, owners, above.exp())
        gate_in = torch.cat([own.summaries, states_MD], dim=1)
        bent = self.gate_outer(F.silu(self.gate_inner(gate_in)))
        gate_M = (self.gate_linear(own.summaries) + bent)[:, 0]
        log_r, log_rest = F.logsigmoid(gate_M), F.logsigmoid(-gate_M)
        has_own = torch.isfinite(top)
        return Repeats(
            log_own=log_r.index_select(0, owners) + above - total.log().index_select(0, owners),
            log_rest=torch.where(has_own, log_rest, 0.0),
        )

    @staticmethod
    def _due(own: OwnTensors, cadence: Tensor) -> Tensor:
        """log sum_n exp(kappa(ln a_n)) of each pair, [P]; row 0 of `cadence` is of all groups."""
        if own.days.device.type != "cpu":
            return _due_of_all(own, cadence)
        pairs, which = torch.isfinite(own.days).nonzero(as_tuple=True)
        kappa = _kappa(own.days[pairs, which], own.groups.index_select(0, pairs), cadence)
        total = kappa.new_zeros(len(own.items)).index_add(0, pairs, kappa.exp())
        return total.clamp_min(_LEAST).log()


def _due_of_all(own: OwnTensors, cadence: Tensor) -> Tensor:
    """`RepeatHead._due` where ages that are not there are computed too, and count nothing.

    A device computes them faster than the host learns how many there are.
    """
    num_days = own.days.shape[1]
    groups = own.groups.repeat_interleave(num_days, output_size=own.days.numel())
    kappa = _kappa(own.days.flatten(), groups, cadence).view(own.days.shape)
    total = torch.where(torch.isfinite(own.days), kappa, -torch.inf).exp().sum(1)
    return total.clamp_min(_LEAST).log()


def _kappa(days: Tensor, groups: Tensor, cadence: Tensor) -> Tensor:
    """kappa(ln a) of the cadences of these groups, one a day; row 0 is of all groups."""
    place = (days.clamp_min(1e-6).log() - _FIRST_KNOT) / _KNOT_STEP
    place = place.clamp(0.0, NUM_KNOTS - 1.001)
    knot = place.long()
    table = (cadence[1:] + cadence[:1]).flatten()
    flat = groups * NUM_KNOTS + knot
    low, high = table.index_select(0, flat), table.index_select(0, flat + 1)
    return _REACH * torch.lerp(low, high, place - knot)


def initial_head(
    shapes: Mapping[str, tuple[int, ...]],
    rng: np.random.Generator,
    *,
    first_weights: Sequence[float],
) -> dict[str, NDArray[np.float32]]:
    """Weights of a head that says what `first_weights` of the features say.

    Args:
        shapes: Names and shapes of all weights of the head.
        rng: Draws the inner layers.
        first_weights: w of the module, [F].
    """
    weights = {}
    for name, size in shapes.items():
        drawn = np.zeros(size)
        if name.endswith(("context.weight", "inner.weight")):
            drawn = rng.normal(0.0, 1.0 / math.sqrt(size[1]), size)
        elif name.endswith("cadence.weight"):
            drawn[0] = _FIRST_KAPPA / _REACH
        elif name.endswith(".linear.weight"):
            drawn = np.array([first_weights])
        weights[name] = drawn.astype(np.float32)
    return weights
