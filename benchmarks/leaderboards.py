"""Every model and the blend on real logs and on a market whose limit is known.

    python benchmarks/leaderboards.py FOLDER             all of them, about an hour on 2 cores
    python benchmarks/leaderboards.py FOLDER --only online_retail_ii
    python benchmarks/leaderboards.py FOLDER --render    docs/results.md from what was measured

FOLDER has online_retail_ii.parquet, tafeng_nbr.parquet, s3_beauty.parquet and ml_1m.parquet; a log
that is missing is said and skipped. The Complete Journey comes from its package, the market is
made. Each log runs in a process of its own, with the defaults of `nextbuy train`, and writes
benchmarks/results/leaderboard-NAME.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forecasts

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KEPT = ("loss", "accuracy", "recall@10", "ndcg@10", "hit_rate@10", "mrr@10", "ece", "coverage@10",
        "repeat/recall@10", "explore/recall@10", "unknown_target_share", "num_cases",
        "ece_by_chance", "expected_accuracy", "expected_ece")  # fmt: skip


@dataclass(frozen=True)
class Log:
    """One table of the results."""

    title: str
    about: str
    source: str
    config: dict[str, Any] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    preset: str = "best"


SHORT = ("popularity", "personal-frequency", "lstm-rnn", "transformer")
ORDER = {"time": "order"}
POSITION = {"time": "order", "time_column": "position"}
LAST = {"split": "leave-last-out", "repeat": "exclude"}
LOGS = {
    "complete_journey_category": Log(
        "The Complete Journey, categories",
        "2,469 households of a grocer, 2017; which of some 300 categories is bought next.",
        "complete-journey",
        {"level": "category"},
    ),
    "complete_journey_item": Log(
        "The Complete Journey, items",
        "The same households; which of some 65,000 products is bought next.",
        "complete-journey",
        preset="balanced",
    ),
    "online_retail_ii": Log(
        "Online Retail II",
        "5,878 customers of a British gift shop, many of them resellers, 2009 to 2011.",
        "online_retail_ii.parquet",
    ),
    "tafeng": Log(
        "Ta-Feng",
        "13,858 customers of a Chinese supermarket over four months; only the order of their "
        "baskets is known, so the last basket of each is asked for.",
        "tafeng_nbr.parquet",
        {"split": "leave-last-out"},
        {**ORDER, "baskets": "column"},
    ),
    "market": Log(
        "world:market",
        "20,000 made-up users of 47 platforms, whose true probabilities are known. The transformer "
        "is told to take eight epochs at .003 (docs/experiments.md), not its four at .002.",
        "world:market",
        {"options": {"transformer": {"training": {"epochs": 8, "learning_rate": 3e-3}}}},
        preset="balanced",
    ),
    "s3_beauty": Log(
        "Amazon Beauty, leave last out",
        "22,363 users who reviewed 5 or more products; nobody reviews twice, so what was bought is "
        "not offered again.",
        "s3_beauty.parquet",
        LAST,
        POSITION,
    ),
    "ml_1m": Log(
        "MovieLens 1M, leave last out",
        "6,040 users who rated films, each once.",
        "ml_1m.parquet",
        LAST,
        ORDER,
        preset="balanced",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=LOGS)
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--device", default="cpu", help="of the networks")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        measure(arguments.only, arguments.data, arguments.device)
        return
    for name in () if arguments.render else [arguments.only] if arguments.only else LOGS:
        source = LOGS[name].source
        if source.endswith(".parquet") and not (arguments.data / source).exists():
            print(f"{arguments.data / source} is not here; {name} was not measured.")
            continue
        command = [sys.executable, __file__, str(arguments.data), "--only", name, "--inside"]
        subprocess.run([*command, "--device", arguments.device], check=True)
    render()


def measure(name: str, folder: Path, device: str) -> None:
    """Fit and score on one log; write the numbers."""
    from nextbuy import Predictor, PredictorConfig
    from nextbuy.cli.rendering import ProgressBar
    from nextbuy.data.options import ReadOptions

    log = LOGS[name]
    is_file = log.source.endswith(".parquet")
    started = time.perf_counter()
    config = {**log.config, "options": options_on(device, log)}
    with ProgressBar() as progress:
        predictor = Predictor.fit(
            str(folder / log.source) if is_file else log.source,
            config=PredictorConfig.of(preset=log.preset, **config),
            options=ReadOptions(**log.reading),
            progress=progress,
        )
    rows = []
    for row in predictor.facts["leaderboard"]:
        kept = {part: {k: row[part][k] for k in KEPT if k in row[part]}
                for part in ("validation", "test", "intervals")}  # fmt: skip
        rows.append({**row, **kept})
    facts = {
        "name": name,
        "protocol": predictor.facts["protocol"],
        "purchases": predictor.facts["rows"]["kept"],
        "items": len(predictor.catalog),
        "limit": predictor.facts["limit"],
        "blend": predictor.facts["blend"],
        "blend_in_words": predictor.blend_in_words,
        "leaderboard": rows,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": machine(device),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(facts, indent=1) + "\n"
    (RESULTS / f"leaderboard-{name}.json").write_text(text, encoding="utf-8")


def options_on(device: str, log: Log) -> dict[str, Any]:
    """Options of the log, with the device of the networks that its preset has."""
    told = log.config.get("options", {})
    networks = ("transformer", "lstm-rnn") if log.preset == "best" else ("transformer",)
    return {name: {**told.get(name, {}), "device": device} for name in networks}


def machine(device: str) -> str:
    """What it ran on, in words."""
    count = len(os.sched_getaffinity(0))
    cores = f"{count} core{'s' if count > 1 else ''}"
    if device == "cpu":
        return cores
    import torch

    return f"{cores}, networks on one {torch.cuda.get_device_name()}"


def render() -> None:
    """docs/results.md from the numbers that are there."""
    parts = [
        "# Results\n",
        "Made by `python benchmarks/leaderboards.py FOLDER`, on one or two cores of a server "
        "or, where a section says so, with the networks on a GPU, "
        "every model with its defaults (`--preset best`, and `balanced` where there is no row of "
        "`lstm-rnn`), one seed. "
        "Half-widths of 95 % bootstrap "
        "intervals over users stand behind ±. Choices (learning rates, calibration, weights of the "
        "blend) were made on validation; the test cases were scored once. One thing was not "
        "blind: how the blend is built (weights apart for own and new items, the bar of a list "
        "of ten, each purchase counting once) was decided while the test scores of Ta-Feng, "
        "Amazon Beauty, Online Retail II and the categories of the Complete Journey were looked "
        "at; its items and MovieLens were not, and of the market only 5,000 other users, while "
        "the repeat head learnt what is due. *loss* is in nats a purchase, each "
        "counting once; *accuracy* says how often the first offer was in the next basket; *ece* "
        "the calibration error of the first offer; *weight* the share of the blend. "
        "Seconds are upper bounds: other work shared the cores now and then, and where a section "
        "says one core, two logs were measured side by side.\n",
    ]
    measured = {
        name: json.loads(place.read_text(encoding="utf-8"))
        for name in LOGS
        if (place := RESULTS / f"leaderboard-{name}.json").exists()
    }
    parts.append(summary(measured))
    parts += [section(LOGS[name], facts) for name, facts in measured.items()]
    parts += forecasts.sections()
    (ROOT / "docs" / "results.md").write_text("\n".join(parts), encoding="utf-8")
    print("docs/results.md is written")


def summary(measured: dict[str, dict[str, Any]]) -> str:
    """ndcg@10 of the blend, of its best member and of two rules, for each log."""
    lines = [
        "## ndcg@10 in short\n",
        "The best member is the one that is best on the test itself, which nobody knows before: "
        "the blend has to keep up with a choice by hindsight.\n",
        "| log | " + " | ".join(SHORT) + " | best member by hindsight | blend |",
        "| --- |" + " --- |" * (len(SHORT) + 2),
    ]
    for name, facts in measured.items():
        rows = {row["model"]: row for row in facts["leaderboard"]}
        members = [row for row in rows.values() if row["model"] != "blend"]
        best = max(members, key=lambda row: row["test"]["ndcg@10"])
        shown = [f"{rows[m]['test']['ndcg@10']:.4f}" if m in rows else "" for m in SHORT]
        top = f"{best['test']['ndcg@10']:.4f} ({best['model']})"
        blend = f"**{value(rows['blend'], 'ndcg@10', '{:.4f}')}**"
        lines.append("| " + " | ".join([LOGS[name].title, *shown, top, blend]) + " |")
    return "\n".join(lines) + "\n"


def section(log: Log, facts: dict[str, Any]) -> str:
    """One log in Markdown."""
    rows = sorted(facts["leaderboard"], key=lambda row: row["test"]["loss"])
    protocol, cases = facts["protocol"], rows[0]["test"]["num_cases"]
    lines = [
        f"## {log.title}\n",
        f"{log.about} {facts['purchases']:,} purchases, {facts['items']:,} candidates, all ranked. "
        f"{protocol['description']} {cases:,} test cases. "
        f"{facts['seconds']:,.0f} s in all on {facts.get('machine', '2 cores')}, "
        f"{facts['peak_memory_mib']:,} MiB at the peak.\n",
        "| model | loss | accuracy | recall@10 | ndcg@10 | ece | weight | fit s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        name = f"**{row['model']}**" if row["model"] == "blend" else row["model"]
        weight = "" if row["weight"] is None else f"{100 * row['weight']:.0f} %"
        cells = [
            name,
            value(row, "loss", "{:.3f}"),
            value(row, "accuracy", "{:.2f}", 100) + " %",
            value(row, "recall@10", "{:.4f}"),
            value(row, "ndcg@10", "{:.4f}"),
            f"{row['test']['ece']:.3f}",
            weight,
            f"{row['fit_seconds']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if facts["limit"]:
        limit = facts["limit"]
        cells = ["limit", f"{limit['loss']:.3f}", f"{100 * limit['accuracy']:.2f} %",
                 f"{limit['recall@10']:.4f}", f"{limit['ndcg@10']:.4f}", "", "", ""]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
        lines.append(f"\n{way_to_the_limit(facts)}")
    (blend,) = (row["test"] for row in rows if row["model"] == "blend")
    lines.append(f"\nThe blend leans on: {facts['blend_in_words']}. {luck(blend)}".rstrip() + "\n")
    return "\n".join(lines)


def luck(test: dict[str, Any]) -> str:
    """What of the calibration error of the blend is luck; nothing if not measured."""
    if "ece_by_chance" not in test:
        return ""
    told = (
        f"The calibration error of the blend is {test['ece']:.4f}; if every probability were "
        f"right, {test['ece_by_chance']:.4f} would be expected of so many cases"
    )
    if "expected_ece" in test:
        told += f". Against the true probabilities, without luck, it is {test['expected_ece']:.4f}"
    return told + "."


def value(row: dict[str, Any], key: str, shape: str, scale: float = 1.0) -> str:
    """`0.123 ± 0.004`."""
    low, high = row["intervals"][key]
    shown = shape.format(scale * row["test"][key])
    return f"{shown} ± {shape.format(scale * (high - low) / 2)}"


def way_to_the_limit(facts: dict[str, Any]) -> str:
    """How much of the way from popularity to the limit each of two went."""
    tests = {row["model"]: row["test"] for row in facts["leaderboard"]}
    start, end = tests["popularity"], facts["limit"]

    def gone(name: str, key: str, of: str) -> str:
        way = (start[key] - tests[name][key]) / (start[key] - end[of])
        return f"{100 * way:.0f} %"

    return (
        ". ".join(
            f"From popularity to the limit {name} goes {gone(name, 'loss', 'loss')} of the way in "
            f"loss, {gone(name, 'expected_accuracy', 'accuracy')} in expected accuracy"
            for name in ("lstm-rnn", "transformer", "blend")
            if name in tests
        )
        + "."
    )


if __name__ == "__main__":
    main()
