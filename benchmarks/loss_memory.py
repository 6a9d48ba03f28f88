"""What the losses need to work in, up to a million items.

    python benchmarks/loss_memory.py

The peak of memory during loss and backward pass, beyond what is there before (states, weights) and
beyond the gradients of states, weights and biases, which any loss has to hand out: a gradient of
the weights alone is as large as they are. Two batches that differ by a factor of four show whether
it grows with the batch, three catalogs whether it grows with them. Each in a process of its own,
with a first run on a small question that loads what is loaded once; the kernel's own count of the
peak (VmHWM) is reset before the run that counts. The width is 64, samples are 2,048. Prints one
JSON object and writes it to benchmarks/results/loss_memory.json.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from machine import facts, in_its_own_process, resident_mib, write

CATALOGS = (10_000, 100_000, 1_000_000)
BATCHES = (1024, 4096)
WIDTH, SAMPLES = 64, 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-file", action="store_true", help="print only")
    parser.add_argument("--only", nargs=3, metavar=("LOSS", "ITEMS", "STATES"))
    arguments = parser.parse_args()
    if arguments.only:
        loss, num_items, num_states = arguments.only
        print(json.dumps(measured(loss, int(num_items), int(num_states))))
        return
    found: dict[str, Any] = {"machine": facts(arguments.threads)}
    for loss in ("full", "sampled"):
        for num_items in CATALOGS:
            for num_states in BATCHES:
                one = ["--only", loss, str(num_items), str(num_states)]
                name = f"{loss}, {num_items:,} items, {num_states:,} states"
                found[name] = in_its_own_process(__file__, one, arguments.threads)
    spaces = [facts["workspace_mib"] for name, facts in found.items() if name != "machine"]
    found["most workspace_mib"] = max(spaces)
    if arguments.no_file:
        print(json.dumps(found, indent=1))
    else:
        write("loss_memory", found)


def measured(loss: str, num_items: int, num_states: int) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    run(loss, *question(1000, 64))
    learnt = question(num_items, num_states)
    before = resident_mib()
    reset_peak()
    seconds = run(loss, *learnt)
    gradients = sum(tensor.grad.nbytes for tensor in learnt if tensor.grad is not None) / 2**20
    return {
        "workspace_mib": round(high_water_mib() - before - gradients),
        "gradients_mib": round(gradients),
        "seconds": round(seconds, 3),
    }


def question(num_items: int, num_states: int) -> tuple[Any, ...]:
    import torch

    hidden = torch.randn(num_states, WIDTH, requires_grad=True)
    weight = (0.1 * torch.randn(num_items, WIDTH)).requires_grad_()
    bias = torch.zeros(num_items, requires_grad=True)
    return hidden, weight, bias, torch.arange(num_states), torch.randint(num_items, (num_states,))


def run(loss: str, *asked: Any) -> float:
    """Loss and gradients; the seconds that they took."""
    import torch

    from nextbuy.nn.losses import full_softmax_loss, sampled_softmax_loss

    started = time.perf_counter()
    if loss == "full":
        value = full_softmax_loss(*asked)
    else:
        num_items = len(asked[1])
        samples = torch.randint(num_items, (SAMPLES,)).unique()
        stands_for = torch.full((len(samples),), num_items / SAMPLES).log()
        value = sampled_softmax_loss(*asked, samples_S=samples, log_weights_S=stands_for)
    value.backward()
    return time.perf_counter() - started


def reset_peak() -> None:
    """Let the kernel count the peak from here on."""
    if sys.platform != "linux":
        sys.exit("The peak of memory can be reset on Linux only; nothing was measured.")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def high_water_mib() -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("The kernel does not tell the peak of memory (VmHWM).")


if __name__ == "__main__":
    main()
