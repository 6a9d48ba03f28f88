"""Mixtures of log-normals beside SciPy, and a wait that never ends."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from nextbuy.nn.log_normal_mixture import LogNormalMixture

# Log odds of never; shares, means, log spreads of two components.
SAID = torch.tensor([[0.3, 1.0, -0.5, -0.4, 1.1, 0.1, -0.7]], dtype=torch.float64)


def twin(y):
    """Density and survival at y, one component after the other."""
    never = 1 / (1 + math.exp(-0.3))
    shares = np.exp([1.0, -0.5]) / np.exp([1.0, -0.5]).sum()
    parts = [stats.norm(m, math.exp(s) + 0.05) for m, s in ((-0.4, 0.1), (1.1, -0.7))]
    density = sum(p * part.pdf(y) for p, part in zip(shares, parts, strict=True))
    survival = sum(p * part.sf(y) for p, part in zip(shares, parts, strict=True))
    return (1 - never) * density, never + (1 - never) * survival


def test_density_and_survival_are_those_of_the_parts():
    mixture = LogNormalMixture.of(SAID)
    for y in (-3.0, 0.0, 0.7, 5.0):
        density, survival = twin(y)
        at = torch.tensor([y], dtype=torch.float64)
        assert mixture.log_density(at).exp().item() == pytest.approx(density, rel=1e-12)
        assert mixture.log_survival(at).exp().item() == pytest.approx(survival, rel=1e-12)
        assert mixture.survival(at).item() == pytest.approx(survival, rel=1e-12)


def test_survival_is_that_of_its_logarithm_far_out_too():
    """Hardly anybody never comes, so that the far tail is all there is."""
    mixture = LogNormalMixture.of(SAID - torch.tensor([[900.0, 0, 0, 0, 0, 0, 0]]))
    far = torch.tensor([[-math.inf, 3.0, 20.0, 30.0]], dtype=torch.float64)
    expected = mixture.log_survival(far).exp().numpy()
    assert 0 < expected[0, 3] < 1e-100
    np.testing.assert_allclose(mixture.survival(far).numpy(), expected, rtol=1e-10)


def test_what_never_ends_outlives_everything():
    mixture = LogNormalMixture.of(SAID)
    forever = mixture.log_survival(torch.tensor([[math.inf]], dtype=torch.float64))
    assert forever.exp().item() == pytest.approx(1 / (1 + math.exp(-0.3)))


def test_many_moments_of_a_state_are_as_one_by_one():
    mixture = LogNormalMixture.of(torch.cat([SAID, -SAID]))
    grid = torch.linspace(-2, 2, 5, dtype=torch.float64)[None]
    both = mixture.log_density(grid)
    assert both.shape == (2, 5)
    alone = mixture.take(torch.tensor([1])).log_density(grid[0, 3:4])
    assert both[1, 3].item() == pytest.approx(alone.item(), rel=1e-12)
