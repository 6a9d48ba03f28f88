"""How much the service answers on this machine, load generator included.

    python benchmarks/load_service.py                    100,000 items, width 64, histories of 50
    python benchmarks/load_service.py --items 20000 --seconds 5

A transformer with drawn weights (speed does not depend on what it has learnt) is saved as a bundle,
loaded and served by `nextbuy serve` in a process of its own; `wrk` from Debian's package asks it
over 32 connections: predictions for histories of 50 purchases, all different, exact top 10, and the
same over fewer and more connections; single durable purchases; four predictions to a purchase; and
five times as many connections as the service takes, after which it is asked as at first. Beside the
clock it tells the processor's milliseconds of the server a request, for a machine that others use
too. Prints one JSON line.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kill_service import HOST, Server

HISTORY = 50
CONNECTIONS = 32
OTHERS = (16, 24, 28, 48)
"""More connections wait longer for an answer, and let the service put more of them together."""

BODIES = 2_000

SCRIPT = """
local bodies, purchases, share = {}, {}, tonumber(os.getenv("SHARE"))
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
local threads, number = {}, 0
function setup(thread)
  thread:set("mine", number); number = number + 1; threads[#threads + 1] = thread
end
function init(args)
  asked, ok, limited, failed, waited = 0, 0, 0, 0, 0
  run = tostring(os.time()) .. "-" .. tostring(mine)
end
function request()
  asked = asked + 1
  local headers = {["Content-Type"] = "application/json"}
  if (asked % 100) < share then
    headers["Idempotency-Key"] = run .. "-" .. asked
    local body = '{"purchase":{"user_id":"u' .. (asked % 5000) .. '","item_id":"item-' ..
      (asked % 1000) .. '"}}'
    return wrk.format("POST", "/v1/purchases", headers, body)
  end
  return wrk.format("POST", "/v1/predict", headers, bodies[(asked * 7 + mine * 13) % #bodies + 1])
end
function response(status, headers, body)
  if status < 300 then ok = ok + 1
  elseif status == 429 or status == 503 then
    limited = limited + 1
    if headers["retry-after"] or headers["Retry-After"] then waited = waited + 1 end
  else failed = failed + 1 end
end
function done(summary, latency, requests)
  local ok, limited, failed, waited = 0, 0, 0, 0
  for _, t in ipairs(threads) do
    ok = ok + t:get("ok"); limited = limited + t:get("limited")
    failed = failed + t:get("failed"); waited = waited + t:get("waited")
  end
  local e = summary.errors
  io.write(string.format('JSON {"seconds":%.2f,"ok":%d,"limited":%d,"with_retry_after":%d,' ..
    '"failed":%d,"broken":%d,"timeouts":%d,"p50_ms":%.2f,"p99_ms":%.2f}\\n',
    summary.duration / 1e6, ok, limited, waited, failed, e.connect + e.read + e.write, e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", choices=("small", "medium", "large"), default="small")
    parser.add_argument("--seconds", type=int, default=20, help="of each load")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not here (Debian's package wrk); nothing was measured.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print(json.dumps(run(folder, arguments.items, arguments.width, arguments.seconds)))


def run(folder: Path, items: int, size: str, seconds: int) -> dict[str, Any]:
    """Make the bundle, serve it, ask."""
    from live_model import save_bundle_of

    save_bundle_of(folder / "shop", num_items=items, size=size)
    limits = "[limits]\nrate = 1000000.0\nburst = 2000000\n"
    (folder / "serve.toml").write_text(limits, encoding="utf-8")
    write_bodies(folder / "bodies", items)
    (folder / "wrk.lua").write_text(SCRIPT, encoding="utf-8")
    server = Server(
        [sys.executable, "-m", "nextbuy", "serve", str(folder / "shop"), "--store",
         f"sqlite:///{folder / 'live.sqlite'}", "--config", str(folder / "serve.toml")],
        folder / "serve.log",
    )  # fmt: skip
    server.start()
    server.wait_until_ready()
    try:
        wait_for_the_model(server)
        asked(folder, server, 0, 3, CONNECTIONS)  # so that all that is made once is made
        found = {
            "predictions": asked(folder, server, 0, seconds, CONNECTIONS),
            "predictions_over": {n: asked(folder, server, 0, seconds, n) for n in OTHERS},
            "purchases": asked(folder, server, 100, seconds, CONNECTIONS),
            "four_to_one": asked(folder, server, 20, seconds, CONNECTIONS),
            "overload": asked(folder, server, 0, seconds, 2_560),
            "five_seconds_later": asked(folder, server, 0, 5, CONNECTIONS, wait=5),
        }
    finally:
        server.terminate()
    return {
        "items": items, "size": size, "history": HISTORY, "k": 10, "connections": CONNECTIONS,
        **found,
        "versions": {name: version(name) for name in ("nextbuy", "torch", "fastapi", "uvicorn")},
    }  # fmt: skip


def wait_for_the_model(server: Server) -> None:
    """Until the model has a process of its own; half a minute at most, for it may have none."""
    for _ in range(60):
        with urllib.request.urlopen(f"http://{HOST}:{server.port}/metrics") as answer:
            if b"nextbuy_model_process 1.0" in answer.read():
                return
        time.sleep(0.5)


def asked(
    folder: Path, server: Server, share: int, seconds: int, connections: int, *, wait: int = 0
) -> dict[str, Any]:
    """One run of wrk; `share` of a hundred requests store a purchase."""
    if wait:
        subprocess.run(["sleep", str(wait)], check=True)
    before = server.processor_seconds
    done = subprocess.run(
        ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency",
         "-s", str(folder / "wrk.lua"), f"http://{HOST}:{server.port}"],
        check=True, capture_output=True, text=True,
        env=os.environ | {"SHARE": str(share), "BODIES": str(folder / "bodies")},
    )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith("JSON "))
    facts: dict[str, Any] = json.loads(line.removeprefix("JSON "))
    answered = max(1, facts["ok"] + facts["limited"] + facts["failed"])
    return {
        "per_second": round(facts["ok"] / facts["seconds"]),
        "processor_ms_a_request": round((server.processor_seconds - before) / answered * 1e3, 3),
        "load_average": round(os.getloadavg()[0], 2),
        **facts,
    }


def write_bodies(path: Path, items: int) -> None:
    """Histories of 50, a day apart, of items drawn evenly; a body a line."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(BODIES):
            purchases = [
                {"item_id": f"item-{draw.randrange(items)}",
                 "timestamp": f"2024-{1 + place // 28:02d}-{1 + place % 28:02d}T12:00:00Z"}
                for place in range(HISTORY)
            ]  # fmt: skip
            body = {"histories": [{"purchases": purchases}], "k": 10}
            file.write(json.dumps(body, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
