"""Pictures of training and of scores, drawn without a network or a browser.

Altair and vl-convert are an extra (`pictures`) and are loaded when a picture is asked for.
Colours are those of Okabe and Ito (2008), told apart by every kind of colour vision.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import numpy as np
import polars as pl

from nextbuy.errors import MissingExtraError
from nextbuy.metrics.calibration import Reliability

if TYPE_CHECKING:
    from altair import HConcatChart, LayerChart, VConcatChart

Chart = TypeVar("Chart")

BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GREY: Final = "#6B6B6B"
LIGHT: Final = "#DADADA"

_WIDTH: Final = 480
_ROW: Final = 26
"""Height of a row of bars or dots."""

_FEW: Final = 20
"""Purchases below which a bar says nothing."""

_NAMES: Final = {
    "loss": "loss (nats, lower is better)",
    "accuracy": "accuracy (higher is better)",
}


def training_curve(
    epochs: Sequence[Mapping[str, float]], *, limit: float | None = None, title: str = "Training"
) -> "LayerChart":
    """Train and validation loss by epoch, with the world's limit as a line where it is known.

    Args:
        epochs: Rows of the training log; those with `train_loss` or `validation_loss` (nats) are
            shown. Their `epoch` counts from 0, the picture counts from 1.
        limit: The best possible loss.
        title: What was trained.
    """
    alt = altair()
    names = {"train_loss": "training", "validation_loss": "validation"}
    rows = [
        {"epoch": int(row["epoch"]) + 1, "loss": float(row[key]), "part": name}
        for row in epochs
        for key, name in names.items()
        if row.get(key) is not None and np.isfinite(row[key])
    ]
    lines = pl.DataFrame(rows, schema={"epoch": pl.Int64, "loss": pl.Float64, "part": pl.String})
    ends = lines.group_by("part").agg(pl.all().sort_by("epoch").last())
    domain, colours = list(names.values()), [BLUE, ORANGE]
    x = alt.X("epoch:Q").title("epoch").axis(tickMinStep=1, format="d", grid=False)
    x = x.scale(zero=False, nice=False)
    y = alt.Y("loss:Q").title("loss (nats)").scale(zero=False, nice=True)
    colour = alt.Color("part:N").scale(domain=domain, range=colours).legend(None)
    base = alt.Chart(lines).encode(x=x, y=y, color=colour)
    layers = [
        base.mark_line(strokeWidth=2),
        base.mark_point(size=25, filled=True, opacity=1),
        alt.Chart(_spread_labels(ends, "loss", lines["loss"], limit))
        .mark_text(align="left", dx=8, fontSize=12)
        .encode(x=x, y=alt.Y("label_at:Q"), text="label:N", color=colour),
    ]
    if limit is not None:
        at = pl.DataFrame({"loss": [limit], "label": [f"limit {limit:.3f}"]})
        layers.append(_rule(at, y=alt.Y("loss:Q")))
        layers.append(
            alt.Chart(at)
            .mark_text(align="left", baseline="top", dx=4, dy=4, color=GREY, fontSize=12)
            .encode(x=alt.value(0), y=alt.Y("loss:Q"), text="label:N")
        )
    chart: LayerChart = alt.layer(*layers).properties(width=_WIDTH, height=280)
    return finished(
        chart,
        title,
        "validation: the purchase after each history; training: every purchase of every history",
    )


def reliability_diagram(
    found: Reliability, *, title: str = "Calibration of the first offer"
) -> "VConcatChart":
    """Accuracy against confidence, bin by bin, above the number of purchases in each bin.

    Bars on the diagonal are honest; below it the model promises too much.
    """
    alt = altair()
    everything = _filled_bins(found)
    enough = everything.filter(pl.col("count") >= _FEW)
    bins = enough if enough.height else everything
    seen = [0.0, *bins["high"], *bins["accuracy"]]
    top = min(1.0, max(seen)) or 1.0  # a model that never says 20 % needs no room for 100 %
    percent = alt.Axis(format="%", grid=False, tickCount=5)
    x = alt.X("low:Q").title(None).scale(domain=[0, top]).axis(percent)
    y = alt.Y("accuracy:Q").title("right").scale(domain=[0, top]).axis(percent)
    bars = alt.Chart(bins).encode(x=x, x2="high:Q")
    corners = pl.DataFrame({"low": [0.0, top], "accuracy": [0.0, top]})
    diagonal = alt.Chart(corners).mark_line(color=GREY, strokeDash=[4, 4]).encode(x=x, y=y)
    dots = alt.Chart(bins).mark_point(filled=True, size=45, color=ORANGE, opacity=1)
    above = alt.layer(
        bars.mark_bar(color=BLUE, opacity=0.75, stroke="white").encode(y=y, y2=alt.datum(0)),
        diagonal,
        dots.encode(x=alt.X("confidence:Q"), y=y),
    ).properties(width=_WIDTH, height=300)
    below_bars = alt.Chart(everything.filter(pl.col("low") < top)).encode(x=x, x2="high:Q")
    counts = below_bars.mark_bar(color=LIGHT, stroke="white").encode(
        x=alt.X("low:Q").title("said: probability of the first offer").scale(domain=[0, top])
        .axis(percent),
        y=alt.Y("count:Q").title("purchases").axis(tickCount=3, grid=False, format="~s"),
        y2=alt.datum(0),
    )  # fmt: skip
    numbers = below_bars.mark_text(baseline="bottom", dy=-2, fontSize=10, color=GREY).encode(
        x=alt.X("middle:Q"),
        x2=alt.Undefined,
        y=alt.Y("count:Q"),
        text=alt.Text("count:Q", format=","),
    )
    below = alt.layer(counts, numbers).properties(width=_WIDTH, height=80)
    subtitle = [
        "bars: share that was right, dots at the mean probability said; dashed: honest",
        f"expected calibration error {found.ece:.3f}, n = {int(found.counts.sum()):,}; "
        f"bars of fewer than {_FEW} are left out",
    ]
    chart: VConcatChart = alt.vconcat(above, below, spacing=12)
    return finished(chart, title, subtitle)


def _filled_bins(found: Reliability) -> pl.DataFrame:
    width = 1 / len(found.counts)
    edges = np.arange(len(found.counts)) * width
    return pl.DataFrame(
        {
            "low": edges,
            "high": edges + width,
            "middle": edges + width / 2,
            "count": found.counts,
            "confidence": found.confidence,
            "accuracy": found.accuracy,
        }
    ).filter(pl.col("count") > 0)


def distance_to_limit(
    models: Mapping[str, Mapping[str, float]],
    limit: Mapping[str, float],
    *,
    metrics: Sequence[str] = ("loss", "accuracy"),
    title: str = "Distance to the limit",
) -> "HConcatChart":
    """A bar a model against the best that anybody can reach, one panel a metric.

    Args:
        models: Metrics of each model, in the order to be shown.
        limit: The limit of the same metrics.
        metrics: Which of them.
        title: What was scored.
    """
    alt = altair()
    panels = []
    for place, metric in enumerate(metrics):
        rows = pl.DataFrame(
            [
                {"model": name, "value": _drawable(scores[metric]), "label": _short(scores[metric])}
                for name, scores in models.items()
            ],
            schema={"model": pl.String, "value": pl.Float64, "label": pl.String},
        )
        end = max(*rows["value"].drop_nulls(), limit[metric]) * 1.4
        names = alt.Axis(labelLimit=220) if place == 0 else None
        y = alt.Y("model:N").title(None).sort(list(models)).axis(names)
        x = alt.X("value:Q").title(_NAMES.get(metric, metric)).scale(domain=[0, end], nice=False)
        bars = alt.Chart(rows).encode(y=y, x=x.axis(grid=False, tickCount=5))
        at = pl.DataFrame({"value": [limit[metric]], "label": [f"limit {_short(limit[metric])}"]})
        panels.append(
            alt.layer(
                bars.mark_bar(color=BLUE, height={"band": 0.7}),
                bars.mark_text(align="right", fontSize=11).encode(
                    x=alt.value(_WIDTH // 2), text="label:N"
                ),
                _rule(at, x=alt.X("value:Q"), colour=ORANGE),
                alt.Chart(at)
                .mark_text(baseline="bottom", dy=-3, color=ORANGE, fontSize=12)
                .encode(x=alt.X("value:Q"), y=alt.value(0), text="label:N"),
            ).properties(width=_WIDTH // 2, height=_ROW * len(models))
        )
    chart: HConcatChart = alt.hconcat(*panels, spacing=24)
    return finished(chart, title, "the line is the best possible score")


def leaderboard_dots(
    models: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    metric: str = "ndcg@10",
    limit: float | None = None,
    title: str = "Leaderboard",
) -> "LayerChart":
    """A dot a model with its interval, best at the top.

    Args:
        models: Metrics of each model.
        intervals: 95 % intervals of each model; a model without one gets no line.
        metric: Which metric; `loss` and `ece` are better when lower.
        limit: The best possible score.
        title: What was scored.
    """
    alt = altair()
    nothing = (float("nan"), float("nan"))
    rows = []
    for name, scores in models.items():
        low, high = intervals.get(name, {}).get(metric, nothing)
        value = scores[metric]
        rows.append((name, _drawable(value), _drawable(low), _drawable(high), _short(value)))
    lower_is_better = metric.rpartition("/")[2] in ("loss", "ece")
    names = {"model": pl.String} | dict.fromkeys(("value", "low", "high"), pl.Float64)
    table = pl.DataFrame(rows, schema=names | {"label": pl.String}, orient="row").sort(
        "value", descending=not lower_is_better
    )
    y = alt.Y("model:N").title(None).sort(table["model"].to_list())
    y = y.axis(alt.Axis(labelLimit=220, grid=True, gridColor="#EEEEEE", ticks=False))
    better = "lower" if lower_is_better else "higher"
    name = _NAMES.get(metric, f"{metric} ({better} is better)")
    x = alt.X("value:Q").title(name).scale(zero=False, nice=True, padding=10)
    base = alt.Chart(table).encode(y=y, x=x.axis(grid=False))
    with_interval = table.drop_nulls(["low", "high"])
    lines = alt.Chart(with_interval).encode(y=y, x=alt.X("low:Q"), x2="high:Q")
    layers = [
        lines.mark_rule(color=BLUE, strokeWidth=2),
        base.mark_point(filled=True, size=70, color=BLUE, opacity=1),
        base.mark_text(align="left", dx=8, fontSize=11).encode(x=alt.value(_WIDTH), text="label:N"),
    ]
    if limit is not None:
        at = pl.DataFrame({"value": [limit], "label": [f"limit {_short(limit)}"]})
        layers.append(_rule(at, x=alt.X("value:Q"), colour=ORANGE))
        words = alt.Chart(at).mark_text(baseline="bottom", dy=-3, color=ORANGE, fontSize=12)
        layers.append(words.encode(x=alt.X("value:Q"), y=alt.value(0), text="label:N"))
    height = _ROW * len(rows)
    chart: LayerChart = alt.layer(*layers).properties(width=_WIDTH, height=height)
    return finished(chart, title, "dots: score on the test; lines: 95 % bootstrap interval")


def gains_chart(curves: Mapping[str, Mapping[int, float]], *, title: str = "Gains") -> "LayerChart":
    """Share of all purchases that a list of k offers holds, a line a model.

    Args:
        curves: Share by k, of each model; see `ranking.gains`.
        title: What is shown.
    """
    alt = altair()
    rows = [(name, k, share) for name, curve in curves.items() for k, share in curve.items()]
    table = pl.DataFrame(rows, schema=["model", "k", "share"], orient="row")
    ends = table.group_by("model", maintain_order=True).agg(pl.all().sort_by("k").first())
    names = list(curves)
    x = alt.X("k:Q").title("k, length of the list").scale(type="log", nice=False)
    y = alt.Y("share:Q").title("purchases held").axis(alt.Axis(format="%", tickCount=5))
    colour = alt.Color("model:N").title(None).sort(names)
    colour = colour.scale(domain=names, range=[BLUE, ORANGE, GREY][: len(names)])
    base = alt.Chart(table).encode(
        x=x.axis(grid=False, format="~s", values=_powers_of_ten(table["k"])),
        y=y, color=colour.legend(alt.Legend(orient="top", labelFontSize=12)),
    )  # fmt: skip
    layers = [base.mark_line(strokeWidth=2), base.mark_point(size=22, filled=True, opacity=1)]
    chart: LayerChart = alt.layer(*layers).properties(width=_WIDTH, height=260)
    best = ", ".join(f"{row['model']} {row['share']:.1%}" for row in ends.to_dicts())
    return finished(chart, title, f"with a single offer: {best}")


def to_svg(chart: Any) -> str:
    """A chart as SVG; needs neither a browser nor a network.

    Raises:
        MissingExtraError: If vl-convert is not installed.
    """
    drawn: str = _converter().vegalite_to_svg(chart.to_json())
    return drawn


def save_svg(chart: Any, path: Path) -> Path:
    """Write a chart as SVG; see `to_svg`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_svg(chart), encoding="utf-8")
    return path


def save_png(chart: Any, path: Path, *, scale: float = 2.0) -> Path:
    """Write a chart as PNG, `scale` pixels a point.

    Raises:
        MissingExtraError: If vl-convert is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_converter().vegalite_to_png(chart.to_json(), scale=scale))
    return path


def altair() -> Any:
    """The package.

    Raises:
        MissingExtraError: If it is not installed.
    """
    return _load("altair")


def _converter() -> Any:
    return _load("vl_convert", "vl-convert-python")


def _load(module: str, package: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(package or module, "pictures", "Drawing pictures") from error


def _rule(at: pl.DataFrame, *, colour: str = GREY, **where: Any) -> Any:
    rule = altair().Chart(at).mark_rule(color=colour, strokeDash=[5, 4], strokeWidth=1.5)
    return rule.encode(**where)


def _spread_labels(
    ends: pl.DataFrame, column: str, values: pl.Series, limit: float | None
) -> pl.DataFrame:
    """Where to write the labels of line ends, at least a line of text apart."""
    everything = [*values.to_list(), *([] if limit is None else [limit])]
    apart = 0.07 * (max(everything, default=0.0) - min(everything, default=0.0))
    label = pl.format("{} {}", pl.col("part"), pl.col(column).map_elements(_short, pl.String))
    ends = ends.sort(column).with_columns(label=label)
    places: list[float] = []
    for value in ends[column]:
        places.append(max(value, places[-1] + apart) if places else value)
    return ends.with_columns(label_at=pl.Series(places, dtype=pl.Float64))


def _powers_of_ten(values: pl.Series) -> list[int]:
    return [10**e for e in range(len(str(values.max())))]


def _drawable(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _short(value: float) -> str:
    if not np.isfinite(value):
        return "none"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.3f}"


def finished(chart: Chart, title: str, subtitle: str | list[str]) -> Chart:
    """Title, fonts and a white ground."""
    alt = altair()
    words = alt.TitleParams(
        text=title, subtitle=subtitle, anchor="start", fontSize=15, subtitleColor=GREY, offset=22
    )
    finished: Chart = (
        cast("Any", chart)  # the charts share these methods, but no public type has them
        .properties(title=words, background="white", padding=16)
        .configure(font="DejaVu Sans, Helvetica, Arial, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            domainColor=LIGHT, tickColor=LIGHT, gridColor="#EEEEEE", labelColor="#333333",
            titleColor="#333333", titleFontWeight="normal", titleFontSize=12, labelFontSize=11,
            labelFlush=False,
        )
    )  # fmt: skip
    return finished
