"""A causal transformer over purchases, with a low-pass filter beside attention.

Pre-norm blocks (Vaswani et al. 2017; Kang and McAuley 2018 for purchases). With `taps`, each block
mixes attention with a causal filter per channel,

    low(x)_l = sum_k softmax(w)_k x_(l-k),    filter(x) = low(x) + beta^2 (x - low(x)),

after the frequency layer of BSARec (Shin et al. 2024), whose Fourier transform sees the future and
so can answer for one position only; a filter in time answers for all of them. Attention knows how
many baskets lie between two purchases (rotary embeddings, Su et al. 2021) and no absolute place: a
place counted from the end of a training history would tell how much is still to come. With `gated`,
blocks are those of LiGR (Borisyuk et al. 2024): gated residuals and SwiGLU. Items have one table,
for what was bought and for what is scored, in which they can share vectors with their kind.

Legend: B sequences, L positions, M states that are asked, D width, H heads, C channels of a head,
V items, T taps.
"""

import math
from typing import Any, Final, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nextbuy.nn.dropout import drop
from nextbuy.nn.item_table import ItemTable
from nextbuy.nn.network import CatalogNetwork, Sequences, Weights
from nextbuy.nn.own_items import FEATURES, FIRST_WEIGHTS, SUMMARIES
from nextbuy.nn.repeat_head import OwnTensors, RepeatHead, Repeats, initial_head
from nextbuy.seeding import generator

NUM_GAPS: Final = 32
"""Buckets of time between purchases; the first says that there is none."""

_BASE: Final = 10_000.0
_DRAWN: Final = 2**22


def time_buckets(days: Tensor) -> Tensor:
    """1 for less than a minute, then one more each time it doubles; 0 for `nan`."""
    buckets = (1 + torch.log2(1 + days * 1440.0)).clamp_max(NUM_GAPS - 1)
    return torch.where(torch.isnan(days), 0.0, buckets).long()


class TransformerShape(BaseModel):
    """Sizes of the network; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_items: int = Field(ge=1, description="V: items in the catalog, without padding")
    width: int = Field(default=64, ge=1)
    blocks: int = Field(default=2, ge=1)
    heads: int = Field(default=1, ge=1)
    expansion: int = Field(default=4, ge=1, description="width of the feed-forward over `width`")
    taps: int = Field(default=0, ge=0, description="of the filter beside attention; 0 is without")
    filter_share: float = Field(
        default=0.7, ge=0, le=1, description="of the filter, against attention"
    )
    gated: bool = Field(default=False, description="gated residuals and SwiGLU")
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    marks_baskets: bool = Field(
        default=False, description="tell each position whether its purchase opens a new basket"
    )
    knows_times: bool = Field(default=False, description="tell the time between purchases")
    attributes: tuple[int, ...] = Field(
        default=(), description="codes of each attribute that items share, as their platform"
    )
    repeats: bool = Field(default=False, description="a head for what is bought again")
    num_groups: int = Field(
        default=0, ge=0, description="groups of items with a cadence of their own; 0 is without"
    )


def turns_of(places_BL: Tensor, size: int) -> Tensor:
    """How far rotary embeddings turn each pair of channels, as complex numbers of length 1.

    Args:
        places_BL: Place of each position in its sequence.
        size: Channels of a head, even.

    Returns:
        Shape [B, L, 1, size / 2].
    """
    rates = _BASE ** (-torch.arange(0, size, 2, device=places_BL.device) / size)
    angles = places_BL[:, :, None, None] * rates
    return torch.polar(torch.ones_like(angles), angles)


def turned(x_BLHC: Tensor, turns: Tensor) -> Tensor:
    """Channels 2c and 2c + 1 of each head, turned as a pair."""
    pairs = torch.view_as_complex(x_BLHC.view(*x_BLHC.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


class _CausalFilter(torch.autograd.Function):
    """low(x)_l = sum_k taps_k x_(l-k), a filter for each channel; 0 lies before the first place."""

    @staticmethod
    def forward(ctx: Any, x_BLD: Tensor, taps_TD: Tensor) -> Tensor:
        ctx.save_for_backward(x_BLD, taps_TD)
        low_BLD = x_BLD * taps_TD[0]
        for back in range(1, min(len(taps_TD), x_BLD.shape[1])):
            low_BLD[:, back:].addcmul_(x_BLD[:, :-back], taps_TD[back])
        return low_BLD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x_BLD, taps_TD = ctx.saved_tensors
        d_low = gradients[0]
        d_x, d_taps = d_low * taps_TD[0], torch.zeros_like(taps_TD)
        d_taps[0] = (d_low * x_BLD).sum((0, 1))
        for back in range(1, min(len(taps_TD), x_BLD.shape[1])):
            d_x[:, :-back].addcmul_(d_low[:, back:], taps_TD[back])
            d_taps[back] = (d_low[:, back:] * x_BLD[:, :-back]).sum((0, 1))
        return d_x, d_taps


class Block(nn.Module):
    """Attention (and filter), then a feed-forward, each added to what came in."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        D, inner = shape.width, shape.width * shape.expansion
        self.shape = shape
        self.norm_mix = nn.LayerNorm(D)
        self.query_key_value = nn.Linear(D, 3 * D)
        self.attended = nn.Linear(D, D)
        self.norm_feed = nn.LayerNorm(D)
        self.up = nn.Linear(D, (2 if shape.gated else 1) * inner)
        self.down = nn.Linear(inner, D)
        if shape.taps:
            self.filter = nn.Parameter(torch.zeros(shape.taps, D))
            self.high = nn.Parameter(torch.zeros(D))
        if shape.gated:
            self.gate_mix, self.gate_feed = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x_BLD: Tensor, turns: Tensor, dropout: torch.Generator | None) -> Tensor:
        """The sequence after this block, [B, L, D]."""
        shape = self.shape
        normed = self.norm_mix(x_BLD)
        mixed = self._attend(normed, turns)
        if shape.taps:
            mixed = shape.filter_share * self._filter(normed) + (1 - shape.filter_share) * mixed
        return self._fed(x_BLD, normed, mixed, dropout)

    def at(self, x_BLD: Tensor, turns: Tensor, places_B: Tensor) -> Tensor:
        """What one position of each sequence is after this block, [B, D], without all others;
        what lies behind the position does not count."""
        shape, rows = self.shape, torch.arange(len(x_BLD), device=x_BLD.device)
        normed = self.norm_mix(x_BLD)
        mixed = self._attend_at(normed, turns, rows, places_B)
        if shape.taps:
            filtered = self._filter(normed)[rows, places_B]
            mixed = shape.filter_share * filtered + (1 - shape.filter_share) * mixed
        return self._fed(x_BLD[rows, places_B], normed[rows, places_B], mixed, None)

    def _fed(
        self, x: Tensor, normed: Tensor, mixed: Tensor, dropout: torch.Generator | None
    ) -> Tensor:
        """What was mixed is added to what came in, and goes through the feed-forward."""
        shape = self.shape
        mixed = drop(mixed, shape.dropout, dropout)
        x = x + (torch.sigmoid(self.gate_mix(normed)) * mixed if shape.gated else mixed)
        normed = self.norm_feed(x)
        inner = self.up(normed)
        if shape.gated:
            one, other = inner.chunk(2, dim=-1)
            inner = F.silu(one) * other
        else:
            inner = F.gelu(inner, approximate="tanh")
        fed = drop(self.down(drop(inner, shape.dropout, dropout)), shape.dropout, dropout)
        return x + (torch.sigmoid(self.gate_feed(normed)) * fed if shape.gated else fed)

    def _attend(self, x_BLD: Tensor, turns: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        by_head = self.query_key_value(x_BLD).view(B, L, 3 * self.shape.heads, -1)
        both, value = by_head.split((2 * self.shape.heads, self.shape.heads), dim=2)
        # Turned in single precision: there are no complex numbers of 16 bits.
        query, key = turned(both.float(), turns).to(value.dtype).transpose(1, 2).chunk(2, dim=1)
        # Rows end in padding, so that causality is all the mask there is: a flag and no tensor,
        # which leaves torch the choice of its fastest kernels.
        found = F.scaled_dot_product_attention(query, key, value.transpose(1, 2), is_causal=True)
        merged: Tensor = self.attended(found.transpose(1, 2).reshape(B, L, D))
        return merged

    def _attend_at(self, x_BLD: Tensor, turns: Tensor, rows_B: Tensor, places_B: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        H, layer = self.shape.heads, self.query_key_value
        asked = F.linear(x_BLD[rows_B, places_B], layer.weight[:D], layer.bias[:D])
        query = turned(asked.view(B, 1, H, -1), turns[rows_B, places_B][:, None])
        seen = F.linear(x_BLD, layer.weight[D:], layer.bias[D:]).view(B, L, 2 * H, -1)
        key = turned(seen[:, :, :H], turns).transpose(1, 2)
        is_before = torch.arange(L, device=x_BLD.device) <= places_B[:, None]
        found = F.scaled_dot_product_attention(
            query.transpose(1, 2), key, seen[:, :, H:].transpose(1, 2),
            attn_mask=is_before[:, None, None],
        )  # fmt: skip
        merged: Tensor = self.attended(found.reshape(B, D))
        return merged

    def _filter(self, x_BLD: Tensor) -> Tensor:
        low: Tensor = _CausalFilter.apply(x_BLD, torch.softmax(self.filter, dim=0))  # type: ignore[no-untyped-call]
        return torch.lerp(low, x_BLD, self.high.square())


class TransformerNetwork(CatalogNetwork):
    """The network; `states` is everything before the scores.

    Args:
        shape: Sizes.
        codes: Of the attributes of items, [A, V + 1], if the shape has attributes.
    """

    def __init__(self, shape: TransformerShape, codes: Tensor | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = ItemTable(shape.num_items, shape.width, shape.attributes, codes)
        self.norm_first, self.norm_last = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.bias = nn.Parameter(torch.zeros(shape.num_items))
        self.basket = nn.Embedding(2, shape.width) if shape.marks_baskets else None
        self.gap = nn.Embedding(NUM_GAPS, shape.width) if shape.knows_times else None
        self.wait = nn.Embedding(NUM_GAPS, shape.width) if shape.knows_times else None
        self.repeat_head = (
            RepeatHead(
                num_items=shape.num_items,
                width=shape.width,
                num_features=len(FEATURES),
                num_summaries=len(SUMMARIES),
                num_groups=shape.num_groups,
            )
            if shape.repeats
            else None
        )

    def states(self, asked: Sequences, dropout: torch.Generator | None = None) -> Tensor:
        """Hidden states that are asked, [M, D]; without a generator there is no dropout."""
        x_BLD = self.embedding(asked.items)
        if self.basket is not None:
            x_BLD = x_BLD + self.basket(asked.marks)
        if self.gap is not None and asked.gaps is not None:
            x_BLD = x_BLD + self.gap(asked.gaps)
        x_BLD = drop(self.norm_first(x_BLD), self.shape.dropout, dropout)
        # The purchase before position l is of the basket of position l - 1.
        baskets_BL = asked.marks.cumsum(1) - asked.marks
        places_L = torch.arange(baskets_BL.shape[1], device=baskets_BL.device)
        turns = turns_of(places_L[None], self.shape.width // self.shape.heads)[0][baskets_BL]
        learns = dropout is not None or torch.is_grad_enabled()
        places = None if learns else _one_a_row(asked)
        for block in self.blocks if places is None else self.blocks[:-1]:
            x_BLD = block(x_BLD, turns, dropout)
        if places is None:
            x_MD = x_BLD.flatten(0, 1).index_select(0, asked.states)
        else:
            last = cast("Block", self.blocks[-1])  # a ModuleList does not say of what
            x_MD = last.at(x_BLD, turns, places)
        if self.wait is not None and asked.days is not None:
            x_MD = x_MD + self.wait(time_buckets(asked.days))
        found: Tensor = self.norm_last(x_MD)
        return found

    def wait_classes(self, days_M: Tensor) -> Tensor:
        """See `Scorer.wait_classes`."""
        return torch.zeros_like(days_M).long() if self.wait is None else time_buckets(days_M)

    @property
    def has_repeats(self) -> bool:
        """Whether there is a repeat head."""
        return self.repeat_head is not None

    def repeats(self, states_MR: Tensor, own: OwnTensors) -> Repeats | None:
        """What of the own items is bought again; None without a repeat head."""
        if self.repeat_head is None:
            return None
        found: Repeats = self.repeat_head(states_MR, own, self.embedding(own.items))
        return found

    def item_tables(self) -> dict[str, int]:
        """See `CatalogNetwork.item_tables`."""
        of_head = {} if self.repeat_head is None else {"repeat_head.propensity.weight": 0}
        return {"embedding.weight": 0, "bias": 1} | of_head

    def output(self) -> tuple[Tensor, Tensor]:
        """Rows of weights [V, D] and biases [V] of the items 1..V."""
        return self.embedding.rows(), self.bias


def _one_a_row(asked: Sequences) -> Tensor | None:
    """The position that is asked of each sequence, [B]; None if more or fewer are."""
    B, L = asked.items.shape
    if len(asked.states) != B:
        return None
    rows = torch.arange(B, device=asked.states.device)
    places = asked.states - rows * L
    return places if bool(((places >= 0) & (places < L)).all()) else None


def weight_shapes(shape: TransformerShape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights."""
    with torch.device("meta"):
        network = TransformerNetwork(shape)
    return {name: tuple(p.shape) for name, p in network.named_parameters()}


def _normal(rng: np.random.Generator, scale: float, size: tuple[int, ...]) -> NDArray[np.float32]:
    """`rng.normal` in single precision; only pieces of a large table are ever in double."""
    drawn = np.empty(math.prod(size), np.float32)
    for start in range(0, len(drawn), _DRAWN):
        piece = drawn[start : start + _DRAWN]
        piece[:] = rng.normal(0.0, scale, len(piece))
    return drawn.reshape(size)


def initial_weights(
    shape: TransformerShape, *, seed: int, item_counts: NDArray[np.integer]
) -> Weights:
    """Weights before training: matrices normal with .02, gains and beta 1, the rest 0.

    The bias of an item is the log of its frequency over the mean, so that training starts at
    popularity.

    Args:
        shape: Sizes.
        seed: Seed of the run.
        item_counts: Purchases of each item 1..V in the training histories, length V.
    """
    rng = generator(seed, "initial weights")
    shapes = weight_shapes(shape)
    head = {name: size for name, size in shapes.items() if name.startswith("repeat_head.")}
    weights: Weights = {}
    for name, size in shapes.items():
        if len(size) == 2 or name.endswith("filter"):
            weights[name] = _normal(rng, 0.02, size)
            continue
        if ("norm" in name and name.endswith(".weight")) or name.endswith("high"):
            drawn = np.ones(size)
        else:
            drawn = np.zeros(size)
        weights[name] = drawn.astype(np.float32)
    weights |= initial_head(head, generator(seed, "initial head"), first_weights=FIRST_WEIGHTS)
    smoothed = np.asarray(item_counts, dtype=np.float64) + 1.0
    weights["bias"] = np.log(smoothed / math.exp(np.log(smoothed).mean())).astype(np.float32)
    return weights
