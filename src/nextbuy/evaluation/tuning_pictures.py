"""Pictures of a search for a better config: its history, quality against time, what matters."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from nextbuy.evaluation.pictures import BLUE, GREY, ORANGE, altair, finished

if TYPE_CHECKING:
    from altair import LayerChart

_WIDTH: Final = 480
_ROW: Final = 26
_LINE: Final = 78
"""Letters that go beside each other under a title."""

_KINDS: Final = ("default", "tried", "pruned")
_COLOURS: Final = (ORANGE, BLUE, GREY)
_SHAPES: Final = ("circle", "circle", "cross")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPoint:
    """A trial that is complete or was pruned.

    Attributes:
        number: Of the study, from 0.
        value: Of the metric, on validation; of a pruned one what it had reached.
        seconds: That it took.
        kind: Whether it is the default config, another, or one that was pruned.
    """

    number: int
    value: float
    seconds: float
    kind: Literal["default", "tried", "pruned"]


def history(trials: Sequence[TrialPoint], metric: str, model: str, said: str = "") -> "LayerChart":
    """Each trial's score, the best so far as a line, and the default's as another.

    Args:
        trials: The default among them.
        metric: `loss`, where lower is better, or one where higher is.
        model: Its name.
        said: What the test says; stands under the title.
    """
    alt = altair()
    table = _table(trials)
    x = alt.X("number:Q").title("trial").axis(tickMinStep=1, format="d", grid=False)
    y = _quality(table, metric)
    complete = table.filter(pl.col("kind") != "pruned")
    so_far = pl.col("value").cum_min() if metric == "loss" else pl.col("value").cum_max()
    best = complete.select("number", value=so_far)
    last = pl.DataFrame({"number": [table["number"].max()], "value": [best["value"][-1]]})
    best = pl.concat([best, last.cast(dict(best.schema))])  # type: ignore[arg-type]  # its own types
    lines = alt.Chart(best).mark_line(interpolate="step-after", color=BLUE, strokeWidth=2)
    rule = alt.Chart(table.filter(kind="default")).mark_rule(color=ORANGE, strokeDash=[4, 3])
    chart: LayerChart = alt.layer(
        rule.encode(y=y), lines.encode(x=x, y=y), _points(table, x, y), _labels(table, x, y, metric)
    ).properties(width=_WIDTH, height=260)
    words = [_counted(table) + "; line: the best so far", *textwrap.wrap(said, _LINE)]
    return finished(chart, f"Tuning of {model}", words)


def trade_off(trials: Sequence[TrialPoint], metric: str, model: str) -> "LayerChart":
    """What a trial took, and what it was worth; a line joins those that none beats in both."""
    alt = altair()
    table = _table(trials).filter(pl.col("kind") != "pruned")
    x = alt.X("seconds:Q").title("seconds to fit and score").axis(grid=False)
    x = x.scale(zero=True)
    y = _quality(table, metric)
    front = alt.Chart(unbeaten(table, metric)).mark_line(
        interpolate="step-after", color=BLUE, strokeWidth=1.5, opacity=0.6
    )
    chart: LayerChart = alt.layer(
        front.encode(x=x, y=y), _points(table, x, y), _labels(table, x, y, metric)
    ).properties(width=_WIDTH, height=260)
    words = "complete trials; line: the best that so many seconds gave"
    return finished(chart, f"Quality and time of {model}", words)


def unbeaten(table: pl.DataFrame, metric: str) -> pl.DataFrame:
    """The rows that no other beats both in `value` and in `seconds`, the fastest first."""
    sign = 1 if metric == "loss" else -1
    ordered = table.with_columns(cost=sign * pl.col("value")).sort("seconds", "cost")
    before = pl.col("cost").cum_min().shift(1)
    return ordered.filter(before.is_null() | (pl.col("cost") < before)).drop("cost")


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
    words = [
        f"which fields set the best of {num_trials} complete trials apart from the others",
        "(PED-ANOVA); from few trials it is a guess",
    ]
    return finished(chart, f"What matters in {model}", words)


def _table(trials: Sequence[TrialPoint]) -> pl.DataFrame:
    schema = {
        "number": pl.Int64, "value": pl.Float64, "seconds": pl.Float64, "kind": pl.String,
    }  # fmt: skip
    return pl.DataFrame([asdict(trial) for trial in trials], schema=schema).sort("number")


def _quality(table: pl.DataFrame, metric: str) -> Any:
    """The axis of the metric, over what complete trials have: a pruned one may be far off, and
    stands at the edge then."""
    complete = table.filter(pl.col("kind") != "pruned")["value"]
    low, high = float(complete.min()), float(complete.max())  # type: ignore[arg-type]  # floats
    margin = 0.08 * (high - low) or 0.02 * abs(high) or 1.0
    scale = altair().Scale(domain=[low - margin, high + margin], nice=False, clamp=True)
    return altair().Y("value:Q").title(_words(metric)).scale(scale)


def _points(table: pl.DataFrame, x: Any, y: Any) -> Any:
    alt = altair()
    colour = alt.Color("kind:N").scale(domain=_KINDS, range=_COLOURS).legend(None)
    shape = alt.Shape("kind:N").scale(domain=_KINDS, range=_SHAPES).legend(None)
    points = alt.Chart(table).mark_point(size=45, filled=True, opacity=1)
    return points.encode(x=x, y=y, color=colour, shape=shape)


def _labels(table: pl.DataFrame, x: Any, y: Any, metric: str) -> Any:
    """The names of the default and the best, beside their points."""
    alt = altair()
    complete = table.filter(pl.col("kind") != "pruned")
    best = complete.sort("value", descending=metric != "loss", maintain_order=True).head(1)
    default = table.filter(kind="default")
    is_same = best["number"].to_list() == default["number"].to_list()
    named = [best.with_columns(name=pl.lit("default, the best" if is_same else "best"))]
    if not is_same:
        named.append(default.with_columns(name=pl.lit("default")))
    text = alt.Chart(pl.concat(named)).mark_text(align="left", dx=7, dy=-8, fontSize=12)
    return text.encode(x=x, y=y, text="name:N")


def _counted(table: pl.DataFrame) -> str:
    pruned = int((table["kind"] == "pruned").sum())
    complete = len(table) - pruned
    words = f"{complete} complete trial{'' if complete == 1 else 's'}"
    return words + (f", {pruned} pruned (crosses, at the edge if beyond it)" if pruned else "")


def _words(metric: str) -> str:
    return f"validation {metric}, {'lower' if metric == 'loss' else 'higher'} is better"
