"""Whether a GPU computes what the CPU does, and how much faster.

    python benchmarks/device_check.py FOLDER
    python benchmarks/device_check.py FOLDER --only same    # or: waits, answers, speed

Four questions, on a machine with CUDA:

same     Each network is trained on `world:market` for some steps from the same weights on the same
         batches, without dropout, on the CPU in single precision, and on the GPU in single
         precision and, the transformer, in bf16. The losses of all steps and the weights at the end
         are compared. TF32 in cuDNN's recurrent layers is off meanwhile.
waits    Of which operations of a step does the host wait for the GPU? There should be none.
answers  A model is fitted on the GPU as a user does it, validation and temperature included, and
         saved. A process that sees no GPU loads it; both are asked the same: `log_probabilities`,
         and `top_k` with what was bought excluded.
speed    Targets per second of whole epochs, batches made beside them, on histories drawn like those
         of Amazon Beauty (see training_step.py): CPU, GPU in single precision, GPU in bf16.

Tolerances are in `TOLERANCES`. FOLDER gets the models and answers. Prints one JSON object; `ok`
says whether all comparisons held, and the exit status is 1 if not. Without CUDA it says so and
stops.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = ("transformer", "gru", "lstm-rnn")
VARIANTS = {
    "transformer": ("transformer", {}),
    "transformer without repeats, sampled": (
        "transformer", {"repeats": False, "training": {"sample_size": 64}}
    ),
    "transformer with filter and average": (
        "transformer", {"repeats": False, "gated": False, "taps": 5, "training": {"ema_decay": 0.9}}
    ),
    "gru": ("gru", {}),
    "gru, gbce": ("gru", {"training": {"loss": "gbce", "sample_size": 64}}),
    "lstm-rnn": ("lstm-rnn", {}),
}  # fmt: skip
STEPS, K = 20, 20
TOLERANCES = {
    # Of a loss, relative; of the weights, norm of the difference over norm of the way gone.
    "single": {"loss": 1e-4, "weights": 2e-2},
    "bf16": {"loss": 1e-2, "weights": 5e-1},
    # Of a log-probability, absolute, both in single precision.
    "answers": 1e-3,
}
SPEEDS = (
    {"size": "small", "loss": "full", "tokens": 1024},
    {"size": "small", "loss": "sampled", "tokens": 1024},
    {"size": "small", "loss": "full", "tokens": 16384},
    {"size": "large", "loss": "full", "tokens": 16384},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=sorted(QUESTIONS), help="one question")
    parser.add_argument("--users", type=int, default=300, help="of the world")
    parser.add_argument("--device", default="cuda", help="cpu tries the script itself")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        ask(arguments, arguments.ask)
        return
    import torch

    arguments.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print(
            json.dumps(found | {"cuda": False, "said": "There is no CUDA here: nothing to check."})
        )
        return
    found["device"] = "cpu"
    if arguments.device != "cpu":
        found["device"] = torch.cuda.get_device_name(arguments.device)
    for name in [arguments.only] if arguments.only else QUESTIONS:
        say(f"{name} ...")
        found[name] = attempted(QUESTIONS[name], arguments)
    parts = [found[name] for name in QUESTIONS if name in found]
    found["ok"] = all(one.get("ok", True) for part in parts for one in (part, *part.values()))
    print(json.dumps(found, indent=1))
    sys.exit(0 if found["ok"] else 1)


def attempted(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What it finds, or how it fails: a machine with a GPU is asked everything in one go."""
    try:
        return work(*arguments)
    except Exception:
        return {"ok": False, "error": traceback.format_exc(limit=-6)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def market(users: int) -> Any:
    """Split and catalog of the world; the same in every process."""
    from nextbuy.data.encoding import encode
    from nextbuy.data.worlds import MarketConfig, MarketWorld
    from nextbuy.splitting.choice import choose_split

    encoded = encode(MarketWorld(MarketConfig(num_users=users), seed=0).purchases())
    return choose_split("temporal", encoded.catalog, encoded.histories)


def model_of(name: str, **config: Any) -> Any:
    from nextbuy.models.registry import create

    return create(name, **config)


# same


def same(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    split = market(arguments.users)
    found = {}
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for name, (network, config) in VARIANTS.items():
            on_cpu = trained(network, config, split, "cpu", "single")
            kinds = ("single", "bf16") if network == "transformer" else ("single",)
            for precision in kinds:
                label = f"{name}, {precision}"
                found[label] = attempted(
                    lambda *told, one=on_cpu, kind=precision: compared(
                        one, trained(*told), TOLERANCES[kind]
                    ),
                    network, config, split, arguments.device, precision,
                )  # fmt: skip
                say(f"{label}: {found[label]}")
    return found


def waits(arguments: argparse.Namespace) -> dict[str, Any]:
    split = market(arguments.users)
    return {
        name: attempted(waits_of, network, config, split, arguments.device)
        for name, (network, config) in VARIANTS.items()
    }


def waits_of(network: str, config: dict[str, Any], split: Any, device: str) -> dict[str, Any]:
    """Lines that wait, in steps whose batches are at hand."""
    import torch

    engine, batches, _ = prepared(network, config, split, device, "auto")
    ready = [engine.prepare(batch, step) for step, batch in zip(range(6), batches, strict=False)]
    engine.step(ready[0], learning_rate=1e-3, step=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device != "cpu":
            torch.cuda.set_sync_debug_mode("warn")
        losses = [
            engine.step(batch, learning_rate=1e-3, step=step)
            for step, batch in enumerate(ready[1:], 1)
        ]
        if device != "cpu":
            torch.cuda.set_sync_debug_mode("default")
    lines = sorted({f"{Path(w.filename).name}:{w.lineno}: {str(w.message)[:80]}" for w in caught})
    return {"steps": len(losses), "times": len(caught), "lines": lines, "ok": not caught}


def trained(
    name: str, told: dict[str, Any], split: Any, device: str, precision: str
) -> tuple[Any, Any, Any]:
    """Losses of the steps, first weights and last weights."""
    engine, batches, first = prepared(name, told, split, device, precision)
    steps = zip(range(STEPS), batches, strict=False)
    losses = [engine.step(batch, learning_rate=1e-3, step=step) for step, batch in steps]
    return np.array([float(loss) for loss in losses]), first, engine.weights()


def prepared(
    name: str, told: dict[str, Any], split: Any, device: str, precision: str
) -> tuple[Any, Any, Any]:
    """An engine, the batches of an epoch, and the first weights."""
    from nextbuy.models.items import item_codes, item_groups
    from nextbuy.nn.own_items import purchase_facts
    from nextbuy.training.batches import cut_into_windows, epoch_batches
    from nextbuy.training.engine import create_engine

    train, catalog = split.train, split.catalog
    training = told.get("training", {}) | {"precision": precision, "tokens": 512}
    model = model_of(name, **told | {"dropout": 0.0, "training": training})
    config = model.decided(model.config, train, catalog)
    training = config.training.decided(len(catalog))
    shape = model.shape_of(config, train, catalog)
    counts = np.bincount(train.items, minlength=len(catalog) + 1)[1:]
    first = model.first_weights(shape, seed=0, item_counts=counts, longest=50)
    engine = create_engine(
        "torch", shape, training, weights=first, item_counts=counts, seed=0, device=device,
        codes=item_codes(catalog),
    )  # fmt: skip
    facts = None
    if getattr(shape, "repeats", False):
        facts = purchase_facts(train, item_groups(catalog))
    batches = epoch_batches(
        train, cut_into_windows(train, training.longest_window),
        tokens=training.tokens, seed=0, epoch=0, facts=facts, period_days=training.period_days,
    )  # fmt: skip
    return engine, batches, first


def compared(one: Any, other: Any, tolerance: dict[str, float]) -> dict[str, Any]:
    losses = np.abs(other[0] - one[0]) / one[0]
    apart = {n: float(np.linalg.norm(other[2][n] - w)) for n, w in one[2].items()}
    gone = {n: float(np.linalg.norm(w - one[1][n])) for n, w in one[2].items()}
    total = float(np.linalg.norm(list(apart.values())) / np.linalg.norm(list(gone.values())))
    return {
        "steps": len(losses),
        "loss": [round(float(one[0][0]), 5), round(float(one[0][-1]), 5)],
        "largest_difference_of_a_loss": float(losses.max()),
        "difference_of_weights": total,
        "worst_weight": max(apart, key=lambda n: apart[n] / max(gone[n], 1e-12)),
        "ok": bool(losses.max() <= tolerance["loss"] and total <= tolerance["weights"]),
    }


# answers


def answers(arguments: argparse.Namespace) -> dict[str, Any]:
    split = market(arguments.users)
    found = {}
    for name in NETWORKS:
        found[name] = attempted(answers_of, name, split, arguments)
        say(f"{name}: {found[name]}")
    return found


def answers_of(name: str, split: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    from nextbuy.models.protocol import FitOptions

    started = time.perf_counter()
    model = model_of(name, device=arguments.device, training={"epochs": 2})
    model.fit(split.train, split.validation, split.catalog, FitOptions())
    seconds = time.perf_counter() - started
    folder = arguments.folder / name
    folder.mkdir(exist_ok=True)
    model.save(folder)
    here = answered(model, split)
    command = [sys.executable, __file__, str(arguments.folder), "--ask", name,
               "--users", str(arguments.users)]  # fmt: skip
    subprocess.run(command, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    with np.load(folder / "answers.npz") as stored:
        there = dict(stored)
    log_p, values = (float(np.abs(here[n] - there[n]).max()) for n in ("log_p", "values"))
    equal = float((here["items"] == there["items"]).mean())
    return {
        "fit_seconds": round(seconds, 1),
        "device_of_answers": str(model._network.device),
        "precision": model.config.training.precision,
        "temperature": model.config.temperature,
        "validation_loss": model.result.best_score,
        "log_p": log_p,
        "values": values,
        "equal_items": equal,
        # Near ties may change places.
        "ok": max(log_p, values) <= TOLERANCES["answers"] and equal > 0.98,
    }


def answered(model: Any, split: Any) -> dict[str, Any]:
    from nextbuy.splitting.repeat import RepeatPolicy

    cases = split.test
    blocked = RepeatPolicy.parse("exclude").blocks(cases.histories, cases.as_of)
    items, values = model.top_k(cases.histories, cases.as_of, K, blocked=blocked)
    log_p = model.log_probabilities(cases.histories, cases.as_of)[:, 1:]
    return {"log_p": log_p, "items": items, "values": values}


def ask(arguments: argparse.Namespace, name: str) -> None:
    """In a process without a GPU: what the stored model says."""
    from nextbuy.models.registry import load

    split = market(arguments.users)
    folder = arguments.folder / name
    model = load(name, folder, split.catalog)
    np.savez(folder / "answers.npz", **answered(model, split))


# speed


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    found = {}
    ways = [("cpu", "single")]
    if arguments.device != "cpu":
        ways += [(arguments.device, "single"), (arguments.device, "bf16")]
    for told in SPEEDS:
        for device, precision in ways:
            if device == "cpu" and told["size"] != "small":
                continue  # minutes, and known from training_step.py
            name = ", ".join([*map(str, told.values()), device, precision])
            found[name] = attempted(epoch_speed, told, device, precision)
            say(f"{name}: {found[name]}")
    return found


def epoch_speed(told: dict[str, Any], device: str, precision: str) -> dict[str, Any]:
    """Of an epoch after one that does not count; and of steps alone, their batches at hand."""
    import torch

    from nextbuy.nn.transformer import initial_weights
    from nextbuy.training.batches import cut_into_windows, epoch_batches
    from nextbuy.training.engine import create_engine
    from nextbuy.training.loop import train
    from training_step import NUM_ITEMS, drawn_histories, sized

    histories = drawn_histories()
    if device == "cpu":
        histories = histories.take(np.arange(0, len(histories), 8))
    shape, training = sized(histories, told["size"], 0 if told["loss"] == "full" else 1024)
    training = training.model_copy(
        update={"tokens": told["tokens"], "precision": precision, "epochs": 1,
                "shuffle": "baskets", "learning_rate": 1e-3}
    )  # fmt: skip
    counts = np.bincount(histories.items, minlength=NUM_ITEMS + 1)[1:]
    engine = create_engine(
        "torch", shape, training, item_counts=counts, seed=0, device=device,
        weights=initial_weights(shape, seed=0, item_counts=counts),
    )  # fmt: skip
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        train(engine, histories, None, training, seed=0)
        seconds.append(time.perf_counter() - started)
    windows = cut_into_windows(histories, training.longest_window)
    batches = epoch_batches(histories, windows, tokens=training.tokens, seed=0, epoch=0)
    ready = [engine.prepare(batch, step) for step, batch in zip(range(50), batches, strict=False)]
    started = time.perf_counter()
    losses = [engine.step(b, learning_rate=1e-3, step=step) for step, b in enumerate(ready)]
    last = float(losses[-1])
    alone = time.perf_counter() - started
    facts = {
        "targets_per_second": round(histories.num_purchases / seconds[-1]),
        "targets_per_second_of_steps_alone": round(sum(b.num_targets for b in ready) / alone),
        "milliseconds_a_step": round(1e3 * alone / len(ready), 2),
        "last_loss": round(last, 4),
    }
    if device != "cpu":
        facts["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
        torch.cuda.reset_peak_memory_stats()
    return facts


QUESTIONS = {"same": same, "waits": waits, "answers": answers, "speed": speed}

if __name__ == "__main__":
    main()
