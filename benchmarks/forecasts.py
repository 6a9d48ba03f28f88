"""How good forecasts of times are, on four logs, and how long a million of them take.

    python benchmarks/forecasts.py FOLDER                      four logs, some minutes on 2 cores
    python benchmarks/forecasts.py FOLDER --only market
    python benchmarks/forecasts.py FOLDER --million market     a million customers

FOLDER has online_retail_ii.parquet and cdnow.parquet; a log that is missing is said and skipped.
The Complete Journey comes from its package, the market is made. Members are fitted, weighed and
scored as `nextbuy train` does it: one moment for all customers, the automatic one, but for CDNOW,
whose papers forecast from 1997-10-01 on; there the 13 weeks before are the validation, as in
timing.py. Where the test period is shorter than 90 days, all is done
once more with a test of 91 days, for the scores of that horizon alone. Each log runs in a process
of its own, writes benchmarks/results/forecasts-NAME.json, and prints a table and the JSON;
docs/results.md is then made anew.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MILLION = 1_000_000
ASKED = "60 s on 2 cores"


@dataclass(frozen=True)
class Log:
    """Where a log is, and from when it is validated and tested; else at the automatic moments."""

    title: str
    source: str
    cutoffs: dict[str, datetime] = field(default_factory=dict)


LOGS = {
    "online_retail_ii": Log("Online Retail II", "online_retail_ii.parquet"),
    "complete_journey": Log("The Complete Journey", "complete-journey"),
    "cdnow": Log(
        "CDNOW",
        "cdnow.parquet",
        {
            "validation_start": datetime(1997, 7, 2, tzinfo=UTC),
            "test_start": datetime(1997, 10, 1, tzinfo=UTC),
        },
    ),
    "market": Log("world:market", "world:market"),
}
COLUMNS = ("log_likelihood", "log_likelihood_per_event", "quantile_loss", "coverage_80")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=LOGS)
    parser.add_argument("--million", choices=LOGS, help="whose customers, again and again")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        measure(arguments.only, arguments.data)
        return
    if arguments.million:
        million(arguments.million, arguments.data)
    for name in () if arguments.million else [arguments.only] if arguments.only else LOGS:
        if is_here(name, arguments.data):
            command = [sys.executable, __file__, str(arguments.data), "--only", name, "--inside"]
            subprocess.run(command, check=True)
    script = str(HERE / "leaderboards.py")
    subprocess.run([sys.executable, script, str(arguments.data), "--render"], check=True)


def is_here(name: str, folder: Path) -> bool:
    place = folder / LOGS[name].source
    if place.suffix == ".parquet" and not place.exists():
        print(f"{place} is not here; {name} was not measured.")
        return False
    return True


def load(name: str, folder: Path) -> tuple[Any, Any]:
    """A source and its encoded log."""
    from nextbuy.data.encoding import encode
    from nextbuy.data.sources import load_source

    log = LOGS[name]
    is_file = log.source.endswith(".parquet")
    source = load_source(str(folder / log.source) if is_file else log.source)
    return source, encode(source.purchases)


def fitted(encoded: Any, world: Any = None, **cutoffs: Any) -> Any:
    """Fitted, weighed and scored as in training, by a temporal split."""
    from nextbuy.predictor.budget import TimeBudget
    from nextbuy.predictor.config import PredictorConfig
    from nextbuy.predictor.timing_fit import fit_timing
    from nextbuy.progress import SilentProgress
    from nextbuy.splitting.temporal import split_by_time

    split = split_by_time(encoded.catalog, encoded.histories, **cutoffs)
    budget = TimeBudget.of(None, time.monotonic())
    config = PredictorConfig(models=("popularity",))
    return fit_timing(
        encoded, split, config, budget, SilentProgress(), world=world,
        ask=lambda _: None,  # only audiences ask the blend about validation
    )  # fmt: skip


def measure(name: str, folder: Path) -> None:
    """One log; write and print the numbers."""
    source, encoded = load(name, folder)
    facts = fitted(encoded, source.world, **LOGS[name].cutoffs).facts
    found = {"name": name, "date": datetime.now(UTC).date().isoformat(), "timing": facts}
    if facts["horizons_left_out"]:
        found["long_test"] = fitted(encoded, source.world, test_days=91).facts
    found["processor_seconds"] = round(time.process_time(), 1)
    found["peak_memory_mib"] = round(machine.peak_mib())
    print(section(found))
    machine.write(f"forecasts-{name}", found)


def million(name: str, folder: Path) -> None:
    """A million customers with the histories of a log, each as often as it takes."""
    import numpy as np

    if not is_here(name, folder):
        return
    _, encoded = load(name, folder)
    forecaster = fitted(encoded, **LOGS[name].cutoffs).forecaster
    histories = encoded.histories
    many = histories.take(np.arange(MILLION) % len(histories))
    end = int(histories.times.max()) + 1
    forecaster.table(many.take(np.arange(100)), end)  # what is loaded once
    before = machine.resident_mib()
    started, worked = time.perf_counter(), time.process_time()
    table = forecaster.table(many, end)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    found = machine.facts(threads=2) | {
        "log": name, "customers": table.height, "purchases": many.num_purchases,
        "columns": table.columns,
        "weights": forecaster.blend.weights, "seconds": round(seconds, 1),
        "processor_seconds": round(worked, 1),
        "asked": ASKED, "resident_before_mib": round(before),
        "peak_memory_mib": round(machine.peak_mib()),
    }  # fmt: skip
    machine.write(f"forecasts-million-{name}", found)


def sections() -> list[str]:
    """What is known of all logs, in Markdown."""
    parts = [
        "# Forecasts of times\n",
        "Made by `python benchmarks/forecasts.py FOLDER`. When customers who bought before the "
        "test period come back: *log-likelihood* is that of each wait, in nats a day, of one that "
        "had not ended by the end of the test the log-probability of that; *an event* divides the "
        "same sum by the waits that did end. *Quantile loss* is the mean pinball loss at 10, 50 "
        "and 90 % of the wait up to the end of the test, in days. *Inside 80 %* should be 80 %, "
        "and was asked to be within 3 points. *Brier* and *calibration error* are those of the "
        "probability to buy within 7, 30 and 90 days; 90 days marked † are of a second run with a "
        "test of 91 days. *blend minus* is the log-likelihood a wait of the blend minus that of "
        "the member, with its 95 % bootstrap interval over customers. Weights are chosen on "
        "validation. On `world:market` the limit is what the true distribution scores on the same "
        "waits.\n",
    ]
    for name in LOGS:
        place = RESULTS / f"forecasts-{name}.json"
        if place.exists():
            parts.append(section(json.loads(place.read_text(encoding="utf-8"))))
    speed = [
        json.loads(place.read_text(encoding="utf-8"))
        for place in sorted(RESULTS.glob("forecasts-million-*.json"))
    ]
    if speed:
        parts.append(speed_section(speed))
    return parts if len(parts) > 2 else []


def section(found: dict[str, Any]) -> str:
    """One log in Markdown."""
    timing, log = found["timing"], LOGS[found["name"]]
    lines = [
        f"## {log.title}, when\n",
        f"{timing['num_users']:,} customers, of whom {timing['num_events']:,} came back in the "
        f"{timing['test_days']:.0f} days from {timing['test_start'][:10]} on. "
        f"{found['processor_seconds']:,.0f} s of one processor in all.\n",
        "| | weight | log-likelihood | an event | quantile loss | inside 80 % | Brier 7/30/90 d "
        "| calibration error 7/30/90 d | blend minus |",
        "| --- |" + " --- |" * 8,
    ]
    rows = dict(timing["scores"])
    if timing.get("limit"):
        rows["limit"] = timing["limit"]
    long_test = found.get("long_test") or {"scores": {}}
    longer = long_test["scores"] | {"limit": long_test.get("limit") or {}}
    order = sorted(rows, key=lambda name: -(rows[name]["log_likelihood"] or -1e9))
    lines += [row(name, rows[name], longer.get(name, {}), timing) for name in order]
    if timing["left_out"]:
        lines.append(
            "\n" + " ".join(f"{n} was left out: {w}" for n, w in timing["left_out"].items())
        )
    return "\n".join(lines) + "\n"


def row(name: str, scores: dict[str, Any], longer: dict[str, Any], timing: dict[str, Any]) -> str:
    """One member, the blend, or the limit."""
    weight = timing["weights"].get(name)
    minus = timing["blend_minus"].get(name)
    shown = [number(scores.get(key), "{:.4f}") for key in COLUMNS[:2]]
    cells = [
        f"**{name}**" if name == "blend" else name,
        "" if weight is None else f"{100 * weight:.0f} %",
        *shown,
        number(scores.get("quantile_loss"), "{:.3f}"),
        number(scores.get("coverage_80"), "{:.1f} %", 100),
        " / ".join(by_horizon("brier", scores, longer)),
        " / ".join(by_horizon("ece", scores, longer)),
        "" if minus is None
        else f"{minus['difference']:+.4f} ({minus['low']:+.4f} to {minus['high']:+.4f})",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def by_horizon(score: str, scores: dict[str, Any], longer: dict[str, Any]) -> list[str]:
    """Of 7, 30 and 90 days; what the test is too short for comes from the longer one, marked."""
    cells = []
    for days in (7, 30, 90):
        key = f"{score}_{days}d"
        if scores.get(key) is not None:
            cells.append(f"{scores[key]:.3f}")
        else:
            cells.append(f"{longer[key]:.3f}†" if longer.get(key) is not None else "–")
    return cells


def number(value: float | None, shape: str, scale: float = 1.0) -> str:
    return "–" if value is None else shape.format(scale * value)


def speed_section(found: list[dict[str, Any]]) -> str:
    """A million customers, in Markdown."""
    lines = [
        "## A million forecasts\n",
        f"Asked: under a minute on two cores ({found[0]['cpu']}), with bounded memory. The "
        "customers are those of a log, again and again; memory is that of the process before and "
        "at the peak; *load* is how much other work waited for the same cores.\n",
        "| customers of | purchases | blend | seconds | processor seconds | load "
        "| memory before | at the peak |",
        "| --- |" + " --- |" * 7,
    ]
    for each in found:
        shares = ", ".join(f"{100 * w:.0f} % {n}" for n, w in each["weights"].items())
        lines.append(
            f"| {LOGS[each['log']].title} | {each['purchases']:,} | {shares} | {each['seconds']} | "
            f"{each['processor_seconds']} | {each['load_before']} | "
            f"{each['resident_before_mib']:,} MiB | {each['peak_memory_mib']:,} MiB |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
