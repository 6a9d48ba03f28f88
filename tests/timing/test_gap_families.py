"""Gap distributions against the integrals over users that they stand for."""

import numpy as np
import pytest
from scipy import integrate, stats

from nextbuy.timing import gap_families as families
from nextbuy.timing.gap_families import Gaps

FAMILIES = {
    families.LogNormal: (1.3, 0.8),
    families.Gamma: (1.7, 0.9),
    families.Weibull: (1.4, 0.7),
    families.OwnLogNormal: (1.3, 0.6, 2.5, 1.2),
    families.OwnGamma: (1.7, 2.2, 1.9),
    families.OwnWeibull: (1.4, 2.2, 1.9),
}
EXTREME = {
    families.LogNormal: (1.0, 0.01),
    families.Gamma: (400.0, 400.0),
    families.Weibull: (30.0, 1.0),
    families.OwnLogNormal: (1.0, 1e4, 1e4, 1.0),
    families.OwnGamma: (50.0, 1e4, 200.0),
    families.OwnWeibull: (30.0, 1e4, 1e4),
}
COMPLETE = [0.5, 2.0, 1.1, 0.3]


def gaps_of_users():
    """Three gaps of the first user, none of the second, one of the third."""
    owners = np.array([0, 0, 0, 2])
    return Gaps(complete=np.array(COMPLETE), owners=owners, elapsed=np.array([0.4, 3.0, 0.0]))


def integrated(function, scale_density):
    """Integral over the log of the scale (rate) that a user might have."""
    return integrate.quad(lambda v: function(np.exp(v)) * scale_density(np.exp(v)) * np.exp(v),
                          -30, 12, epsabs=0, epsrel=1e-10, limit=400)[0]  # fmt: skip


def of_known_scale(family, values, rate):
    """Density and survival of a gap of a user with a known rate (a variance, for log-normal)."""
    if family is families.OwnGamma:
        return stats.gamma(values[0], scale=1 / rate)
    return stats.weibull_min(values[0], scale=rate ** (-1 / values[0]))


@pytest.mark.parametrize("family", [families.OwnGamma, families.OwnWeibull])
def test_own_rates_are_integrated_out(family):
    values, gaps = FAMILIES[family], gaps_of_users()
    prior = stats.gamma(values[1], scale=1 / values[2]).pdf
    seen = family.log_marginal(values, gaps)
    own = [[0.5, 2.0, 1.1], [], [0.3]]
    for user, days in enumerate(own):

        def likelihood(rate, days=days):
            return np.prod(of_known_scale(family, values, rate).pdf(days)) if days else 1.0

        marginal = integrated(likelihood, prior)
        assert seen[user] == pytest.approx(np.log(marginal), abs=1e-8)

        def longer(rate, likelihood=likelihood):
            return likelihood(rate) * of_known_scale(family, values, rate).sf(1.7)

        known = family.of(values, gaps)
        survival = np.exp(known.log_survival(np.array([[1.7]])))[user, 0]
        assert survival == pytest.approx(integrated(longer, prior) / marginal, rel=1e-7)


def test_own_log_normals_are_integrated_out():
    family, (typical, prior_gaps, a, b), gaps = (
        families.OwnLogNormal, FAMILIES[families.OwnLogNormal], gaps_of_users(),
    )  # fmt: skip
    seen = family.log_marginal((typical, prior_gaps, a, b), gaps)
    variance = stats.invgamma(a, scale=b).pdf
    for user, days in ((0, [0.5, 2.0, 1.1]), (2, [0.3])):
        y = np.log(days)

        def given(v, y=y):
            """Log gaps are jointly normal once their mean is integrated out."""
            cov = v * (np.eye(len(y)) + 1 / prior_gaps)
            return stats.multivariate_normal.pdf(y, np.full(len(y), np.log(typical)), cov)

        expected = np.log(integrated(given, variance)) - y.sum()
        assert seen[user] == pytest.approx(expected, abs=1e-8)
    assert seen[1] == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_next_gap_is_the_marginal_of_one_more(family):
    """p(next | before) = p(before and next) / p(before)."""
    values, gaps = FAMILIES[family], gaps_of_users()
    more = Gaps(
        complete=np.append(COMPLETE, [0.8, 0.8]), owners=np.array([0, 0, 0, 2, 0, 1]),
        elapsed=gaps.elapsed,
    )  # fmt: skip
    expected = family.log_marginal(values, more) - family.log_marginal(values, gaps)
    seen = family.of(values, gaps).log_density(np.array([[0.8]]))
    assert np.broadcast_to(seen, (3, 1))[:2, 0] == pytest.approx(expected[:2], rel=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_is_the_fall_of_survival(family):
    gap = family.of(FAMILIES[family], gaps_of_users())
    days, h = np.array([[0.1, 0.5, 1.0, 3.0, 8.0]]), 1e-5
    above, below = (np.exp(gap.log_survival(days + s)) for s in (h, -h))
    assert np.exp(gap.log_density(days)) == pytest.approx((below - above) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choice", ["usual", "extreme"])
def test_survival_falls_and_stays_finite_far_out(family, choice):
    values = (FAMILIES if choice == "usual" else EXTREME)[family]
    gap = family.of(values, gaps_of_users())
    days = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 400)])[None]
    log_survival = gap.log_survival(days)
    assert np.isfinite(log_survival).all()
    assert (log_survival[:, 0] == 0).all()
    falls = np.diff(log_survival, axis=1)
    assert (falls <= 1e-9 * np.abs(log_survival[:, 1:])).all()
    assert (gap.log_survival(np.array([[np.inf]])) == -np.inf).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_survival_far_out_continues_the_density(family):
    """Where survival itself underflows, its slope is still the ratio of density to survival."""
    gap = family.of(EXTREME[family], gaps_of_users())
    # a Weibull of this shape falls so fast that rounding is all there is beyond
    days = np.geomspace(1.05, 2.0 if family is families.Weibull else 50.0, 40)[None]
    log_survival = gap.log_survival(days)
    h = 1e-6 * days
    slope = (gap.log_survival(days + h) - gap.log_survival(days - h)) / (2 * h)
    hazard = np.exp(gap.log_density(days) - log_survival)
    smooth = np.abs(log_survival + 660) > 15  # the seam itself is not differentiable
    ratio = np.broadcast_to(-slope / hazard, smooth.shape)[smooth]
    assert ratio == pytest.approx(np.ones(len(ratio)), rel=0.08)


@pytest.mark.parametrize("family", [families.OwnLogNormal, families.OwnGamma, families.OwnWeibull])
def test_scales_are_weighed_by_what_has_elapsed(family):
    """Mixed over the scale, P(no purchase for another while | elapsed) is the predictive one."""
    gaps = gaps_of_users()
    gap, elapsed, more = family.of(FAMILIES[family], gaps), gaps.elapsed[:, None], 0.9
    pairs = list(gap.given_scale(elapsed))
    log_w = np.concatenate([w for w, _ in pairs], axis=1)
    w = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    w /= w.sum(axis=1, keepdims=True)
    parts = [np.exp(g.log_survival(elapsed + more) - g.log_survival(elapsed)) for _, g in pairs]
    mixed = (w * np.concatenate(parts, axis=1)).sum(axis=1)
    exact = np.exp(gap.log_survival(elapsed + more) - gap.log_survival(elapsed))[:, 0]
    assert mixed == pytest.approx(exact, abs=0.04 if family is families.OwnLogNormal else 2e-3)
