"""gBCE: yes or no for each item alone, told that few of the noes are seen.

Binary cross-entropy on a few sampled negatives learns too high a probability for everything;
gBCE (Petrov and Macdonald 2023) takes the positives back by a power beta of their probability.

Legend: M states, N targets, R hidden size, V items, S sampled items.
"""

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from nextbuy.nn.losses import gathered


def gbce_beta(sampling_rate: float, calibration: float) -> float:
    """beta = alpha (t (1 - 1/alpha) + 1/alpha) = 1 - t (1 - alpha).

    Args:
        sampling_rate: alpha, the share of the negatives that is sampled, in (0, 1].
        calibration: t; 0 is binary cross-entropy (beta = 1), at 1 (beta = alpha) the odds are as
            without sampling.
    """
    return 1.0 - calibration * (1.0 - sampling_rate)


def gbce_loss(
    hidden_MR: Tensor,
    weight_VR: Tensor,
    bias_V: Tensor,
    owners_N: Tensor,
    targets_N: Tensor,
    *,
    samples_S: Tensor,
    num_items: int | None = None,
    calibration: float = 0.75,
) -> Tensor:
    """Generalised binary cross-entropy of the targets against uniform negatives that all share.

    With s the scores h W' + b, sigma the logistic function and T_m all targets of state m,

        loss = -1/N sum over targets n of state m:
               beta log sigma(s_n) + sum over sampled i not in T_m: log(1 - sigma(s_i)).

    This is the paper's loss times k + 1, for k negatives: divided by as many, gradients would come
    near Adam's epsilon when k is in the thousands. A sampled item that is itself a target of the
    state is no negative of it; each other item is one with probability S / V, which is alpha here
    (in the paper k of V - 1 negatives are drawn for each target alone, and alpha is k / (V - 1)).

    Scores are no log-probabilities. For a state with one target, the loss is lowest at
    exp(s_i) = (beta / alpha) p_i / (1 - p_i): a softmax over the catalog gives each item its share
    of the odds, which is near its probability only where all probabilities are small.

    Args:
        hidden_MR: States that are asked for one target or for many.
        weight_VR: Dense kernel, one row an item.
        bias_V: Dense bias.
        owners_N: State that each target is asked of, 0..M-1, ascending.
        targets_N: Item row, 0..V-1.
        samples_S: Distinct item rows, drawn uniformly; at least one.
        num_items: V, where `weight_VR` has some of the items only.
        calibration: t of `gbce_beta`.

    Returns:
        A scalar; `nan` if N is 0. It takes memory for M times S scores.
    """
    num_targets, num_samples = len(targets_N), len(samples_S)
    if num_targets == 0:
        return hidden_MR.sum() * torch.nan
    weight_KR, bias_K, places_N = gathered(weight_VR, bias_V, samples_S, targets_N)
    s_MS = torch.addmm(bias_K[:num_samples], hidden_MR, weight_KR[:num_samples].t())
    hits_MS = torch.zeros_like(s_MS)
    hit_N = (places_N >= 0).to(s_MS.dtype)
    hits_MS.index_put_((owners_N, places_N.clamp_min(0)), hit_N, accumulate=True)
    negatives_M = F.softplus(s_MS).masked_fill(hits_MS > 0, 0.0).sum(1)
    ones_N = torch.ones_like(owners_N)
    counts_M = owners_N.new_zeros(len(hidden_MR)).index_add_(0, owners_N, ones_N)
    h_NR = hidden_MR.index_select(0, owners_N)
    s_N = torch.linalg.vecdot(h_NR, weight_KR[num_samples:]) + bias_K[num_samples:]
    beta = gbce_beta(num_samples / (num_items or len(weight_VR)), calibration)
    total: Tensor = (counts_M * negatives_M).sum() + beta * F.softplus(-s_N).sum()
    return total / num_targets
