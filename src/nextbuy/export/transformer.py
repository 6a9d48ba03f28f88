"""The transformer's states in operations that ONNX has: rotary embeddings without complex numbers,
attention and filter written out. The weights are those of the network itself.

Legend: B rows, W positions, D width, H heads, C channels of a head, T taps.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from nextbuy.export.window import Window
from nextbuy.nn.transformer import Block, TransformerNetwork

_BASE = 10_000.0


def transformer_states(network: TransformerNetwork, window: Window, vectors_ID: Tensor) -> Tensor:
    """The state of each row, [B, D]; see `TransformerNetwork.states`.

    Args:
        network: With its weights.
        window: What it reads.
        vectors_ID: Of items 0..V.
    """
    shape = network.shape
    x_BWD = F.embedding(window.items, vectors_ID)
    if network.basket is not None:
        x_BWD = x_BWD + network.basket(window.marks)
    if network.gap is not None and window.gaps is not None:
        x_BWD = x_BWD + network.gap(window.gaps)
    x_BWD = network.norm_first(x_BWD)
    places_BW = (window.marks.cumsum(1) - window.marks).float()
    size = shape.width // shape.heads
    rates = _BASE ** (-torch.arange(0, size, 2) / size)
    angles = places_BW[:, :, None, None] * rates
    turns = angles.cos(), angles.sin()
    for block in network.blocks:
        x_BWD = _block(block, x_BWD, turns)  # type: ignore[arg-type]  # ModuleList is untyped
    ends = window.ends[:, None, None].expand(-1, 1, shape.width)
    x_BD = x_BWD.gather(1, ends)[:, 0]
    if network.wait is not None and window.days is not None:
        x_BD = x_BD + network.wait(window.days)
    found: Tensor = network.norm_last(x_BD)
    return found


def _block(block: Block, x_BWD: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """See `Block.forward`; without dropout."""
    shape = block.shape
    normed = block.norm_mix(x_BWD)
    mixed = _attended(block, normed, turns)
    if shape.taps:
        filtered = _filtered(block, normed)
        mixed = shape.filter_share * filtered + (1 - shape.filter_share) * mixed
    x_BWD = x_BWD + (torch.sigmoid(block.gate_mix(normed)) * mixed if shape.gated else mixed)
    normed = block.norm_feed(x_BWD)
    inner = block.up(normed)
    if shape.gated:
        one, other = inner.chunk(2, dim=-1)
        inner = F.silu(one) * other
    else:
        inner = F.gelu(inner, approximate="tanh")
    fed = block.down(inner)
    fed = torch.sigmoid(block.gate_feed(normed)) * fed if shape.gated else fed
    found: Tensor = x_BWD + fed
    return found


def _attended(block: Block, x_BWD: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    heads, width = block.shape.heads, block.shape.width
    B, W = x_BWD.shape[0], x_BWD.shape[1]
    by_head = block.query_key_value(x_BWD).reshape(B, W, 3 * heads, width // heads)
    both, value = by_head[:, :, : 2 * heads], by_head[:, :, 2 * heads :]
    both = _turned(both, turns)
    query, key = both[:, :, :heads].transpose(1, 2), both[:, :, heads:].transpose(1, 2)
    scores_BHWW = query @ key.transpose(2, 3) / math.sqrt(width // heads)
    places = torch.arange(W)
    is_later = places[None, :] > places[:, None]
    shares_BHWW = torch.softmax(scores_BHWW.masked_fill(is_later, -torch.inf), dim=-1)
    found = (shares_BHWW @ value.transpose(1, 2)).transpose(1, 2).reshape(B, W, width)
    merged: Tensor = block.attended(found)
    return merged


def _turned(x_BWHC: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Channels 2c and 2c + 1, turned as a pair."""
    cosine, sine = turns
    one, other = x_BWHC[..., 0::2], x_BWHC[..., 1::2]
    turned = torch.stack([one * cosine - other * sine, one * sine + other * cosine], dim=-1)
    return turned.flatten(-2)


def _filtered(block: Block, x_BWD: Tensor) -> Tensor:
    taps_TD = torch.softmax(block.filter, dim=0)
    num_taps, W = block.shape.taps, x_BWD.shape[1]
    padded = F.pad(x_BWD, (0, 0, num_taps - 1, 0))
    low = x_BWD * taps_TD[0]
    for back in range(1, num_taps):
        start = num_taps - 1 - back
        low = low + padded[:, start : start + W] * taps_TD[back]
    return low + block.high.square() * (x_BWD - low)
