"""Fuzz a real service by its own OpenAPI document, and print one line of JSON with the counts.

    python benchmarks/fuzz_service.py --max-examples 200

A small bundle is trained, a server started in a process of its own with a key, and schemathesis
runs all phases and all checks against it: no answer of 500 or above, no answer that the document
does not describe, nothing wrong accepted, nothing right refused, nothing without a key.
Of the 16 operations it tells 15: schemathesis leaves out the one that it reads the document from.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nextbuy.service.guard.keys import add_key

SETTINGS = """
[limits]
rate = 100000
burst = 100000
"""

# A body above 1 MiB is told 413, which is a refusal too.
CHECKS = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "429"]
"""


def train(folder: Path, users: int) -> None:
    subprocess.run(
        [sys.executable, "-m", "nextbuy", "train", "world:market", "--users", str(users),
         "--models", "popularity,personal-frequency", "--out", str(folder), "--json"],
        check=True, capture_output=True,
    )  # fmt: skip


def start(folder: Path, keys: Path, log: Path) -> tuple[subprocess.Popen[str], str]:
    """The server and its address, which it prints once it listens."""
    config = folder / "settings.toml"
    config.write_text(SETTINGS)
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "nextbuy", "serve", str(folder), "--port", "0", "--keys",
             str(keys), "--config", str(config)],
            stdout=subprocess.PIPE, stderr=stream, text=True,
        )  # fmt: skip
    line = server.stdout.readline() if server.stdout else ""
    address = re.search(r"http://\S+", line)
    if address is None:
        raise SystemExit(f"the server did not start: {log.read_text()}")
    return server, address.group()


def fuzz(address: str, key: str, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """The report of schemathesis."""
    config, report = folder / "schemathesis.toml", folder / "report.json"
    config.write_text(CHECKS)
    hooks = Path(__file__).resolve().parent
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "fuzz_hooks",
        "PYTHONPATH": os.pathsep.join([str(hooks), *sys.path[1:]]),
    }
    seed = [] if arguments.seed is None else ["--seed", str(arguments.seed)]
    command = [
        "schemathesis", "--config-file", str(config), "run", f"{address}/openapi.json",
        "-H", f"Authorization: Bearer {key}", "--checks", "all",
        "--phases", "examples,coverage,fuzzing,stateful",
        "--max-examples", str(arguments.max_examples), "--report", "json",
        "--report-json-path", str(report), "--request-timeout", "20", *seed,
    ]  # fmt: skip
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        env=environment, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if arguments.verbose:
        print(done.stdout, done.stderr, file=sys.stderr)
    found: dict[str, object] = json.loads(report.read_text())
    return found


def answers_by_status(log: Path) -> dict[str, int]:
    """What the server says that it answered."""
    counts: dict[str, int] = {}
    for line in log.read_text().splitlines():
        told = json.loads(line)
        if "status" in told:
            counts[str(told["status"])] = counts.get(str(told["status"]), 0) + 1
    return dict(sorted(counts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-examples", type=int, default=200)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder, keys, log = Path(name) / "bundle", Path(name) / "keys.json", Path(name) / "log"
        train(folder, arguments.users)
        key = add_key(keys, "fuzz", ["admin"])
        server, address = start(folder, keys, log)
        try:
            report = fuzz(address, key, folder, arguments)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)
        text = log.read_text()
        counts = answers_by_status(log)
        kept = ("schemathesis_version", "seed", "exit_code", "operations", "phases", "test_cases",
                "failures", "errors")  # fmt: skip
        line = {name: report[name] for name in kept} | {
            "max_examples": arguments.max_examples,
            "answers": counts,
            "requests": sum(counts.values()),
            "failed_inside": counts.get("500", 0),
            "key_in_log": key in text,
            "seconds": round(time.monotonic() - began, 1),
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
