"""Losses of the next purchase, as plain functions.

Legend: M states, N targets, R hidden size, V items, S sampled items.
"""

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor


def full_softmax_loss(
    hidden_MR: Tensor, weight_VR: Tensor, bias_V: Tensor, owners_N: Tensor, targets_N: Tensor
) -> Tensor:
    """Mean cross-entropy of the targets over the whole catalog.

    Args:
        hidden_MR: States that are asked for one target or for many.
        weight_VR: Dense kernel, one row an item.
        bias_V: Dense bias.
        owners_N: State that each target is asked of, 0..M-1.
        targets_N: Item row, 0..V-1.

    Returns:
        -mean log softmax(h W' + b)[target], in nats; `nan` if N is 0.
    """
    scores_MV = F.log_softmax(F.linear(hidden_MR, weight_VR, bias_V), dim=1)
    return -scores_MV[owners_N, targets_N].mean()


def sampled_softmax_loss(
    hidden_NR: Tensor,
    weight_VR: Tensor,
    bias_V: Tensor,
    targets_N: Tensor,
    *,
    samples_S: Tensor,
    log_expected_V: Tensor,
) -> Tensor:
    """Cross-entropy of the next item against a sample of the catalog, shared by the batch.

    Each sampled logit is lowered by the log of how often its item is expected in the sample, so
    that the sum over the sample estimates the sum over the catalog without bias and the scores stay
    calibrated log-probabilities (Bengio and Senecal 2008; Jean et al. 2015). A sampled item that is
    the target of a position does not count again at that position.

    Args:
        hidden_NR: State that each target is asked of.
        weight_VR: Dense kernel, one row an item.
        bias_V: Dense bias.
        targets_N: Item row, 0..V-1.
        samples_S: Item rows, drawn with replacement.
        log_expected_V: Log of S times each item's probability to be drawn.

    Returns:
        A scalar in nats, an estimate of `full_softmax_loss`.
    """
    target_logits_N = (hidden_NR * weight_VR[targets_N]).sum(-1) + bias_V[targets_N]
    sample_logits_NS = F.linear(hidden_NR, weight_VR[samples_S], bias_V[samples_S])
    sample_logits_NS = sample_logits_NS - log_expected_V[samples_S]
    hits_NS = targets_N[:, None] == samples_S[None, :]
    sample_logits_NS = sample_logits_NS.masked_fill(hits_NS, -torch.inf)
    all_logits = torch.cat([target_logits_N[:, None], sample_logits_NS], dim=1)
    return (torch.logsumexp(all_logits, dim=1) - target_logits_N).mean()
