"""Losses of the next purchase, as plain functions with backward passes of their own.

The gradient of a softmax is the softmax itself, so it is computed while the scores are at hand: a
chunk of states at a time, in one buffer that is used again. Memory does not grow with states times
items, and nothing is computed twice.

Both losses take a second source of the purchase, beside the softmax: with `log_own` = a and
`log_rest` = b for a target of softmax probability p, the loss is -log(exp(a) + exp(b) p). Networks
with a repeat head use it (own items by habit, everything by the softmax); without, the loss is
-log p.

Legend: M states, N targets, R hidden size, V items, S sampled items.
"""

from typing import Any, Final

import torch
from torch import Tensor

_CHUNK_BYTES: Final = 2**23
_CHUNK_BYTES_OF_GPU: Final = 2**28
"""Of scores at a time: on the CPU what its cache holds, on a GPU enough to keep it busy."""

_FEWEST_ROWS: Final = 32
_LEAST: Final = 1e-38


def full_softmax_loss(
    hidden_MR: Tensor,
    weight_VR: Tensor,
    bias_V: Tensor,
    owners_N: Tensor,
    targets_N: Tensor,
    *,
    log_own_N: Tensor | None = None,
    log_rest_N: Tensor | None = None,
    weights_N: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of the targets over the whole catalog.

    Args:
        hidden_MR: States that are asked for one target or for many.
        weight_VR: Dense kernel, one row an item.
        bias_V: Dense bias.
        owners_N: State that each target is asked of, 0..M-1, ascending.
        targets_N: Item row, 0..V-1.
        log_own_N: Log-probability of the target by the second source; see the module.
        log_rest_N: Log of the share that the softmax has beside it.
        weights_N: How much each target counts; None where all count alike.

    Returns:
        -mean w log softmax(h W' + b)[target], in nats; `nan` if N is 0.
    """
    if len(targets_N) == 0:
        return hidden_MR.sum() * torch.nan
    loss: Tensor = _FullSoftmax.apply(
        hidden_MR, weight_VR, bias_V, owners_N, targets_N, log_own_N, log_rest_N, weights_N
    )  # type: ignore[no-untyped-call]
    return loss


class _FullSoftmax(torch.autograd.Function):
    """`full_softmax_loss`; gradients are made in `forward`."""

    @staticmethod
    def forward(  # noqa: PLR0917  (autograd takes no keywords)
        ctx: Any,
        hidden_MR: Tensor,
        weight_VR: Tensor,
        bias_V: Tensor,
        owners_N: Tensor,
        targets_N: Tensor,
        log_own_N: Tensor | None,
        log_rest_N: Tensor | None,
        weights_N: Tensor | None,
    ) -> Tensor:
        num_states, num_items, num_targets = len(hidden_MR), len(weight_VR), len(targets_N)
        chunk_bytes = _CHUNK_BYTES_OF_GPU if hidden_MR.is_cuda else _CHUNK_BYTES
        rows = min(num_states, max(_FEWEST_ROWS, chunk_bytes // (4 * num_items)))
        buffer = hidden_MR.new_empty(rows, num_items)
        ends = [0, num_targets]
        if rows < num_states:  # the host must know the sizes of the chunks, and waits for a device
            counts = torch.bincount(owners_N, minlength=num_states)
            ends[1:1] = counts.cumsum(0)[rows - 1 :: rows].tolist()
        d_hidden, d_weight = torch.empty_like(hidden_MR), torch.zeros_like(weight_VR)
        d_bias = torch.zeros_like(bias_V)
        likelihoods, shares = hidden_MR.new_empty(num_targets), hidden_MR.new_empty(num_targets)
        for number, start in enumerate(range(0, num_states, rows)):
            h_CR = hidden_MR[start : start + rows]
            p_CV = buffer[: len(h_CR)]
            torch.softmax(torch.mm(h_CR, weight_VR.t(), out=p_CV).add_(bias_V), dim=1, out=p_CV)
            here = slice(ends[number], ends[number + 1])
            row, item = owners_N[here] - start, targets_N[here]
            log_p = p_CV[row, item].clamp_min_(_LEAST).log_()
            likelihoods[here], share = _mixed(log_p, log_own_N, log_rest_N, here)
            share = share if weights_N is None else share * weights_N[here]
            shares[here] = share
            weights = torch.zeros_like(p_CV[:, 0]).index_add_(0, row, share)
            d_hidden[start : start + rows] = torch.mm(p_CV, weight_VR).mul_(weights[:, None])
            d_weight.addmm_(p_CV.t(), h_CR * weights[:, None])
            d_bias.addmv_(p_CV.t(), weights)
        d_hidden.index_add_(0, owners_N, weight_VR[targets_N] * shares[:, None], alpha=-1)
        d_weight.index_add_(0, targets_N, hidden_MR[owners_N] * shares[:, None], alpha=-1)
        d_bias.index_add_(0, targets_N, shares, alpha=-1)
        for gradient in (d_hidden, d_weight, d_bias):
            gradient.mul_(1.0 / num_targets)
        ctx.is_mixed = log_own_N is not None
        ctx.save_for_backward(d_hidden, d_weight, d_bias, shares / num_targets, weights_N)
        return -_mean(likelihoods, weights_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight, d_bias, own, rest = _scaled(ctx, gradients[0])
        return d_hidden, d_weight, d_bias, None, None, own, rest, None


def sampled_softmax_loss(
    hidden_MR: Tensor,
    weight_VR: Tensor,
    bias_V: Tensor,
    owners_N: Tensor,
    targets_N: Tensor,
    *,
    samples_S: Tensor,
    log_weights_S: Tensor,
    log_own_N: Tensor | None = None,
    log_rest_N: Tensor | None = None,
    weights_N: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the targets against a sample of the catalog, shared by the batch.

    A sampled item that was drawn c times and is expected e times stands for c / e items, so that
    the sum over the sample estimates the sum over the catalog without bias and the scores stay
    calibrated log-probabilities (Bengio and Senecal 2008; Jean et al. 2015). A sampled item that is
    the target itself does not count again.

    Args:
        hidden_MR: States that are asked for one target or for many.
        weight_VR: Dense kernel, one row an item.
        bias_V: Dense bias.
        owners_N: State that each target is asked of, 0..M-1, ascending.
        targets_N: Item row, 0..V-1.
        samples_S: Distinct item rows.
        log_weights_S: Log of what each stands for, c / e.
        log_own_N: As in `full_softmax_loss`.
        log_rest_N: As in `full_softmax_loss`.
        weights_N: As in `full_softmax_loss`.

    Returns:
        A scalar in nats, an estimate of `full_softmax_loss`.
    """
    if len(targets_N) == 0:
        return hidden_MR.sum() * torch.nan
    weight_KR, bias_K, places_N = gathered(weight_VR, bias_V, samples_S, targets_N)
    loss: Tensor = _SampledSoftmax.apply(
        hidden_MR, weight_KR, bias_K, owners_N, places_N, log_weights_S, log_own_N,
        log_rest_N, weights_N,
    )  # type: ignore[no-untyped-call]  # fmt: skip
    return loss


def gathered(
    weight_VR: Tensor, bias_V: Tensor, samples_S: Tensor, targets_N: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [S + N, R] and biases of samples and targets; where each target is a sample, or -1.

    One gather for both: its backward adds up rows that are in both.
    """
    places_V = targets_N.new_full((len(weight_VR),), -1)
    places_V[samples_S] = torch.arange(len(samples_S), device=samples_S.device)
    rows = torch.cat([samples_S, targets_N])
    return weight_VR.index_select(0, rows), bias_V.index_select(0, rows), places_V[targets_N]


class _SampledSoftmax(torch.autograd.Function):
    """`sampled_softmax_loss` on the rows of samples and targets; gradients in `forward`."""

    @staticmethod
    def forward(  # noqa: PLR0917  (autograd takes no keywords)
        ctx: Any,
        hidden_MR: Tensor,
        weight_KR: Tensor,
        bias_K: Tensor,
        owners_N: Tensor,
        places_N: Tensor,
        log_weights_S: Tensor,
        log_own_N: Tensor | None,
        log_rest_N: Tensor | None,
        weights_N: Tensor | None,
    ) -> Tensor:
        num_samples, num_targets = len(log_weights_S), len(owners_N)
        samples_SR, targets_NR = weight_KR[:num_samples], weight_KR[num_samples:]
        e_MS = torch.addmm(bias_K[:num_samples] + log_weights_S, hidden_MR, samples_SR.t())
        h_NR = hidden_MR[owners_N]
        z_N = torch.linalg.vecdot(h_NR, targets_NR).add_(bias_K[num_samples:])
        top_M = e_MS.amax(1).scatter_reduce(0, owners_N, z_N, "amax")
        e_MS.sub_(top_M[:, None]).exp_()
        z_N.sub_(top_M[owners_N])
        twice = (owners_N, places_N.clamp_min(0))
        own_N, total_N = z_N.exp(), e_MS.sum(1)[owners_N]
        again_N = torch.where(places_N >= 0, e_MS[twice], 0.0)
        total_N.sub_(again_N).clamp_min_(0.0).add_(own_N)
        likelihoods, share_N = _mixed(z_N - total_N.log(), log_own_N, log_rest_N, slice(None))
        share_N = share_N if weights_N is None else share_N * weights_N
        scale_N = share_N / (total_N * num_targets)
        e_MS.mul_(hidden_MR.new_zeros(len(hidden_MR)).index_add_(0, owners_N, scale_N)[:, None])
        e_MS.index_put_(twice, -again_N * scale_N, accumulate=True)
        d_z_N = own_N * scale_N - share_N / num_targets
        d_hidden = torch.mm(e_MS, samples_SR).index_add_(0, owners_N, targets_NR * d_z_N[:, None])
        d_weight = torch.cat([torch.mm(e_MS.t(), hidden_MR), h_NR * d_z_N[:, None]])
        d_bias = torch.cat([e_MS.sum(0), d_z_N])
        ctx.is_mixed = log_own_N is not None
        ctx.save_for_backward(d_hidden, d_weight, d_bias, share_N / num_targets, weights_N)
        return -_mean(likelihoods, weights_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight, d_bias, own, rest = _scaled(ctx, gradients[0])
        return d_hidden, d_weight, d_bias, None, None, None, own, rest, None


def _mixed(
    log_p: Tensor, log_own_N: Tensor | None, log_rest_N: Tensor | None, here: slice
) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of the targets `here`, and the share of each that the softmax has."""
    if log_own_N is None or log_rest_N is None:
        return log_p, torch.ones_like(log_p)
    by_softmax = log_rest_N[here] + log_p
    both = torch.logaddexp(log_own_N[here], by_softmax)
    return both, (by_softmax - both).exp_()


def _mean(likelihoods: Tensor, weights_N: Tensor | None) -> Tensor:
    return likelihoods.mean() if weights_N is None else (likelihoods * weights_N).mean()


def _scaled(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients that `forward` made, times the one from outside."""
    d_hidden, d_weight, d_bias, shares, weights_N = ctx.saved_tensors
    own = rest = None
    if ctx.is_mixed:
        whole = 1.0 / len(shares) if weights_N is None else weights_N / len(shares)
        own, rest = (shares - whole) * gradient, -shares * gradient
    if gradient.device.type != "cpu" or gradient != 1.0:  # to look would be to wait for a device
        d_hidden, d_weight, d_bias = (t * gradient for t in (d_hidden, d_weight, d_bias))
    return d_hidden, d_weight, d_bias, own, rest
