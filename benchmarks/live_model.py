"""What the live model answers in a second: one process, many callers that ask one question each.

    python benchmarks/live_model.py
    python benchmarks/live_model.py --items 20000 --seconds 3 --no-file

A bundle with a transformer (width 64, two blocks, a repeat head) over `--items` items is made,
saved and loaded. Its weights are drawn, not trained: that takes seconds instead of hours, and how
long an answer takes does not depend on it. `--callers` callers ask for the best `--k` items,
each again as soon as it has its answer: about raw histories of `--history` purchases that
come with the question; about users of the bundle, another each time; and about 500 of them again
and again. Questions a second are told by the clock and by
the seconds of the processor, for a machine that others use too. Prints one JSON object and writes
it to benchmarks/results/live_model.json.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from machine import facts, write

DAY = 86_400_000_000
START = 1_700_000_000_000_000
NOW = START + 400 * DAY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--spread", action="store_true", help="histories of 1 to --history")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", type=Path, help="write cProfile's of the worker here")
    parser.add_argument("--no-file", action="store_true", help="print only")
    arguments = parser.parse_args()
    names = ("items", "users", "history", "spread", "callers", "k", "seconds")
    settings = {name: getattr(arguments, name) for name in names}
    found = {"machine": facts(arguments.threads), "settings": settings} | measured(arguments)
    if arguments.no_file:
        print(json.dumps(found, indent=1))
    else:
        write("live_model", found)


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from nextbuy.service.live.bundles import LiveBundles
    from nextbuy.service.live.protocol import Question

    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        make_bundle(Path(folder), arguments, rng)
        started = time.perf_counter()
        live = LiveBundles.open(Path(folder), NoStore(), clock=lambda: NOW)
        loading = time.perf_counter() - started
    raw = raw_histories(arguments, rng)

    def about_a_user(number: int) -> Question:
        user = (number * 7919) % arguments.users
        return Question(user_id=f"u{user}", k=arguments.k)

    def about_few_users(number: int) -> Question:
        return about_a_user(number % 500)

    def about_a_history(number: int) -> Question:
        return Question(history=raw[number % len(raw)], k=arguments.k)

    results: dict[str, Any] = {"seconds to load": round(loading, 2)}
    ways = {
        "raw histories": about_a_history,
        "users": about_a_user,
        "users, asked again": about_few_users,
    }
    for name, question in ways.items():
        asyncio.run(load(live, question, arguments, seconds=0.5, first=arguments.users // 2))
        if arguments.profile:
            start_profile(live)
        results[name] = asyncio.run(load(live, question, arguments, seconds=arguments.seconds))
        if arguments.profile:
            stop_profile(live, arguments.profile.with_suffix(f".{name[:5]}{len(name)}.txt"))
    live.close()
    return results


async def load(
    live: Any,
    question: Callable[[int], Any],
    arguments: argparse.Namespace,
    *,
    seconds: float,
    first: int = 0,
) -> dict[str, float]:
    taken: list[float] = []
    asked = first
    end = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal asked
        while time.perf_counter() < end:
            asked += 1
            started = time.perf_counter()
            await live.predict([question(asked)])
            taken.append(time.perf_counter() - started)

    clock, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(arguments.callers)))
    by_clock, by_processor = time.perf_counter() - clock, time.process_time() - processor
    p50, p90, p99 = np.percentile(np.array(taken) * 1e3, [50, 90, 99])
    return {
        "questions a second": round(len(taken) / by_clock, 1),
        "questions a processor second": round(len(taken) / by_processor, 1),
        "p50 ms": round(p50, 2), "p90 ms": round(p90, 2), "p99 ms": round(p99, 2),
    }  # fmt: skip


class NoStore:
    """Nobody bought anything since the bundle."""

    def purchases_of(self, _: Sequence[str]) -> Mapping[str, Any]:
        return {}

    def identity(self) -> str:
        return "memory"

    def last_sequence(self) -> int:
        return 0

    def forgotten(self) -> frozenset[bytes]:
        return frozenset()


def lengths_of(arguments: argparse.Namespace, count: int, rng: np.random.Generator) -> Any:
    if arguments.spread:
        return rng.integers(1, arguments.history + 1, count)
    return np.full(count, arguments.history)


def drawn_items(num_items: int, count: int, rng: np.random.Generator) -> Any:
    """Item indices, the first ones often, as hot items are."""
    return np.minimum((num_items + 1) ** rng.random(count), num_items).astype(np.int32)


def save_bundle_of(folder: Path, *, num_items: int, size: str) -> None:
    """The bundle of this benchmark with another catalog and width, for others to serve."""
    arguments = argparse.Namespace(items=num_items, users=20_000, history=50, spread=False)
    make_bundle(folder, arguments, np.random.default_rng(0), size=size)


def make_bundle(
    folder: Path, arguments: argparse.Namespace, rng: np.random.Generator, *, size: str = "small"
) -> None:
    """Save a bundle whose transformer has drawn weights; histories repeat some items."""
    from nextbuy.bundle import Bundle, save_bundle
    from nextbuy.data.histories import Histories, offsets_of
    from nextbuy.predictor.config import PredictorConfig

    lengths = lengths_of(arguments, arguments.users, rng)
    total = int(lengths.sum())
    items = drawn_items(arguments.items, total, rng)
    again = rng.random(total) < 0.3
    back = np.maximum(np.arange(total) - rng.integers(1, 8, total), 0)
    items[again] = items[back[again]]
    offsets = offsets_of(lengths)
    place = np.arange(total) - np.repeat(offsets[:-1], lengths)
    histories = Histories(
        user_ids=pl.Series("user_id", [f"u{n}" for n in range(arguments.users)]),
        items=items,
        times=START + place * 7 * DAY + rng.integers(0, DAY, total),
        baskets=place.astype(np.int32),
        offsets=offsets,
    )
    catalog = make_catalog(arguments.items, rng)
    model = make_transformer(histories, catalog, size)
    stored = {
        "config": PredictorConfig(models=("transformer",)).model_dump(mode="json"),
        "leaderboard": [{"model": "transformer", "validation": {"loss": 1.0}}],
        "basket_kind": "timestamp", "time_kind": "dates", "read_options": {},
    }  # fmt: skip
    save_bundle(
        folder,
        Bundle(catalog=catalog, histories=histories, models={"transformer": model}, facts=stored),
    )


def make_catalog(num_items: int, rng: np.random.Generator) -> Any:
    from nextbuy.data.catalog import Catalog

    numbers = np.arange(num_items)
    return Catalog(
        table=pl.DataFrame(
            {
                "item_id": [f"item-{n}" for n in numbers],
                "platform": [f"platform-{n % 8}" for n in numbers],
                "category": [f"category-{n}" for n in rng.integers(0, 200, num_items)],
                "price": rng.uniform(1, 50, num_items),
                "num_purchases": num_items - numbers,
            }
        )
    )


def make_transformer(histories: Any, catalog: Any, size: str) -> Any:
    """As `fit` makes it, before the first step."""
    from nextbuy.models.items import item_codes, item_groups
    from nextbuy.models.transformer import Transformer, TransformerConfig
    from nextbuy.training.torch_engine import network_of

    model = Transformer(TransformerConfig.model_validate({"size": size}))
    model.config = model.decided(model.config, histories, catalog)
    model._shape = model.shape_of(model.config, histories, catalog)
    counts = np.bincount(histories.items, minlength=len(catalog) + 1)[1:]
    network = network_of(model._shape, item_codes(catalog))
    network.load_weights(model.first_weights(model._shape, seed=0, item_counts=counts, longest=50))
    model._network, model._groups = network, item_groups(catalog)
    return model


def raw_histories(arguments: argparse.Namespace, rng: np.random.Generator) -> list[Any]:
    from nextbuy.service.purchases import LivePurchase

    found = []
    for length in lengths_of(arguments, 2_000, rng):
        items = drawn_items(arguments.items, int(length), rng) - 1
        found.append(
            tuple(
                LivePurchase(
                    user_id="", item_id=f"item-{item}", platform=f"platform-{item % 8}",
                    timestamp=START + place * 7 * DAY,
                )
                for place, item in enumerate(items.tolist())
            )
        )  # fmt: skip
    return found


def start_profile(live: Any) -> None:
    """In the thread of the worker."""
    import cProfile

    live.profile = cProfile.Profile()
    live._batcher._worker.submit(live.profile.enable).result()


def stop_profile(live: Any, path: Path) -> None:
    import pstats

    live._batcher._worker.submit(live.profile.disable).result()
    with path.open("w") as file:
        pstats.Stats(live.profile, stream=file).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
