"""A GRU over purchases (GRU4Rec: Hidasi et al. 2016), with one table for items in and out.

What was bought is a row of the table, normed; layers of gated recurrent units read it in order; the
last state, brought back to the width of the table, scores every item by its row. GRU4Rec's own
output is a table apart; one for both has half the weights, and is what the transformer has.

Legend: B sequences, L positions, M states that are asked, D width of an item, H size of a layer,
V items.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nextbuy.nn.dropout import drop
from nextbuy.nn.network import CatalogNetwork, Sequences, Weights
from nextbuy.nn.recurrent import orthogonal
from nextbuy.seeding import generator


class GruShape(BaseModel):
    """Sizes of the network; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_items: int = Field(ge=1, description="V: items in the catalog, without padding")
    width: int = Field(default=64, ge=1, description="of an item's row")
    hidden: int = Field(default=128, ge=1, description="units of a layer")
    layers: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    marks_baskets: bool = Field(
        default=False, description="tell each position whether its purchase opens a new basket"
    )


class GruNetwork(CatalogNetwork):
    """The network; `states` is everything before the scores."""

    def __init__(self, shape: GruShape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.num_items + 1, shape.width)
        self.basket = nn.Embedding(2, shape.width) if shape.marks_baskets else None
        self.norm_first, self.norm_last = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        sizes = [shape.width] + [shape.hidden] * (shape.layers - 1)
        self.layers = nn.ModuleList(nn.GRU(size, shape.hidden, batch_first=True) for size in sizes)
        self.back = nn.Linear(shape.hidden, shape.width)
        self.bias = nn.Parameter(torch.zeros(shape.num_items))

    def states(self, asked: Sequences, dropout: torch.Generator | None = None) -> Tensor:
        """Hidden states that are asked, [M, D]; without a generator there is no dropout."""
        x_BLD = self.embedding(asked.items)
        if self.basket is not None:
            x_BLD = x_BLD + self.basket(asked.marks)
        h_BLH = drop(self.norm_first(x_BLD), self.shape.dropout, dropout)
        for layer in self.layers:
            h_BLH = drop(layer(h_BLH)[0], self.shape.dropout, dropout)
        h_MH = h_BLH.flatten(0, 1).index_select(0, asked.states)
        found: Tensor = self.norm_last(self.back(h_MH))
        return found

    def item_tables(self) -> dict[str, int]:
        """See `CatalogNetwork.item_tables`."""
        return {"embedding.weight": 0, "bias": 1}

    def output(self) -> tuple[Tensor, Tensor]:
        """Rows of weights [V, D] and biases [V] of the items 1..V."""
        return self.embedding.weight[1:], self.bias


def weight_shapes(shape: GruShape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights; gates are in the order reset, update, new."""
    with torch.device("meta"):
        network = GruNetwork(shape)
    return {name: tuple(p.shape) for name, p in network.named_parameters()}


def initial_weights(
    shape: GruShape, *, seed: int, item_counts: NDArray[np.integer], longest: int
) -> Weights:
    """Weights before training.

    Input kernels are Glorot-uniform, recurrent ones orthogonal, tables normal with .02. The bias of
    the update gates, which keep what a unit holds, is log(u) with u uniform in (1, longest): some
    units remember a whole history from the start (Tallec and Ollivier 2018). The bias of an item is
    the log of its frequency over the mean, so that training starts at popularity.

    Args:
        shape: Sizes.
        seed: Seed of the run.
        item_counts: Purchases of each item 1..V in the training histories, length V.
        longest: Length of the longest training window, in purchases.
    """
    rng = generator(seed, "initial weights")
    weights: Weights = {}
    for name, size in weight_shapes(shape).items():
        if name in ("embedding.weight", "basket.weight"):
            drawn = rng.normal(0.0, 0.02, size)
        elif name.endswith("weight_hh_l0"):
            drawn = np.concatenate([orthogonal(rng, size[1]) for _ in range(3)])
        elif name.endswith(("weight_ih_l0", "back.weight")):
            gates = 3 if name.endswith("weight_ih_l0") else 1
            bound = math.sqrt(6.0 / (size[0] / gates + size[1]))
            drawn = rng.uniform(-bound, bound, size)
        elif name.endswith("bias_ih_l0"):
            drawn = np.zeros(size)
            memory = np.log(rng.uniform(1.0, max(2.0, float(longest)), shape.hidden))
            drawn[shape.hidden : 2 * shape.hidden] = memory
        elif "norm" in name and name.endswith(".weight"):
            drawn = np.ones(size)
        else:
            drawn = np.zeros(size)
        weights[name] = drawn.astype(np.float32)
    smoothed = np.asarray(item_counts, dtype=np.float64) + 1.0
    weights["bias"] = np.log(smoothed / math.exp(np.log(smoothed).mean())).astype(np.float32)
    return weights
