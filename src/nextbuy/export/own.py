"""Own items and the repeat head in operations that ONNX has.

`nextbuy.nn.own_items` finds the own items of all histories at once by sorting; a graph compares
each purchase of a row with each other one instead. A purchase stands for its item where it is the
newest of it. The weights are those of the network's own `RepeatHead`.

Legend: B rows, L purchases of the longest, F features, S summaries, D width, n newest purchases.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from nextbuy.export.window import Asked
from nextbuy.nn.own_items import DECAYS, HALF_LIVES, NUM_DAYS
from nextbuy.nn.repeat_head import NUM_KNOTS, RepeatHead

_LOWEST = -12.0
_LEAST = 1e-30
_REACH = 10.0
_FIRST_KNOT = math.log(1.0 / 24.0)
_KNOT_STEP = 0.1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Own:
    """The own items of each row; see `nextbuy.nn.own_items.OwnItems`.

    Attributes:
        is_newest: Whether a purchase is the newest of its item, [B, L]; only those are own items.
        features: [B, L, F].
        days: Ages of the newest purchases of the item, infinite where there are none; [B, L, n].
        summaries: [B, S].
    """

    is_newest: Tensor
    features: Tensor
    days: Tensor
    summaries: Tensor


def own_of(asked: Asked) -> Own:
    """The own items of what is asked."""
    items, baskets = asked.items, asked.baskets
    is_there = items > 0
    same = (items[:, :, None] == items[:, None, :]) & is_there[:, :, None]  # [B, L, L]
    places = torch.arange(items.shape[1])
    is_newest = is_there & ~(same & (places[None, :] > places[:, None])).any(-1)
    last = (asked.lengths - 1).clamp_min(0)[:, None]
    asks = torch.where(asked.lengths > 0, baskets.gather(1, last)[:, 0] + 1, 0)  # its basket
    ago = (asks[:, None] - baskets).clamp_min(1).float()
    counts = same.float().sum(-1)
    by_baskets = same.float() @ (torch.tensor(DECAYS) ** (ago[:, :, None] - 1))
    zero = torch.zeros_like(ago)
    columns = [*by_baskets.log().clamp_min(_LOWEST).unbind(-1), counts.log(), ago.log()]
    columns.append((ago == 1).float())
    ages = asked.ages()
    if ages is None:
        columns += [zero] * (len(HALF_LIVES) + 3)
        days = torch.full_like(ago, torch.inf)[:, :, None].expand(-1, -1, NUM_DAYS)
        away = torch.zeros_like(ago[:, 0])
    else:
        columns += _timed(same, ages, counts)
        days = _newest_ages(same, ages)
        away = torch.where(asked.lengths > 0, ages.gather(1, last)[:, 0], 0.0).clamp_min(0).float()
    lengths, distinct = asked.lengths.float(), is_newest.float().sum(-1)
    summaries = torch.stack(
        [lengths.log1p(), distinct.log1p(), asks.float().log1p(),
         distinct / lengths.clamp_min(1), away.log1p()],
        dim=-1,
    )  # fmt: skip
    return Own(
        is_newest=is_newest,
        features=_finite(torch.stack(columns, dim=-1), is_newest),
        days=days,
        summaries=summaries,
    )


def _timed(same: Tensor, ages: Tensor, counts: Tensor) -> list[Tensor]:
    """The features that need dates."""
    days = ages.clamp_min(0)
    lived = same.float() @ (0.5 ** (days[:, :, None] / torch.tensor(HALF_LIVES).double())).float()
    oldest = torch.where(same, ages[:, None, :], -torch.inf).amax(-1)
    between = torch.where(counts > 1, (oldest - ages) / (counts - 1).clamp_min(1), 0.0)
    has_mean = between > 0
    over = ((days + 0.5) / (torch.where(has_mean, between, 1.0) + 0.5)).log().clamp(-4, 4)
    return [
        *lived.log().clamp_min(_LOWEST).unbind(-1),
        days.float().log1p(),
        torch.where(has_mean, over, 0.0).float(),
        has_mean.float(),
    ]


def _newest_ages(same: Tensor, ages: Tensor) -> Tensor:
    """Ages of the newest purchases of each purchase's item, [B, L, n]."""
    all_ages = torch.where(same, ages[:, None, :].clamp_min(0).float(), torch.inf)
    filled = F.pad(all_ages, (0, NUM_DAYS), value=torch.inf)
    return filled.topk(NUM_DAYS, dim=-1, largest=False).values


def _finite(features: Tensor, is_newest: Tensor) -> Tensor:
    """The features of own items; 0 in places that are none."""
    return torch.where(is_newest[:, :, None], features, 0.0)


def repeats_of(
    head: RepeatHead, own: Own, items_BL: Tensor, *, states_BD: Tensor, vectors_ID: Tensor,
    groups_I: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """log(r q) of each purchase that is an own item, else -inf, [B, L]; log(1 - r), [B].

    See `RepeatHead.forward`.

    Args:
        head: With its weights.
        own: Own items of the rows.
        items_BL: Index of each purchase.
        states_BD: Of the rows.
        vectors_ID: Of items 0..V.
        groups_I: Of items 0..V.
    """
    by_features = head.linear(own.features) + head.outer(F.silu(head.inner(own.features)))
    wanted_BD = head.context(states_BD) * (head.context_scale / math.sqrt(states_BD.shape[1]))
    fits = (F.embedding(items_BL, vectors_ID) @ wanted_BD[:, :, None])[:, :, 0]
    scores = by_features[..., 0] + head.propensity(items_BL)[..., 0] + fits
    if head.cadence is not None:
        scores = torch.logaddexp(scores, _due(head.cadence.weight, own.days, groups_I[items_BL]))
    top = torch.where(own.is_newest, scores, -torch.inf).amax(1)
    has_own = own.is_newest.any(1)
    above = scores - torch.where(has_own, top, 0.0)[:, None]
    total = torch.where(own.is_newest, above.exp(), 0.0).sum(1)
    gate_in = torch.cat([own.summaries, states_BD], dim=1)
    bent = head.gate_outer(F.silu(head.gate_inner(gate_in)))
    gate_B = (head.gate_linear(own.summaries) + bent)[:, 0]
    log_r, log_rest = F.logsigmoid(gate_B), F.logsigmoid(-gate_B)
    log_own = log_r[:, None] + above - total.clamp_min(_LEAST).log()[:, None]
    return (
        torch.where(own.is_newest, log_own, -torch.inf),
        torch.where(has_own, log_rest, 0.0),
    )


def _due(cadence: Tensor, days: Tensor, groups: Tensor) -> Tensor:
    """See `RepeatHead._due`."""
    is_there = torch.isfinite(days)
    known = torch.where(is_there, days, 1.0)
    place = (known.clamp_min(1e-6).log() - _FIRST_KNOT) / _KNOT_STEP
    place = place.clamp(0.0, NUM_KNOTS - 1.001)
    knot = place.floor().long()
    table = (cadence[1:] + cadence[:1]).flatten()
    flat = groups[:, :, None] * NUM_KNOTS + knot
    low, high = table[flat], table[flat + 1]
    kappa = _REACH * (low + (high - low) * (place - knot))
    total = torch.where(is_there, kappa.exp(), 0.0).sum(-1)
    return total.clamp_min(_LEAST).log()
