"""The outlook of somebody who knows the laws of a world: what any timing model is measured by."""

import numpy as np

from nextbuy.data.worlds.world import GapLaws
from nextbuy.timing.blend import MixedOutlook
from nextbuy.timing.gap_families import LogNormal
from nextbuy.timing.renewal import RenewalOutlook


def true_outlook(laws: GapLaws) -> MixedOutlook:
    """The distribution of the next purchase, given the history and what has elapsed since."""
    elapsed_U1 = laws.elapsed_days[:, None]
    by_segment = [
        RenewalOutlook(
            LogNormal(location=np.full((1, 1), np.log(median)), spread=np.full((1, 1), spread)),
            elapsed_U1, np.zeros_like(elapsed_U1), unit_days=1.0,
        )
        for median, spread in zip(laws.median_days, laws.spread, strict=True)
    ]  # fmt: skip
    return MixedOutlook(by_segment, laws.weights.T)
