"""A large catalog through the whole product: read, fit, save, load, and ten offers for many users.

    python benchmarks/large_catalog.py
    python benchmarks/large_catalog.py --items 100000 --purchases 500000 --users 20000
    python benchmarks/large_catalog.py --items 10000000 --one-step

The log is drawn: items have a category (a thousand items each) and a skewed popularity, users go
from one category to another by a chain that has five ways on from each, and one purchase in ten is
of an own item again. So the order tells much, and popularity little. No data are needed.

Each part runs in a process of its own, so that its peak memory is its own: to draw the log, to fit
(popularity, and the transformer at width 64, by default for one epoch), score and save a bundle, to
load it and answer. Timing and clocks of items are left out: a larger catalog does not make them
slower. `seconds a million targets` are those of the training loop; the seconds of all stages stand
beside it, each from its first word to the next, and those of the processor, for a machine that
others use too. With `--time-limit` training stops in time with what it has learnt. With
`--one-step` the network is fitted on as few users as make one step, over the whole catalog. Prints
one JSON object and writes it to benchmarks/results/large_catalog-ITEMS.json.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from machine import facts, in_its_own_process, peak_mib, write

PER_CATEGORY, WAYS_ON = 1_000, 5
FOLLOWS, AGAIN = 0.8, 0.1
MEAN_LENGTH, DAYS = 12.5, 365
MODELS = ("popularity", "transformer")
CASES, CELLS = 10_000, 10**10
FIRST_MOMENT, DAY = 1_700_000_000_000_000, 86_400_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--purchases", type=int, help="default: five an item, at most 20 million")
    parser.add_argument("--users", type=int, help="who are answered; default: 100,000")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--time-limit", type=float, help="seconds after which training stops")
    parser.add_argument("--one-step", action="store_true", help="train one step only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep log and bundle here, and use them again")
    parser.add_argument("--no-file", action="store_true", help="print only")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.purchases = arguments.purchases or min(5 * arguments.items, 20_000_000)
    arguments.users = arguments.users or (1_000 if arguments.one_step else 100_000)
    if arguments.only:
        print(json.dumps(PARTS[arguments.only](arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = arguments.folder or Path(folder)
        found = all_parts(arguments)
    if arguments.no_file:
        print(json.dumps(found, indent=1))
    else:
        write(f"large_catalog-{arguments.items}", found)


def all_parts(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("items", "purchases", "users", "epochs", "time_limit", "one_step")
    settings = {name: getattr(arguments, name) for name in names}
    found: dict[str, Any] = {"machine": facts(arguments.threads), "settings": settings}
    told = ("items", "purchases", "users", "epochs", "threads", "folder")
    words = [word for name in told for word in (f"--{name}", str(getattr(arguments, name)))]
    if arguments.time_limit:
        words += ["--time-limit", str(arguments.time_limit)]
    words += ["--one-step"] if arguments.one_step else []
    for part in ("log", "step" if arguments.one_step else "fit", "answer"):
        if part == "log" and log_path(arguments).exists():
            continue
        found[part] = in_its_own_process(__file__, [*words, "--only", part], arguments.threads)
    return found


def log_path(arguments: argparse.Namespace) -> Path:
    folder: Path = arguments.folder
    return folder / f"log-{arguments.items}-{arguments.purchases}.parquet"


def draw_log(arguments: argparse.Namespace) -> dict[str, Any]:
    """See the head of this file; items are bought at least once if there are purchases enough."""
    import polars as pl

    started = time.perf_counter()
    rng = np.random.default_rng(0)
    lengths = rng.geometric(1 / MEAN_LENGTH, int(arguments.purchases / MEAN_LENGTH * 1.1))
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), arguments.purchases))]
    num_users, longest = len(lengths), int(lengths.max())
    num_kinds = max(2, arguments.items // PER_CATEGORY)
    ways = rng.integers(0, num_kinds, (num_kinds, WAYS_ON))
    owners = np.repeat(np.arange(num_users), lengths)
    firsts = np.cumsum(lengths) - lengths
    items = np.empty(len(owners), np.int64)
    kinds = rng.integers(0, num_kinds, num_users)
    for place in range(longest):  # the purchase of each user at this place of the history
        users = np.flatnonzero(lengths > place)
        follows = rng.random(len(users)) < FOLLOWS
        on = ways[kinds[users], rng.integers(0, WAYS_ON, len(users))]
        kinds[users] = np.where(follows, on, rng.integers(0, num_kinds, len(users)))
        inside = (PER_CATEGORY * rng.random(len(users)) ** 2).astype(np.int64)  # low ones often
        bought = np.minimum(kinds[users] * PER_CATEGORY + inside, arguments.items - 1)
        rows = firsts[users] + place
        if place:
            again = rng.random(len(users)) < AGAIN
            own = items[firsts[users] + rng.integers(0, place, len(users))]
            bought = np.where(again, own, bought)
        items[rows] = bought
    if len(items) > arguments.items:  # the whole catalog shall occur
        items[rng.choice(len(items), arguments.items, replace=False)] = np.arange(arguments.items)
    times = FIRST_MOMENT + rng.integers(0, DAYS * DAY, len(items))
    times = times[np.lexsort((times, owners))]
    table = pl.DataFrame({"user": owners, "item": items, "timestamp": times}).select(
        pl.format("user-{}", pl.col("user").cast(pl.String).str.zfill(8)).alias("user_id"),
        pl.format("item-{}", pl.col("item").cast(pl.String).str.zfill(9)).alias("item_id"),
        pl.format("kind-{}", pl.col("item") // PER_CATEGORY).alias("category"),
        pl.from_epoch("timestamp", "us").dt.replace_time_zone("UTC"),
    )
    table.write_parquet(log_path(arguments))
    return {
        "users": num_users,
        "purchases": len(items),
        "items": int(table["item_id"].n_unique()),
        "seconds": round(time.perf_counter() - started, 1),
    }


class Stages:
    """Seconds of each stage of a fit, from its first word to the next; counts targets, too."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.targets = 0.0
        self._subject, self._name = "", "read and split"
        self._since, self._worked = time.perf_counter(), time.process_time()
        self._last_step = self._since, self._worked

    def _next(self, name: str) -> None:
        now, worked = time.perf_counter(), time.process_time()
        self._add(self._name, now - self._since, worked - self._worked)
        self._name, self._since, self._worked = name, now, worked

    def _add(self, name: str, seconds: float, worked: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.processor[name] = self.processor.get(name, 0.0) + worked
        self.peaks[name] = round(peak_mib())
        print(f"{seconds:8.1f} s  {name}", file=sys.stderr, flush=True)

    def about(self, subject: str) -> None:
        self._subject = subject
        self._next(subject)

    def start(self, name: str, total: int, done: int = 0) -> None:  # noqa: ARG002
        self._next(f"{self._subject}: {name}")

    def advance(self, units: int, facts: dict[str, float]) -> None:  # noqa: ARG002
        if "validation_loss" in facts:  # comes when validation is over
            step, worked = self._last_step
            self._add(f"{self._name}, then validate", time.perf_counter() - step,
                      time.process_time() - worked)  # fmt: skip
            self._add(self._name, step - self._since, worked - self._worked)
            self._since, self._worked = time.perf_counter(), time.process_time()
        elif "targets" in facts:
            self.targets += facts["targets"]
            self._last_step = time.perf_counter(), time.process_time()

    def finish(self) -> None:
        self._next(f"after {self._name.removeprefix('after ')}")

    def as_dict(self) -> dict[str, Any]:
        self._next("end")
        seconds = {name: round(value, 1) for name, value in self.seconds.items() if value >= 0.05}
        worked = {name: round(self.processor[name], 1) for name in seconds}
        return {
            "seconds": seconds,
            "processor seconds": worked,
            "peak_mib": {n: self.peaks[n] for n in seconds},
        }


def fit(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a predictor does with a log to learn what is bought, and a bundle of it."""
    import torch

    from nextbuy.bundle import Bundle, save_bundle
    from nextbuy.data.encoding import encode
    from nextbuy.data.recoding import in_catalog
    from nextbuy.data.sources import load_source
    from nextbuy.evaluation.evaluate import evaluate
    from nextbuy.models.protocol import FitOptions
    from nextbuy.models.registry import create
    from nextbuy.predictor.audience_fit import Studies
    from nextbuy.predictor.budget import TimeBudget
    from nextbuy.splitting.temporal import split_by_time

    torch.set_num_threads(arguments.threads)
    stages = Stages()
    source = load_source(log_path(arguments))
    stages.about("encode")
    encoded = encode(source.purchases)
    del source
    stages.about("split")
    split = split_by_time(encoded.catalog, encoded.histories)
    stages.about("choose audiences")
    studies = Studies.of(encoded, split, TimeBudget())
    deadline = None if arguments.time_limit is None else time.monotonic() + arguments.time_limit
    options = FitOptions(epochs=arguments.epochs, progress=stages, deadline=deadline)
    models, test = {name: create(name) for name in MODELS}, {}
    cases = split.test.thinned(min(CASES, CELLS // len(split.catalog)))
    for name, model in models.items():
        stages.about(name)
        model.fit(split.train, split.validation, split.catalog, options)
        test[name] = evaluate(model, cases, split.catalog, num_resamples=0, progress=stages).metrics
    stages.about("save")
    bundle = Bundle(
        catalog=split.catalog, models=models, facts={},
        histories=in_catalog(encoded.histories, encoded.catalog, split.catalog),
    )  # fmt: skip
    save_bundle(arguments.folder / "bundle", bundle)
    stages.about("ask about audiences")
    studies.ask_model(models["transformer"])
    by_stage = stages.as_dict()
    training = {
        of: sum(s for name, s in by_stage[of].items() if name.endswith(": train"))
        for of in ("seconds", "processor seconds")
    }
    scores = ("loss", "hit_rate@10", "ndcg@10")
    return {
        "items": len(split.catalog),
        "purchases to learn from": split.train.num_purchases,
        "targets that were learnt": int(stages.targets),
        **{
            f"{of} a million targets": round(s / stages.targets * 1e6, 1)
            for of, s in training.items()
        },
        "peak_mib": round(peak_mib()),
        "test cases": len(cases),
        "test": {name: {s: test[name][s] for s in scores} for name in test},
        "below popularity": test["transformer"]["loss"] < test["popularity"]["loss"],
        **{f"stages: {name}": of for name, of in by_stage.items()},
    }


def step(arguments: argparse.Namespace) -> dict[str, Any]:
    """One step of the network over the whole catalog, and a bundle of it."""
    import torch

    from nextbuy.bundle import Bundle, save_bundle
    from nextbuy.data.encoding import encode
    from nextbuy.data.sources import load_source
    from nextbuy.models.protocol import FitOptions
    from nextbuy.models.transformer import Transformer
    from nextbuy.predictor.refit import no_cases
    from nextbuy.splitting.temporal import split_by_time

    torch.set_num_threads(arguments.threads)
    stages = Stages()
    stages.about("read")
    purchases = load_source(log_path(arguments)).purchases
    stages.about("encode")
    encoded = encode(purchases)
    del purchases
    stages.about("split")
    split = split_by_time(encoded.catalog, encoded.histories)
    cases = split.validation.thinned(1_000)
    few = encoded.histories.take(np.arange(64))
    num_items = len(encoded.catalog)
    del split
    stages.about("network")
    model = Transformer().fit(
        few, no_cases(few), encoded.catalog, FitOptions(epochs=1, progress=stages)
    )
    assert model.result is not None
    stages.about("save")
    facts_of_bundle: dict[str, Any] = {}
    bundle = Bundle(
        catalog=encoded.catalog, histories=encoded.histories, models={"transformer": model},
        facts=facts_of_bundle,
    )  # fmt: skip
    save_bundle(arguments.folder / "bundle", bundle)
    return {
        "items": num_items,
        "cases": len(cases),
        "steps": model.result.num_steps,
        "targets": int(stages.targets),
        "peak_mib": round(peak_mib()),
        **{f"stages: {name}": of for name, of in stages.as_dict().items()},
    }


def answer(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the bundle; the ten best for each of some users, as one table."""
    import torch

    from nextbuy.bundle import load_bundle
    from nextbuy.predictor.answers import Moment, best_offers
    from nextbuy.splitting.repeat import RepeatPolicy

    torch.set_num_threads(arguments.threads)
    started = time.perf_counter()
    bundle = load_bundle(arguments.folder / "bundle")
    loaded = time.perf_counter()
    peak = peak_mib()
    known = bundle.histories
    users = np.linspace(0, len(known) - 1, min(arguments.users, len(known))).astype(np.int64)
    asked = known.take(users)
    end = np.full(len(asked), int(known.times.max()), np.int64)
    moment = Moment(told=None, assumed=end, cadence=bundle.cadence)
    one = known.take(users[:1])

    def offers(histories: Any) -> Any:
        here = moment.of(slice(0, len(histories)))
        return best_offers(
            bundle.models["transformer"], histories, bundle.catalog, here,
            k=10, policy=RepeatPolicy.ALLOW, rules=None,
        )  # fmt: skip

    offers(one)
    single = time.perf_counter()
    for _ in range(10):
        offers(one)
    begun, worked = time.perf_counter(), time.process_time()
    table = offers(asked)
    ended, worked = time.perf_counter(), time.process_time() - worked
    return {
        "load_seconds": round(loaded - started, 1),
        "load_peak_mib": round(peak),
        "milliseconds of one user": round(1e2 * (begun - single), 1),
        "users": len(asked),
        "offers": table.height,
        "seconds": round(ended - begun, 1),
        "processor_seconds": round(worked, 1),
        "users a second": round(len(asked) / (ended - begun), 1),
        "peak_mib": round(peak_mib()),
    }


PARTS = {"log": draw_log, "fit": fit, "step": step, "answer": answer}


if __name__ == "__main__":
    main()
