"""A training step of the transformer over what the machine multiplies: useful FLOP/s over sgemm.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --sizes small --losses sampled --profile

The question is that of Amazon Beauty (benchmarks/peers.py): 12,101 items, windows of at most 50,
about 1,024 positions a batch, dropout .5, a filter of 5 taps, 1,024 shared samples or the whole
catalog. Histories are drawn by length and item frequency as they are in that log, so no data are
needed. Useful operations of a step, by formula; of padding nothing counts:

    blocks      N * blocks * 2 D^2 (4 + 2 e), for attention's four products and two of width e D;
                with gates (4 + 3 e + 2)
    attention   blocks * sum over rows of 2 D l (l + 1), scores and values of a causal row of l
    loss        M * 2 D V for the whole catalog, M * 2 D S + N * 2 D for S distinct samples

times 3, for the backward pass multiplies twice; N targets (and positions), M states that are asked,
D width, V items. Norms, dropout, filter, embedding and optimizer count as nothing, and so does what
is computed twice. Sgemm is that of 2,048 rows and columns, measured before and after in the same
process; its median counts. Steps are timed alone, and with making their batches. Medians of
`--repeats` passes over the same batches after one that does not count. Prints one JSON object and
writes it to benchmarks/results/training_step.json.
"""

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np

from machine import facts, in_its_own_process, peak_mib, sgemm_gflops, write

NUM_ITEMS, NUM_USERS, LONGEST = 12_101, 22_363, 50
AT_LEAST = {3: 1.0, 4: 0.68, 5: 0.491, 6: 0.371, 8: 0.229, 10: 0.159, 15: 0.077, 20: 0.046,
            30: 0.02, 50: 0.006, 202: 4e-5}  # fmt: skip
"""Share of users that have so many purchases or more, the last two left out."""
SIZES = ("small", "medium", "large")
LOSSES = ("sampled", "full")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="operations of the steps by time")
    parser.add_argument("--no-file", action="store_true", help="print only")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measured(arguments, arguments.sizes[0], arguments.losses[0])))
        return
    found: dict[str, Any] = {"machine": facts(arguments.threads)}
    for size in arguments.sizes:
        for loss in arguments.losses:
            if arguments.profile:
                profile(arguments, size, loss)
                continue
            told = [f"--{name}={getattr(arguments, name)}"
                    for name in ("samples", "batches", "repeats", "threads")]  # fmt: skip
            one = ["--inside", *told, "--sizes", size, "--losses", loss]
            found[f"{size}, {loss}"] = in_its_own_process(__file__, one, arguments.threads)
    if arguments.profile:
        return
    if arguments.no_file:
        print(json.dumps(found, indent=1))
    else:
        write("training_step", found)


def drawn_histories() -> Any:
    """Histories of the lengths and the item frequencies of the log."""
    import polars as pl

    from nextbuy.data.histories import Histories, offsets_of

    rng = np.random.default_rng(0)
    shares = np.log(list(AT_LEAST.values()))
    places = np.interp(-np.log(rng.random(NUM_USERS)), -shares, np.log(list(AT_LEAST)))
    lengths = np.exp(places).astype(np.int64)
    frequency = (np.arange(NUM_ITEMS) + 20.0) ** -0.75
    items = rng.choice(NUM_ITEMS, lengths.sum(), p=frequency / frequency.sum()) + 1
    offsets = offsets_of(lengths)
    positions = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
    return Histories(
        user_ids=pl.Series(np.arange(NUM_USERS).astype(str)),
        items=items.astype(np.int32),
        times=positions,
        baskets=positions.astype(np.int32),
        offsets=offsets,
        time_kind="order",
    )


def sized(histories: Any, size: str, samples: int) -> tuple[Any, Any]:
    """The shape of the network, and how it is trained; 0 samples are the whole catalog."""
    from nextbuy.models.transformer import Transformer, TransformerConfig

    catalog: Any = range(NUM_ITEMS)  # only its length is asked for
    training = {"longest_window": LONGEST, "sample_size": samples}
    told = TransformerConfig(size=size, repeats=False, attributes=False, training=training)
    model = Transformer(told)
    config = model.decided(told, histories, catalog)
    return model.shape_of(config, histories, catalog), config.training


def prepared(arguments: argparse.Namespace, size: str, loss: str) -> tuple[Any, Any, Any, Any]:
    """Histories, the config, the shape of the network, and an engine."""
    import torch

    from nextbuy.nn.transformer import initial_weights
    from nextbuy.training.engine import create_engine

    torch.set_num_threads(arguments.threads)
    histories = drawn_histories()
    shape, config = sized(histories, size, arguments.samples if loss == "sampled" else 0)
    counts = np.bincount(histories.items, minlength=NUM_ITEMS + 1)[1:]
    engine = create_engine(
        "torch", shape, config, item_counts=counts, seed=0,
        weights=initial_weights(shape, seed=0, item_counts=counts),
    )  # fmt: skip
    return histories, config, shape, engine


def some_batches(arguments: argparse.Namespace, histories: Any, config: Any) -> list[Any]:
    from nextbuy.training.batches import cut_into_windows, epoch_batches

    windows = cut_into_windows(histories, config.longest_window)
    batches = epoch_batches(histories, windows, tokens=config.tokens, seed=0, epoch=0)
    return [batch for batch, _ in zip(batches, range(arguments.batches), strict=False)]


def useful_operations(batch: Any, shape: Any, num_samples: int | None) -> float:
    """Of one step; see the head of this file."""
    lengths = np.count_nonzero(batch.targets, axis=1)
    N, M, D = lengths.sum(), len(batch.questions().states), shape.width
    feed_forward = (3 if shape.gated else 2) * shape.expansion
    blocks = N * shape.blocks * 2 * D**2 * (4 + feed_forward + (2 if shape.gated else 0))
    attention = shape.blocks * (2 * D * lengths * (lengths + 1)).sum()
    scored = shape.num_items if num_samples is None else num_samples
    loss = M * 2 * D * scored + (0 if num_samples is None else N * 2 * D)
    return 3.0 * float(blocks + attention + loss)


def measured(arguments: argparse.Namespace, size: str, loss: str) -> dict[str, Any]:
    histories, config, shape, engine = prepared(arguments, size, loss)
    batches = some_batches(arguments, histories, config)
    samples = None
    if loss == "sampled":
        sampler = engine._sampler
        samples = round(np.mean([len(sampler.draw_distinct(s)[0]) for s in range(len(batches))]))
    operations = sum(useful_operations(batch, shape, samples) for batch in batches)
    targets = sum(batch.num_targets for batch in batches)
    alone, together, products = [], [], [sgemm_gflops()]
    for _ in range(arguments.repeats + 1):
        started = time.perf_counter()
        for step, batch in enumerate(batches):
            engine.step(batch, learning_rate=1e-3, step=step)
        alone.append(time.perf_counter() - started)
        started = time.perf_counter()
        some_batches(arguments, histories, config)
        together.append(alone[-1] + time.perf_counter() - started)
    products += [sgemm_gflops()]
    seconds = statistics.median(alone[1:])
    sgemm = statistics.median(products)
    return {
        "width": shape.width,
        "blocks": shape.blocks,
        "gflops": round(operations / seconds / 1e9, 1),
        "sgemm_gflops": round(sgemm, 1),
        "useful_flops_over_sgemm": round(operations / seconds / 1e9 / sgemm, 3),
        "targets_per_second": round(targets / seconds),
        "targets_per_second_with_batches": round(targets / statistics.median(together[1:])),
        "milliseconds_a_step": round(1e3 * seconds / len(batches), 2),
        "mflop_a_target": round(operations / targets / 1e6, 3),
        "distinct_samples": samples,
        "peak_memory_mib": round(peak_mib()),
    }


def profile(arguments: argparse.Namespace, size: str, loss: str) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    histories, config, _, engine = prepared(arguments, size, loss)
    batches = some_batches(arguments, histories, config)
    for step, batch in enumerate(batches):
        engine.step(batch, learning_rate=1e-3, step=step)
    with profiled(activities=[ProfilerActivity.CPU]) as found:
        for step, batch in enumerate(batches):
            engine.step(batch, learning_rate=1e-3, step=step)
    print(f"{size}, {loss}, {len(batches)} steps")
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=30,
                                     max_name_column_width=45))  # fmt: skip


if __name__ == "__main__":
    main()
