"""A server in a process of its own: prints its port, answers `/pause` after half a second.

benchmarks/hostile_service.py can attack it: `--healthy /live --target /write`.
"""

import asyncio
import json

from nextbuy.service.config import Limits
from nextbuy.service.guard.guard import Guard
from nextbuy.service.guard.hosts import Hosts
from nextbuy.service.guard.keys import KeyRing
from nextbuy.service.guard.scopes import RouteTable, Rule
from nextbuy.service.guard.serving import listen, serve

RULES = RouteTable(
    [
        Rule(method="GET", path="/live", scope="public"),
        Rule(method="GET", path="/pause", scope="read"),
        Rule(method="POST", path="/write", scope="write"),
    ]
)


class Pausing:
    """Counts the requests that it works on."""

    def __init__(self):
        self.in_flight = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            print("stopped", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/pause":
            self.in_flight += 1
            await asyncio.sleep(0.5)
            self.in_flight -= 1
        if scope["path"] == "/write":
            await receive()
        text = json.dumps({"in_flight": self.in_flight}).encode()
        fields = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": text})


if __name__ == "__main__":
    keys, limits = KeyRing(None), Limits()
    guard = Guard(Pausing(), rules=RULES, keys=keys, limits=limits, hosts=Hosts())
    listening = listen("127.0.0.1", 0, keys)
    print(listening.getsockname()[1], flush=True)
    serve(guard, listening, limits)
