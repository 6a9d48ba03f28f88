"""A small training run as a program, to be killed and started again by tests and benchmarks.

    python small_run.py FOLDER ENGINE [--epochs N] [--users N] [...]

Dropout, shuffling inside baskets and the sampled loss are on, so that every stream of randomness
takes part. Ends by printing the SHA-256 of each file of the last checkpoint and of the log.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from nextbuy.data.histories import Histories
from nextbuy.nn.recurrent import LstmRnnNetwork, LstmRnnShape, Weights, initial_weights
from nextbuy.training.checkpoint import run_lock
from nextbuy.training.engine import TrainingConfig, create_engine
from nextbuy.training.interruption import Interrupted
from nextbuy.training.loop import train

V = 12


def small_histories(users: int) -> Histories:
    rng = np.random.default_rng(7)
    lengths = rng.integers(2, 15, users)
    rows = [rng.integers(1, V + 1, n).tolist() for n in lengths]
    baskets = [np.sort(rng.integers(0, n, n)).tolist() for n in lengths]
    return Histories.from_lists(rows, baskets=baskets)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("engine", choices=["torch", "tensorflow"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--checkpoint-seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    histories = small_histories(arguments.users)
    shape = LstmRnnShape(
        num_items=V, embedding_size=8, lstm_size=16, rnn_size=16, dropout=0.2, marks_baskets=True
    )
    config = TrainingConfig(
        epochs=arguments.epochs,
        tokens=128,
        longest_window=10,
        sample_size=6,
        learning_rate=arguments.learning_rate,
        checkpoint_seconds=arguments.checkpoint_seconds,
    )
    counts = np.bincount(histories.items, minlength=V + 1)[1:]
    weights = initial_weights(shape, seed=arguments.seed, item_counts=counts, longest=10)
    engine = create_engine(
        arguments.engine, shape, config,
        weights=weights, item_counts=counts, seed=arguments.seed,
    )  # fmt: skip
    network = LstmRnnNetwork(shape)

    def validate(weights: Weights) -> float:
        network.load_weights(weights)
        return float(sum(np.abs(w).mean() for w in weights.values()))

    identity = {"seed": arguments.seed, "learning_rate": arguments.learning_rate}
    try:
        with run_lock(arguments.folder):
            train(
                engine, histories, validate, config,
                seed=arguments.seed, run_folder=arguments.folder, identity=identity,
            )  # fmt: skip
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    print(json.dumps(final_hashes(arguments.folder)))


def final_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a run ends with."""
    last = sorted((folder / "checkpoints").iterdir())[-1]
    files = [*sorted(p for p in last.iterdir() if p.is_file()), folder / "log.jsonl"]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


if __name__ == "__main__":
    sys.exit(main())
