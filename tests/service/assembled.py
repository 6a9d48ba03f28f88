"""The whole service in this process: store, model, guard and page, called without a network."""

import asyncio
from contextlib import asynccontextmanager

import httpx

from nextbuy.service.assembly import open_service
from nextbuy.service.config import ServiceSettings
from nextbuy.service.guard.keys import KeyRing


@asynccontextmanager
async def lifespan(app):
    """Start, and in the end stop, as a server does."""
    inbox, outbox = asyncio.Queue(), asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    running = asyncio.create_task(app(scope, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    started = await outbox.get()
    if started["type"] != "lifespan.startup.complete":
        raise RuntimeError(started)
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        await outbox.get()
        await running


@asynccontextmanager
async def opened(folder, keys=None, clock=None, **settings):
    """A client of the service over a folder; what it opened is closed afterwards."""
    more = {} if clock is None else {"clock": clock}
    settings = ServiceSettings(**{"model_process": False} | settings)
    app = open_service(folder, settings, KeyRing(keys), **more)
    async with lifespan(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client


def using(ask, folder, **settings):
    """What `ask` gives of a client, in an event loop of its own."""

    async def run():
        async with opened(folder, **settings) as client:
            return await ask(client)

    return asyncio.run(run())


def bearer(key):
    return {} if key is None else {"Authorization": f"Bearer {key}"}
