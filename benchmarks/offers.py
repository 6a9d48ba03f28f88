"""What `predict` takes in large catalogs: whole rows of probabilities, or a search for the best.

    python benchmarks/offers.py
    python benchmarks/offers.py --items 20000 --users 2000 --k 10

Offers of a transformer with a repeat head, its weights as they are drawn, for users with 20
purchases. For each number of items, users a second and the memory that is needed beyond network and
catalog, each way in a process of its own: medians of `--repeats` runs after one that does not
count. Seconds of the processor stand beside those of the clock, for a machine that others use too.
How far the two ways differ is told of the first run: offers that differ, and the largest difference
of probabilities. Prints one JSON object and writes it to benchmarks/results/offers.json.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from machine import facts, in_its_own_process, peak_mib, resident_mib, write

PURCHASES = 20
WAYS = {"rows": sys.maxsize, "search": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[20_000, 100_000, 1_000_000])
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-file", action="store_true", help="print only")
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(offers(arguments)))
        return
    names = ("users", "width", "k", "repeats")
    settings = {name: getattr(arguments, name) for name in names}
    found: dict[str, Any] = {"machine": facts(arguments.threads), "settings": settings}
    for num_items in arguments.items:
        found[f"{num_items} items"] = both_ways(arguments, num_items)
    if arguments.no_file:
        print(json.dumps(found, indent=1))
    else:
        write("offers", found)


def both_ways(arguments: argparse.Namespace, num_items: int) -> dict[str, Any]:
    told = ("users", "width", "k", "threads", "repeats")
    same = [word for name in told for word in (f"--{name}", str(getattr(arguments, name)))]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            out = str(Path(folder) / f"{way}.parquet")
            words = [*same, "--items", str(num_items), "--only", way, "--out", out]
            found[way] = in_its_own_process(__file__, words, arguments.threads)
        rows, searched = (pl.read_parquet(Path(folder) / f"{way}.parquet") for way in WAYS)
    differs = (rows["item_id"] != searched["item_id"]).sum()
    gap = (rows["probability"] - searched["probability"]).abs().max()
    return found | {"offers that differ": differs, "largest difference of probabilities": gap}


def offers(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from nextbuy.data.histories import Histories
    from nextbuy.predictor import answers
    from nextbuy.splitting.repeat import RepeatPolicy
    from nextbuy.testing.contract import small_catalog

    torch.set_num_threads(arguments.threads)
    num_items = arguments.items[0]
    rng = np.random.default_rng(0)
    bought = rng.integers(1, num_items + 1, (arguments.users, PURCHASES)).tolist()
    histories, catalog = Histories.from_lists(bought), small_catalog(num_items)
    model = transformer(num_items, arguments.width)
    answers._LARGE = WAYS[arguments.only]
    nobody_said = answers.Moment(told=None, assumed=None, cadence=None)

    def work() -> pl.DataFrame:
        return answers.best_offers(
            model, histories, catalog, nobody_said, k=arguments.k, policy=RepeatPolicy.ALLOW,
            rules=None,
        )  # fmt: skip

    before = resident_mib()
    work().write_parquet(arguments.out)
    by_clock, by_processor = median_times(work, arguments.repeats)
    return {
        "seconds": round(by_clock, 3),
        "processor_seconds": round(by_processor, 3),
        "users_a_second": round(arguments.users / by_clock, 1),
        "extra_peak_mib": round(peak_mib() - before),
    }


def transformer(num_items: int, width: int) -> Any:
    """A transformer as a bundle would bring it, its weights drawn."""
    import torch

    from nextbuy.models.transformer import Transformer
    from nextbuy.nn.transformer import TransformerNetwork, TransformerShape

    torch.manual_seed(0)
    model = Transformer()
    model._shape = TransformerShape(num_items=num_items, width=width, repeats=True)
    model._network = TransformerNetwork(model._shape)
    return model


def median_times(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    by_clock, by_processor = [], []
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        work()
        by_clock.append(time.perf_counter() - clock)
        by_processor.append(time.process_time() - processor)
    return statistics.median(by_clock), statistics.median(by_processor)


if __name__ == "__main__":
    main()
