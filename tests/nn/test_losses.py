"""The losses and their hand-made gradients against autograd on the plain formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy.nn import losses
from nextbuy.nn.losses import full_softmax_loss, sampled_softmax_loss


def plain(scores_NV, targets, own, rest, weights=None):
    """-log(exp(own) + exp(rest) softmax), by autograd; -log softmax without a second source."""
    log_p = torch.log_softmax(scores_NV, 1)[torch.arange(len(targets)), targets]
    mixed = log_p if own is None else torch.logaddexp(own, rest + log_p)
    return -(mixed if weights is None else mixed * weights).mean()


def question(seed, num_states, num_items, *, mixed):
    """Random weights of double precision, and each state asked for none, one or several targets."""
    torch.manual_seed(seed)
    counts = torch.randint(0, 4, (num_states,))
    counts[0] = 1
    owners = torch.repeat_interleave(torch.arange(num_states), counts)
    targets = torch.randint(0, num_items, (len(owners),))
    learnt = [torch.randn(num_states, 6), torch.randn(num_items, 6), torch.randn(num_items)]
    if mixed:
        own = torch.where(torch.rand(len(owners)) < 0.3, -torch.inf, -3 * torch.rand(len(owners)))
        learnt += [own, -2 * torch.rand(len(owners))]
    return owners, targets, [t.double().requires_grad_() for t in learnt]


def assert_same(ours, theirs, learnt):
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9, abs=1e-12)
    found = torch.autograd.grad(3 * ours, learnt)
    expected = torch.autograd.grad(3 * theirs, learnt)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, torch.nan_to_num(other), atol=1e-12, rtol=1e-9)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999), num_states=st.integers(1, 40), num_items=st.integers(1, 30),
    mixed=st.booleans(), weighed=st.booleans(),
)  # fmt: skip
def test_the_full_loss_and_its_gradient_are_those_of_the_formula(
    seed, num_states, num_items, mixed, weighed
):
    owners, targets, learnt = question(seed, num_states, num_items, mixed=mixed)
    hidden, weight, bias, *both = learnt
    more = dict(zip(("log_own_N", "log_rest_N"), both, strict=False))
    weights = 2 * torch.rand(len(targets)).double() if weighed else None
    more["weights_N"] = weights
    chunk = losses._CHUNK_BYTES
    losses._CHUNK_BYTES = 0  # chunks of the fewest rows
    try:
        ours = full_softmax_loss(hidden, weight, bias, owners, targets, **more)
    finally:
        losses._CHUNK_BYTES = chunk
    theirs = plain((hidden @ weight.T + bias)[owners], targets, *(both or (None, None)), weights)
    assert_same(ours, theirs, learnt)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999), num_states=st.integers(1, 40), num_items=st.integers(2, 30),
    mixed=st.booleans(), weighed=st.booleans(),
)  # fmt: skip
def test_the_sampled_loss_and_its_gradient_are_those_of_the_formula(
    seed, num_states, num_items, mixed, weighed
):
    owners, targets, learnt = question(seed, num_states, num_items, mixed=mixed)
    hidden, weight, bias, *both = learnt
    samples = torch.randperm(num_items)[: max(1, num_items // 2)]
    stands_for = torch.rand(len(samples)).double() * 2
    more = dict(zip(("log_own_N", "log_rest_N"), both, strict=False))
    weights = 2 * torch.rand(len(targets)).double() if weighed else None
    more["weights_N"] = weights
    ours = sampled_softmax_loss(
        hidden, weight, bias, owners, targets, samples_S=samples, log_weights_S=stands_for, **more
    )
    scores = (hidden @ weight.T + bias)[owners]
    drawn = scores[:, samples] + stands_for
    drawn = drawn.masked_fill(targets[:, None] == samples[None], -torch.inf)
    target = scores[torch.arange(len(targets)), targets][:, None]
    together = torch.cat([target, drawn], 1)
    theirs = plain(together, torch.zeros_like(targets), *(both or (None, None)), weights)
    assert_same(ours, theirs, learnt)


def test_the_workspace_does_not_grow_with_states_times_items():
    """40,000 states of 1,000 items: 160 MB of scores, of which 8 are held at once."""
    hidden, weight, bias = torch.zeros(40_000, 2), torch.zeros(1_000, 2), torch.zeros(1_000)
    owners = torch.arange(40_000)
    with torch.profiler.profile(profile_memory=True) as seen:
        full_softmax_loss(hidden, weight, bias, owners, owners % 1_000)
    largest = max(event.cpu_memory_usage for event in seen.events())
    assert largest < 2 * losses._CHUNK_BYTES
