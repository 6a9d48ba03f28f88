"""What training and reading cost on this machine, in ratios that travel to other machines.

    make bench                          everything, about five minutes; writes benchmarks/results/
    python benchmarks/run.py --only train-torch --json

First the machine's own limits are measured: single-precision matrix product (GFLOP/s) and memory
bandwidth (triad, GB/s), both with all cores. Then each measurement runs in a process of its own, so
that its peak memory is its own. Every figure is the median of several repeats.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
USERS, REPEATS, BATCH = 20_000, 5, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(MEASUREMENTS), help="one measurement")
    parser.add_argument("--json", action="store_true", help="print one JSON object, write no file")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the reading benchmark")
    arguments = parser.parse_args()
    if arguments.only:
        facts = MEASUREMENTS[arguments.only](arguments)
        facts["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(facts))
        return
    results: dict[str, Any] = {}
    for name in MEASUREMENTS:
        say(f"{name} ...")
        command = [sys.executable, __file__, "--only", name, "--rows", str(arguments.rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
        results[name] = json.loads(done.stdout.splitlines()[-1])
        say("   " + ", ".join(f"{k} {v}" for k, v in results[name].items()))
    machine = results.pop("machine")
    add_ratios(results, machine)
    report = {"date": datetime.now(UTC).date().isoformat(), "machine": machine, "results": results}
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    RESULTS.mkdir(exist_ok=True)
    name = (
        f"{report['date']}-{machine['cpu'].replace(' ', '-').lower()}-{machine['cores']}-cores.json"
    )
    (RESULTS / name).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))
    say(f"written to benchmarks/results/{name}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def add_ratios(results: dict[str, Any], machine: dict[str, Any]) -> None:
    """Useful FLOP/s over sgemm, and speed over the plain Keras way."""
    plain = results["train-plain-keras"]["targets_per_second"]
    for name in ("train-torch", "train-tensorflow"):
        facts = results[name]
        facts["useful_flops_over_sgemm"] = round(facts["gflops"] / machine["sgemm_gflops"], 3)
        facts["targets_over_plain_keras"] = round(facts["targets_per_second"] / plain, 1)


def measure_machine(_: argparse.Namespace) -> dict[str, Any]:
    import torch

    size = 2048
    a, b = torch.rand(size, size), torch.rand(size, size)
    product = median_seconds(lambda: a @ b, 10)
    n = 50_000_000
    x, y, z = torch.rand(n), torch.rand(n), torch.empty(n)
    triad = median_seconds(lambda: torch.add(x, y, alpha=3.0, out=z), 10)
    return {
        "cpu": cpu_name(),
        "cores": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sgemm_gflops": round(2 * size**3 / product / 1e9, 1),
        "triad_gbs": round(3 * 4 * n / triad / 1e9, 1),
    }


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def uniform_histories() -> Any:
    from nextbuy.data.encoding import encode
    from nextbuy.data.sources import load_source

    return encode(load_source("world:uniform", users=USERS).purchases)


def measure_engine(engine_name: str) -> dict[str, Any]:
    """Targets a second of whole epochs, batching included, after a first epoch to warm up."""
    from nextbuy.nn.recurrent import LstmRnnShape, initial_weights
    from nextbuy.training.batches import cut_into_windows, epoch_batches
    from nextbuy.training.engine import TrainingConfig, create_engine

    encoded = uniform_histories()
    histories, config = encoded.histories, TrainingConfig()
    shape = LstmRnnShape(num_items=len(encoded.catalog))
    counts = np.bincount(histories.items, minlength=len(encoded.catalog) + 1)[1:]
    weights = initial_weights(shape, seed=0, item_counts=counts, longest=47)
    engine = create_engine(engine_name, shape, config, weights=weights, item_counts=counts, seed=0)
    windows = cut_into_windows(histories, config.longest_window)
    seconds = []
    for epoch in range(REPEATS + 1):
        start = time.perf_counter()
        batches = epoch_batches(histories, windows, tokens=config.tokens, seed=0, epoch=epoch)
        for step, batch in enumerate(batches):
            engine.step(batch, learning_rate=1e-3, step=step)
        seconds.append(time.perf_counter() - start)
    rate = histories.num_purchases / statistics.median(seconds[1:])
    return {
        "targets_per_second": round(rate),
        "gflops": round(rate * flops_per_target(shape) / 1e9, 2),
        "epoch_seconds": round(statistics.median(seconds[1:]), 2),
    }


def flops_per_target(shape: Any) -> float:
    """Useful operations of one training position: forward, and twice that backward."""
    E, H, R, V = shape.embedding_size, shape.lstm_size, shape.rnn_size, shape.num_items
    forward = 2 * 4 * H * (E + H) + 2 * R * (H + R) + 2 * V * R
    return 3.0 * forward


def measure_plain_keras(_: argparse.Namespace) -> dict[str, Any]:
    """The described attempt: sequences padded to 46, only the last purchase is a target."""
    from nextbuy.training.tensorflow_engine import import_tensorflow

    _, keras = import_tensorflow()
    encoded = uniform_histories()
    histories = encoded.histories
    ends, lengths = histories.offsets[1:], histories.lengths
    padded = np.zeros((len(histories), 46), np.int64)
    for user in range(len(histories)):
        before = histories.items[histories.offsets[user] : ends[user] - 1]
        padded[user, 46 - len(before) :] = before
    last = histories.items[ends - 1] - 1
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Embedding(len(encoded.catalog) + 1, 64),
            layers.LSTM(128, return_sequences=True),
            layers.SimpleRNN(128),
            layers.Dense(len(encoded.catalog), activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    assert lengths.min() >= 1
    seconds = []
    for _repeat in range(REPEATS - 1):
        start = time.perf_counter()
        model.fit(padded, last, batch_size=BATCH, epochs=1, verbose=0)
        seconds.append(time.perf_counter() - start)
    rate = len(padded) / statistics.median(seconds[1:])
    return {
        "targets_per_second": round(rate),
        "epoch_seconds": round(statistics.median(seconds[1:]), 2),
    }


def measure_reading(arguments: argparse.Namespace) -> dict[str, Any]:
    import tempfile

    script = Path(__file__).with_name("reading.py")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), "--rows", str(arguments.rows), "--folder", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "machine": measure_machine,
    "train-torch": lambda _: measure_engine("torch"),
    "train-tensorflow": lambda _: measure_engine("tensorflow"),
    "train-plain-keras": measure_plain_keras,
    "reading": measure_reading,
}

if __name__ == "__main__":
    main()
