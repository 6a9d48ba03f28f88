"""An application over doubles, and a client that calls it without a network."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.application import create_app
from nextbuy.service.config import Limits, ServiceSettings
from nextbuy.service.jobs import Jobs
from tests.service.doubles import NOW, CountingModel, DirectCommitter, MemoryStore


@dataclass
class Service:
    app: FastAPI
    parts: ServiceParts
    store: MemoryStore
    model: CountingModel
    jobs: Jobs

    def together(self, ask: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        """What `ask` gives, in an event loop of its own."""

        async def run() -> Any:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await ask(client)

        return asyncio.run(run())

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.together(lambda client: client.request(method, path, **options))

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.call("POST", path, json=body, **options)

    def send(self, raw: bytes, path: str = "/v1/purchases", **headers: str) -> httpx.Response:
        """Raw bytes as JSON, unless headers say otherwise."""
        told = {"content-type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.call("POST", path, content=raw, headers=told)


def service_with(parts: dict[str, Any] | None = None, **limits: Any) -> Service:
    store = MemoryStore()
    model = CountingModel(store)
    made = ServiceParts(
        store=store, committer=DirectCommitter(store), live=model, now=lambda: NOW, **(parts or {})
    )
    settings = ServiceSettings(limits=Limits(**limits), ready_seconds=0)
    jobs = Jobs(settings.jobs)
    app = create_app(made, settings, jobs=jobs)
    return Service(app=app, parts=made, store=store, model=model, jobs=jobs)


@pytest.fixture
def service() -> Service:
    return service_with()


@pytest.fixture
def service_of() -> Callable[..., Service]:
    return service_with
