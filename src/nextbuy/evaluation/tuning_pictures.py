"""Pictures of a search for a better config; see `pictures`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from nextbuy.evaluation.pictures import BLUE, GREY, ORANGE, altair, finished

if TYPE_CHECKING:
    from altair import Chart, LayerChart

_WIDTH: Final = 480
_ROW: Final = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPoint:
    """A complete trial.

    Attributes:
        number: From 1, among all that ended.
        value: Of the metric, on validation.
        seconds: That it took.
        is_default: Whether it is the default config.
    """

    number: int
    value: float
    seconds: float
    is_default: bool


def history(trials: Sequence[TrialPoint], metric: str, model: str) -> "LayerChart":
    """Each trial's score, and the best so far as a line."""
    alt = altair()
    table = _table(trials)
    best = table.get_column("value")
    best = best.cum_min() if metric == "loss" else best.cum_max()
    x = alt.X("number:Q").title("trial").axis(tickMinStep=1, format="d", grid=False)
    line = alt.Chart(table.with_columns(best=best)).mark_line(
        interpolate="step-after", color=BLUE, strokeWidth=2
    )
    chart: LayerChart = alt.layer(
        line.encode(x=x, y=alt.Y("best:Q").title(_words(metric)).scale(zero=False)),
        _points(table, x, metric),
    ).properties(width=_WIDTH, height=260)
    return finished(chart, f"Tuning of {model}", "line: the best so far; orange: the default")


def trade_off(trials: Sequence[TrialPoint], metric: str, model: str) -> "Chart":
    """What a trial took, and what it was worth."""
    alt = altair()
    x = alt.X("seconds:Q").title("seconds to fit and score").axis(grid=False)
    chart: Chart = _points(_table(trials), x, metric).properties(width=_WIDTH, height=260)
    return finished(chart, f"Quality and time of {model}", "complete trials; orange: the default")


def importance(shares: Mapping[str, float], num_trials: int, model: str) -> "LayerChart":
    """How much each field matters for being among the best, as shares of 1."""
    alt = altair()
    table = pl.DataFrame(
        {"field": list(shares), "share": list(shares.values())},
        schema={"field": pl.String, "share": pl.Float64},
    ).sort("share", descending=True)
    base = alt.Chart(table).encode(
        x=alt.X("share:Q").title("importance").axis(format="%", grid=False),
        y=alt.Y("field:N").title(None).sort(table["field"].to_list()).axis(labelLimit=200),
    )
    chart: LayerChart = alt.layer(
        base.mark_bar(color=BLUE),
        base.mark_text(align="left", dx=5, color=GREY).encode(
            text=alt.Text("share:Q", format=".0%")
        ),
    ).properties(width=_WIDTH, height=_ROW * max(1, len(table)))
    return finished(
        chart, f"What matters in {model}", f"by PED-ANOVA over {num_trials} complete trials"
    )


def _table(trials: Sequence[TrialPoint]) -> pl.DataFrame:
    schema = {
        "number": pl.Int64, "value": pl.Float64, "seconds": pl.Float64, "is_default": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame([asdict(trial) for trial in trials], schema=schema)


def _points(table: pl.DataFrame, x: Any, metric: str) -> Any:
    alt = altair()
    colour = alt.Color("is_default:N").scale(domain=[False, True], range=[BLUE, ORANGE])
    return (
        alt.Chart(table)
        .mark_point(size=45, filled=True, opacity=1)
        .encode(
            x=x,
            y=alt.Y("value:Q").title(_words(metric)).scale(zero=False),
            color=colour.legend(None),
        )
    )


def _words(metric: str) -> str:
    return f"validation {metric}, {'lower' if metric == 'loss' else 'higher'} is better"
