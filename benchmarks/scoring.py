"""The best items of a large catalog: against the machine's bandwidth and against torch.topk.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --items 10000000 --queries 64

A single state has to read the whole table and writes next to nothing: bytes of the table a second
over the bandwidth of reading alone (dot product or sum of as many bytes, the faster), taken in turn
with it in the same process. A triad also writes, so it would be an easier measure. A batch of
states is set against `torch.topk(h @ W.T, k)`. Tables are of 32 and of 16 bits; the numbers are
drawn from a normal distribution, so that the best items lie anywhere. The check compares with a
stable sort on whole numbers, whose sums are exact and often equal. Each part runs in a process of
its own; peak memory is what is needed beyond states and table. Medians of `--repeats` runs after
one that does not count. Prints one JSON object and writes it to benchmarks/results/scoring.json.
`--profile` prints where the time of a batch goes instead.
"""

import argparse
import json
import sys
from typing import Any

import numpy as np

from machine import facts, in_its_own_process, median_seconds, peak_mib, resident_mib, write

CHECKED_STATES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--profile", action="store_true", help="of a batch of states")
    parser.add_argument("--no-file", action="store_true", help="print only")
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    if arguments.only or arguments.profile:
        import torch

        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
    if arguments.profile:
        profile(arguments)
        return
    if arguments.only:
        print(json.dumps(PARTS[arguments.only](arguments)))
        return
    names = ("items", "width", "queries", "k", "repeats")
    settings = {name: getattr(arguments, name) for name in names}
    found: dict[str, Any] = {"machine": facts(arguments.threads), "settings": settings}
    for part in PARTS:
        found[part] = in_its_own_process(
            __file__, [*sys.argv[1:], "--only", part], arguments.threads
        )
    for bits in ("32 bits", "16 bits"):
        ratio = found["batch by torch.topk"]["seconds"] / found[f"batch, {bits}"]["seconds"]
        found[f"torch.topk over batch, {bits}"] = round(ratio, 2)
    if arguments.no_file:
        print(json.dumps(found, indent=1))
    else:
        write("scoring", found)


def question(arguments: argparse.Namespace, num_states: int, dtype: str) -> tuple[Any, Any]:
    """States and table, drawn in pieces so that a table of 16 bits never was one of 32."""
    import torch

    table = torch.empty(arguments.items, arguments.width, dtype=getattr(torch, dtype))
    for piece in table.split(2**16):
        piece.copy_(torch.randn(piece.shape))
    return torch.randn(num_states, arguments.width), table


def single(arguments: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """In turn with reading as many bytes, so that all meet the same machine."""
    import torch

    from nextbuy.nn.top_k import top_items

    states, table = question(arguments, 1, dtype)
    read = torch.randn(table.nbytes // 4)
    works = {
        "ours": lambda: top_items(states, table, arguments.k),
        "dot": lambda: read.dot(read),
        "sum": read.sum,
    }
    if dtype == "float32":
        # NumPy's product is left out: its threads spin for a while and slow down what comes next.
        twice = states.repeat(2, 1)
        works |= {
            "product with a vector": lambda: table.mv(states[0]),
            "product with two rows": lambda: twice @ table.T,
        }
    rounds = [
        [median_seconds(work, 3) for work in works.values()] for _ in range(arguments.repeats)
    ]
    seconds = dict(zip(works, np.median(rounds, axis=0).tolist(), strict=True))
    reading = min(seconds["dot"], seconds["sum"])
    return {
        "seconds": round(seconds["ours"], 5),
        "gbs": round(table.nbytes / seconds["ours"] / 1e9, 2),
        "machine_gbs": round(table.nbytes / reading / 1e9, 2),
        "over_bandwidth": round(reading / seconds["ours"], 3),
        "all seconds": {name: round(value, 5) for name, value in seconds.items()},
    }


def batch(arguments: argparse.Namespace, dtype: str) -> dict[str, Any]:
    from nextbuy.nn.top_k import top_items

    states, table = question(arguments, arguments.queries, dtype)
    before = resident_mib()
    seconds = median_seconds(lambda: top_items(states, table, arguments.k), arguments.repeats)
    gflops = 2e-9 * arguments.queries * arguments.items * arguments.width / seconds
    return {
        "seconds": round(seconds, 4),
        "gflops": round(gflops, 1),
        "extra_peak_mib": round(max(0.0, peak_mib() - before)),
    }


def batch_by_torch(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    states, table = question(arguments, arguments.queries, "float32")
    before, repeats = resident_mib(), min(3, arguments.repeats)
    seconds = median_seconds(lambda: torch.topk(states @ table.T, arguments.k), repeats)
    return {"seconds": round(seconds, 4), "extra_peak_mib": round(peak_mib() - before)}


def check(arguments: argparse.Namespace) -> dict[str, Any]:
    """Alone and together, of 32 and of 16 bits, against a stable sort of all scores."""
    import torch

    from nextbuy.nn.top_k import top_items

    table = torch.randint(-8, 9, (arguments.items, arguments.width)).float()
    states = torch.randint(-8, 9, (CHECKED_STATES, arguments.width)).float()
    same = True
    for kept in (table, table.half()):
        together = top_items(states, kept, arguments.k)
        for number, state in enumerate(states):
            scores = (table @ state).numpy()
            items = np.argsort(-scores, kind="stable")[: arguments.k]
            alone = top_items(state[None], kept, arguments.k)
            for found_items, found_scores in ((together[0][number], together[1][number]),
                                              (alone[0][0], alone[1][0])):  # fmt: skip
                same &= bool((found_items.numpy() == items).all())
                same &= bool((found_scores.numpy() == scores[items]).all())
    return {"states": CHECKED_STATES, "same as a stable sort": same}


def profile(arguments: argparse.Namespace) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    from nextbuy.nn.top_k import top_items

    states, table = question(arguments, arguments.queries, "float32")
    top_items(states, table, arguments.k)
    with profiled(activities=[ProfilerActivity.CPU]) as found:
        top_items(states, table, arguments.k)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))


PARTS = {
    "single, 32 bits": lambda arguments: single(arguments, "float32"),
    "single, 16 bits": lambda arguments: single(arguments, "float16"),
    "batch, 32 bits": lambda arguments: batch(arguments, "float32"),
    "batch, 16 bits": lambda arguments: batch(arguments, "float16"),
    "batch by torch.topk": batch_by_torch,
    "check": check,
}


if __name__ == "__main__":
    main()
