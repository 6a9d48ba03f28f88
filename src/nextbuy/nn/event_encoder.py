"""A GRU that reads purchase events and says, after each, how long the next wait lasts.

What is known of an event goes to the GRU and, beside its state, to the head, and straight to what
the head says: a regular user's mean gap is the first guess for the next, and need not pass through
the gates.

Legend: B sequences, L positions, M states, F features, H hidden size, K components.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nextbuy.nn.dropout import drop
from nextbuy.nn.log_normal_mixture import LogNormalMixture
from nextbuy.nn.network import NamedWeights, Weights
from nextbuy.nn.recurrent import orthogonal
from nextbuy.seeding import generator


class EventShape(BaseModel):
    """Sizes of the network; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_features: int = Field(ge=1)
    hidden: int = Field(default=48, ge=1)
    components: int = Field(default=6, ge=1)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)


class EventNetwork(NamedWeights):
    """The network."""

    def __init__(self, shape: EventShape) -> None:
        super().__init__()
        self.shape = shape
        self.layer = nn.GRU(shape.num_features, shape.hidden, batch_first=True)
        self.inner = nn.Linear(shape.hidden + shape.num_features, shape.hidden)
        self.outer = nn.Linear(shape.hidden, 3 * shape.components + 1)
        self.straight = nn.Linear(shape.num_features, 3 * shape.components + 1, bias=False)

    def forward(
        self, x_BLF: Tensor, asked_M: Tensor, dropout: torch.Generator | None = None
    ) -> LogNormalMixture:
        """The wait after each of the events that are asked; see `said`."""
        return LogNormalMixture.of(self.said(x_BLF, asked_M, dropout))

    def said(
        self, x_BLF: Tensor, asked_M: Tensor, dropout: torch.Generator | None = None
    ) -> Tensor:
        """What `LogNormalMixture.of` reads, [M, 3 K + 1].

        Args:
            x_BLF: Features of events in time order.
            asked_M: Places in the flattened grid [B * L].
            dropout: Without a generator there is none.
        """
        h_BLH, _ = self.layer(x_BLF)
        h_MH = h_BLH.flatten(0, 1).index_select(0, asked_M)
        x_MF = x_BLF.flatten(0, 1).index_select(0, asked_M)
        h_MH = drop(h_MH, self.shape.dropout, dropout)
        inner_MH = F.silu(self.inner(torch.cat([h_MH, x_MF], dim=1)))
        said: Tensor = self.outer(drop(inner_MH, self.shape.dropout, dropout))
        said += self.straight(x_MF)
        return said


def weight_shapes(shape: EventShape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights; gates are in the order reset, update, new."""
    with torch.device("meta"):
        network = EventNetwork(shape)
    return {name: tuple(p.shape) for name, p in network.named_parameters()}


def initial_weights(shape: EventShape, *, seed: int, guess: int) -> Weights:
    """Weights before training.

    Input kernels are Glorot-uniform, recurrent ones orthogonal. The head says after every event:
    means of y evenly spread over a guess -1.5 to +1.5, and a tenth that never comes.

    Args:
        shape: Sizes.
        seed: Seed of the run.
        guess: The feature that is a first guess of y.
    """
    rng = generator(seed, "initial weights")
    weights: Weights = {}
    means = slice(1 + shape.components, 1 + 2 * shape.components)
    for name, size in weight_shapes(shape).items():
        drawn = np.zeros(size)
        if name == "layer.weight_hh_l0":
            drawn = np.concatenate([orthogonal(rng, size[1]) for _ in range(3)])
        elif name in ("layer.weight_ih_l0", "inner.weight"):
            gates = 3 if name.startswith("layer") else 1
            bound = math.sqrt(6.0 / (size[0] / gates + size[1]))
            drawn = rng.uniform(-bound, bound, size)
        elif name == "outer.bias":
            drawn[0] = math.log(0.1 / 0.9)
            drawn[means] = np.linspace(-1.5, 1.5, shape.components)
            drawn[means.stop :] = math.log(0.6)
        elif name == "straight.weight":
            drawn[means, guess] = 1.0
        weights[name] = drawn.astype(np.float32)
    return weights
