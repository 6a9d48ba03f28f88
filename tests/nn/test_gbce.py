"""gBCE by hand, against the plain formula one number at a time, and at its optimum."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nextbuy.nn.gbce import gbce_beta, gbce_loss


def slow_loss(hidden, weight, bias, owners, targets, samples, calibration):
    """The formula, one pair at a time."""
    alpha = len(samples) / len(weight)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    total = torch.zeros((), dtype=hidden.dtype)
    for owner, target in zip(owners.tolist(), targets.tolist(), strict=True):
        own = {t for o, t in zip(owners.tolist(), targets.tolist(), strict=True) if o == owner}
        score = hidden[owner] @ weight[target] + bias[target]
        total = total - beta * torch.log(torch.sigmoid(score))
        for item in samples.tolist():
            if item not in own:
                score = hidden[owner] @ weight[item] + bias[item]
                total = total - torch.log(1 - torch.sigmoid(score))
    return total / len(targets)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999), num_states=st.integers(1, 12), num_items=st.integers(1, 12),
    calibration=st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip
def test_the_loss_and_its_gradient_are_those_of_the_formula(
    seed, num_states, num_items, calibration
):
    torch.manual_seed(seed)
    counts = torch.randint(0, 4, (num_states,))
    counts[0] = 1
    owners = torch.repeat_interleave(torch.arange(num_states), counts)
    targets = torch.randint(0, num_items, (len(owners),))
    samples = torch.randperm(num_items)[: max(1, num_items // 2)]
    sizes = ((num_states, 3), (num_items, 3), (num_items,))
    learnt = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    ours = gbce_loss(*learnt, owners, targets, samples_S=samples, calibration=calibration)
    theirs = slow_loss(*learnt, owners, targets, samples, calibration)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    for one, other in zip(
        torch.autograd.grad(ours, learnt), torch.autograd.grad(theirs, learnt), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_beta_by_hand():
    assert gbce_beta(0.25, 0.0) == 1
    assert gbce_beta(0.25, 1.0) == 0.25
    assert gbce_beta(1.0, 0.75) == 1
    assert gbce_beta(1 / 5, 1 / 2) == pytest.approx(1 / 5 * (1 / 2 * (1 - 5) + 5))


def test_two_targets_by_hand():
    """Two of four items are sampled: alpha 1/2; with t = 1/2, beta is 3/4."""
    scores = torch.tensor([[0.0, math.log(3), 0.0, math.log(2)]])
    loss = gbce_loss(
        torch.ones(1, 1), scores.T, torch.zeros(4), torch.tensor([0, 0]), torch.tensor([1, 0]),
        samples_S=torch.tensor([1, 3]), calibration=0.5,
    )  # fmt: skip
    # Item 1 has probability 3/4 and is a target, so no negative; item 3 has 2/3 and is one twice.
    by_hand = -(3 / 4 * (math.log(3 / 4) + math.log(1 / 2)) + 2 * math.log(1 / 3)) / 2
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)


def test_a_sampled_target_does_not_count_against_any_purchase_of_its_basket():
    """Only the two targets are sampled, so nothing speaks against either."""
    bias = torch.zeros(5, requires_grad=True)
    loss = gbce_loss(
        torch.ones(1, 1), torch.zeros(5, 1), bias, torch.tensor([0, 0]), torch.tensor([2, 4]),
        samples_S=torch.tensor([2, 4]), calibration=0.0,
    )  # fmt: skip
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    loss.backward()
    assert bias.grad.tolist() == pytest.approx([0, 0, -1 / 4, 0, -1 / 4])


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_the_loss_is_lowest_where_the_odds_are_those_of_the_purchases(calibration):
    """Over all samples of two of four items; purchases have probabilities 4/8, 2/8, 1/8, 1/8."""
    p = torch.tensor([4, 2, 1, 1], dtype=torch.float64) / 8
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])
    alpha = 1 / 2
    beta = 1 - calibration * (1 - alpha)
    bias = torch.log(beta / alpha * p / (1 - p)).requires_grad_()
    for pair in torch.combinations(torch.arange(4)):
        gbce_loss(
            torch.zeros(8, 1, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64), bias,
            torch.arange(8), targets, samples_S=pair, calibration=calibration,
        ).backward()  # fmt: skip
    torch.testing.assert_close(bias.grad, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)


def test_extreme_scores_stay_finite_and_no_target_is_nan():
    bias = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    rest = torch.zeros(1, 1), torch.zeros(3, 1), bias
    one, none = torch.tensor([0]), torch.tensor([], dtype=torch.int64)
    loss = gbce_loss(*rest, one, torch.tensor([1]), samples_S=one, calibration=0.0)
    assert loss.item() == pytest.approx(2e4)
    loss.backward()
    assert bias.grad.tolist() == [1, -1, 0]
    assert gbce_loss(*rest, none, none, samples_S=one).isnan()
