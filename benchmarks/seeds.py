"""A network alone under the papers' protocol, several seeds: mean and spread.

    python benchmarks/seeds.py FOLDER --log s3_beauty
    python benchmarks/seeds.py FOLDER --log ml_1m --device cuda --options '{"size": "medium"}'

FOLDER has s3_beauty.parquet and ml_1m.parquet. Leave last out, every item ranked, what was seen is
left out, ids and order only; the epoch is chosen by the validation purchases alone. Options are
those of the model's config; what they leave open follows from the data. Seconds are those of the
fit, validation included. Prints one JSON object, and a line for each seed to standard error.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

READING = {
    "s3_beauty": {"time": "order", "time_column": "position"},
    "ml_1m": {"time": "order"},
}
SHOWN = ("ndcg@10", "hit_rate@10", "loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--log", choices=READING, default="s3_beauty")
    parser.add_argument("--model", default="transformer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--options", type=json.loads, default={}, help="of the model, JSON")
    arguments = parser.parse_args()
    source = arguments.data / f"{arguments.log}.parquet"
    if not source.exists():
        sys.exit(f"{source} is not here; nothing was measured.")
    options = {**arguments.options, "device": arguments.device}
    found = []
    for seed in arguments.seeds:
        found.append(fitted(source, READING[arguments.log], arguments.model, seed, options))
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    print(json.dumps({
        "log": arguments.log, "model": arguments.model, "options": options, "seeds": found,
        **{part: {key: spread([one[part][key] for one in found]) for key in SHOWN}
           for part in ("validation", "test")},
    }))  # fmt: skip


def fitted(
    source: Path, reading: dict[str, str], model: str, seed: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Scores of one fit."""
    from nextbuy import Predictor, PredictorConfig
    from nextbuy.data.options import ReadOptions

    started = time.perf_counter()
    config = PredictorConfig.of(
        models=[model], split="leave-last-out", repeat="exclude", seed=seed,
        options={model: options},
    )  # fmt: skip
    predictor = Predictor.fit(str(source), config=config, options=ReadOptions(**reading))
    row = next(row for row in predictor.facts["leaderboard"] if row["model"] == model)
    parts = {part: {key: round(row[part][key], 5) for key in SHOWN}
             for part in ("validation", "test")}  # fmt: skip
    return {"seed": seed, "seconds": round(time.perf_counter() - started, 1), **parts}


def spread(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 5), "sd": round(deviation, 5)}


if __name__ == "__main__":
    main()
