"""One rank of a small training, as a program, to be killed, stopped and started by tests.

    python small_team.py RANK SIZE HOST PORT FOLDER [--timeout S] [--rows N] [--slow S] [...]

Dropout, shuffling inside baskets and the sampled loss are on. Rank 0 listens, keeps the checkpoints
in FOLDER and ends by printing the SHA-256 of each file of the last one and of the log. A refusal is
one line on standard error and exit code 1.
"""

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch._dynamo  # noqa: F401  (the first optimizer step does it, for seconds; forks have it)

from nextbuy.errors import NextbuyError
from nextbuy.nn.recurrent import LstmRnnShape, Weights, initial_weights
from nextbuy.training.checkpoint import run_lock
from nextbuy.training.distributed import JoinConfig, join, listen
from nextbuy.training.engine import TrainingConfig, create_engine
from nextbuy.training.loop import train
from nextbuy.training.team import Alone
from tests.training.small_run import V, final_hashes, small_histories


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rank", type=int)
    parser.add_argument("size", type=int)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--own-host")
    parser.add_argument("--timeout", type=float, default=20.0)
    parser.add_argument("--join", type=float, default=20.0)
    parser.add_argument("--code", default="same")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each step")
    arguments = parser.parse_args(words)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        run(arguments)
    except NextbuyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # as an actor that is killed: threads of torch may still wait for others
    sys.stdout.flush()
    os._exit(0)


def forked(words: list[str], failpoint: str, output: Path) -> None:
    """The same in a process that was forked from one that has everything imported."""
    os.environ["NEXTBUY_FAILPOINT"] = failpoint
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    main(words)


def run(arguments: argparse.Namespace) -> None:
    rank, size, seed = arguments.rank, arguments.size, arguments.seed
    team = Alone()
    if size > 1:
        listening = listen(arguments.host, arguments.port) if rank == 0 else None
        team = join(
            arguments.host, arguments.port, rank,
            JoinConfig(
                size=size, join_seconds=arguments.join, timeout_seconds=arguments.timeout,
                must_agree={"code": arguments.code},
            ),
            listening=listening, own_host=arguments.own_host,
        )  # fmt: skip
    histories = small_histories(80)
    shape = LstmRnnShape(
        num_items=V, embedding_size=8, lstm_size=16, rnn_size=16, dropout=0.2, marks_baskets=True
    )
    config = TrainingConfig(
        epochs=arguments.epochs, tokens=128, longest_window=10, sample_size=6,
        learning_rate=0.01, checkpoint_seconds=0.0,
    )  # fmt: skip
    counts = np.bincount(histories.items, minlength=V + 1)[1:]
    weights = initial_weights(shape, seed=seed, item_counts=counts, longest=10)
    engine = create_engine(
        "torch", shape, config, weights=weights, item_counts=counts, seed=seed, team=team
    )
    prepared = engine.prepare

    def paused(batch, step):
        time.sleep(arguments.pause)
        return prepared(batch, step)

    engine.prepare = paused

    def validate(weights: Weights) -> float:
        return float(sum(np.abs(w).mean() for w in weights.values()))

    folder = arguments.folder if rank == 0 else None
    what = {
        "engine": engine, "histories": histories, "validate": validate, "config": config,
        "seed": seed, "run_folder": folder, "identity": {"seed": seed}, "team": team,
    }  # fmt: skip
    if folder is None:
        train(**what)
        return
    with run_lock(folder):
        train(**what)
    seconds = getattr(team, "seconds", [])
    print(json.dumps({"hashes": final_hashes(folder), "seconds": seconds}))


if __name__ == "__main__":
    main()
