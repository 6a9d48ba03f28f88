"""An application over doubles, and a client that calls it without a network."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.application import create_app
from nextbuy.service.config import Limits, ServiceSettings
from tests.service.doubles import NOW, CountingModel, DirectCommitter, MemoryStore


@dataclass
class Service:
    app: FastAPI
    store: MemoryStore
    model: CountingModel

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request; each has an event loop of its own."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.call("POST", path, json=body, **options)

    def send(self, raw: bytes, path: str = "/v1/purchases", **headers: str) -> httpx.Response:
        """Raw bytes as JSON, unless headers say otherwise."""
        told = {"content-type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.call("POST", path, content=raw, headers=told)


def service_with(**limits: Any) -> Service:
    store = MemoryStore()
    model = CountingModel(store)
    parts = ServiceParts(store=store, committer=DirectCommitter(store), live=model, now=lambda: NOW)
    app = create_app(parts, ServiceSettings(limits=Limits(**limits)))
    return Service(app=app, store=store, model=model)


@pytest.fixture
def service() -> Service:
    return service_with()
