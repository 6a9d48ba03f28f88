"""What the other scripts measure against: the machine's own limits, time and memory."""

import json
import os
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

RESULTS = Path(__file__).parent / "results"


def facts(threads: int) -> dict[str, Any]:
    """What somebody needs to know who compares."""
    import torch

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 2),
    }


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def in_its_own_process(script: str, arguments: list[str], threads: int) -> dict[str, Any]:
    """Run a script with these arguments and threads; the JSON object on its last line."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    limits = dict.fromkeys(names, str(threads))
    command = [sys.executable, script, *arguments]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | limits
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{' '.join(arguments)}: {found}", file=sys.stderr, flush=True)
    return found


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Of some runs, after one that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def sgemm_gflops(size: int = 2048, repeats: int = 7) -> float:
    """Of a square single-precision matrix product."""
    import torch

    a, b, out = torch.rand(size, size), torch.rand(size, size), torch.empty(size, size)
    return 2e-9 * size**3 / median_seconds(lambda: torch.mm(a, b, out=out), repeats)


def resident_mib() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(name: str, found: dict[str, Any]) -> None:
    """Print the findings, and keep them among the results."""
    text = json.dumps(found, indent=1)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
