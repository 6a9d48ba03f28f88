"""The picture of how good audiences are; see `pictures`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import polars as pl

from nextbuy.evaluation.pictures import BLUE, GREY, ORANGE, altair, finished

if TYPE_CHECKING:
    from altair import LayerChart

_WIDTH: Final = 480


def gain_curves(
    gains: Mapping[str, Sequence[float]], *, title: str = "How many buyers an audience holds"
) -> "LayerChart":
    """Share of the buyers among the first tenths of the customers, a line a ranking.

    Args:
        gains: Of each ranking, the best first: the share after each tenth, ten of them.
        title: What is shown.
    """
    alt = altair()
    rows = [
        (name, place / len(shares), share)
        for name, shares in gains.items()
        for place, share in enumerate([0.0, *shares])
    ]
    table = pl.DataFrame(rows, schema=["ranking", "asked", "held"], orient="row")
    names = list(gains)
    colour = alt.Color("ranking:N").title(None).sort(names)
    colour = colour.scale(domain=names, range=[BLUE, ORANGE, GREY][: len(names)])
    axis = alt.Axis(format="%", grid=False, tickCount=5)
    base = alt.Chart(table).encode(
        x=alt.X("asked:Q").title("customers asked, the best first").axis(axis),
        y=alt.Y("held:Q").title("buyers among them").axis(alt.Axis(format="%", tickCount=5)),
        color=colour.legend(alt.Legend(orient="top", labelFontSize=12)),
    )
    chance = alt.Chart(pl.DataFrame({"asked": [0.0, 1.0], "held": [0.0, 1.0]})).encode(
        x="asked:Q", y="held:Q"
    )
    layers = [
        chance.mark_line(strokeDash=[4, 4], color=GREY, strokeWidth=1),
        base.mark_line(strokeWidth=2),
        base.mark_point(size=22, filled=True, opacity=1),
    ]
    chart: LayerChart = alt.layer(*layers).properties(width=_WIDTH, height=280)
    first = ", ".join(f"{name} {shares[0]:.0%}" for name, shares in gains.items())
    return finished(chart, title, f"among the first tenth: {first}; dashed is chance")
