"""Pictures of whether forecasts of times come true; see `pictures`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from nextbuy.evaluation.pictures import BLUE, GREY, ORANGE, altair, finished
from nextbuy.metrics.calibration import Reliability

if TYPE_CHECKING:
    from altair import HConcatChart, LayerChart

_PANEL: Final = 210
_WIDTH: Final = 480

_FEW: Final = 20
"""Customers below which a dot says nothing."""


def reliability_by_horizon(
    found: Mapping[int, Reliability], *, title: str = "Do they come when they are said to?"
) -> "HConcatChart":
    """How many did buy, against the probability that was said, a panel a horizon.

    Args:
        found: Of the probability to buy within so many days.
        title: What was scored.
    """
    alt = altair()
    panels: list[LayerChart] = []
    for days, bins in found.items():
        table = pl.DataFrame(
            {"said": bins.confidence, "came": bins.accuracy, "customers": bins.counts}
        ).filter(pl.col("customers") > 0)
        enough = table.filter(pl.col("customers") >= _FEW)
        table = enough if enough.height else table
        top = min(1.0, 1.1 * max([0.05, *table["said"], *table["came"]]))
        axis = alt.Axis(format="%", grid=False, tickCount=4)
        x = alt.X("said:Q").title("probability said").scale(domain=[0, top], nice=False).axis(axis)
        y = alt.Y("came:Q").title("did buy" if not panels else None)
        y = y.scale(domain=[0, top], nice=False).axis(axis)
        corners = pl.DataFrame({"said": [0.0, top], "came": [0.0, top]})
        diagonal = alt.Chart(corners).mark_line(color=GREY, strokeDash=[4, 4])
        base = alt.Chart(table).encode(x=x, y=y)
        size = alt.Size("customers:Q").scale(range=[25, 260]).legend(None)
        panels.append(
            alt.layer(
                diagonal.encode(x=x, y=y),
                base.mark_line(color=BLUE, strokeWidth=1.5),
                base.mark_point(filled=True, color=BLUE, opacity=0.9).encode(size=size),
            ).properties(width=_PANEL, height=_PANEL, title=f"within {days} days")
        )
    chart: HConcatChart = alt.hconcat(*panels, spacing=28)
    return finished(
        chart, title,
        f"dots: customers by the probability said, larger for more (below {_FEW} left out); "
        "dashed: honest",
    )  # fmt: skip


def pit_bars(shares: Sequence[float], *, title: str = "Are the intervals right?") -> "LayerChart":
    """The share of waits in each tenth of what was said, with the tenth that is honest as a line.

    Args:
        shares: See `scores.pit_histogram`.
        title: What was scored.
    """
    alt = altair()
    edges = np.linspace(0.0, 1.0, len(shares) + 1)
    table = pl.DataFrame({"low": edges[:-1], "high": edges[1:], "share": list(shares)})
    honest = 1.0 / len(shares)
    top = 1.15 * max(*shares, honest)
    x = alt.X("low:Q").title("probability said for a purchase until then").scale(domain=[0, 1])
    y = alt.Y("share:Q").title("waits that ended there").scale(domain=[0, top], nice=False)
    bars = alt.Chart(table).mark_bar(color=BLUE, opacity=0.75, stroke="white")
    line = alt.Chart(pl.DataFrame({"share": [honest]})).mark_rule(
        color=ORANGE, strokeDash=[5, 4], strokeWidth=1.5
    )
    labels = alt.Chart(table.with_columns(middle=pl.mean_horizontal("low", "high")))
    chart: LayerChart = alt.layer(
        bars.encode(
            x=x.axis(format="%", grid=False, values=edges.round(6).tolist()), x2="high:Q",
            y=y.axis(format="%", grid=False, tickCount=4), y2=alt.datum(0),
        ),
        line.encode(y=alt.Y("share:Q")),
        labels.mark_text(baseline="bottom", dy=-4, fontSize=10, color="white").encode(
            x="middle:Q", y=alt.datum(0), text=alt.Text("share:Q", format=".1%")
        ),
    ).properties(width=_WIDTH, height=220)  # fmt: skip
    return finished(
        chart, title,
        "each wait at its place in the distribution that was told for it; honest: 10 % in each bar",
    )  # fmt: skip
