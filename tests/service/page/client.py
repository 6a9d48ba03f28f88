"""A browser without a screen: asks an application directly, and keeps its cookies."""

import asyncio
from typing import Any

import httpx


class Client:
    """Redirects are not followed, so that tests see them."""

    def __init__(self, app: Any, address: str = "http://127.0.0.1") -> None:
        self.app, self.address = app, address
        self.cookies = httpx.Cookies()

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("POST", path, **more)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, client=("127.0.0.1", 50_000))
            async with httpx.AsyncClient(
                transport=transport, base_url=self.address, cookies=self.cookies
            ) as client:
                response = await client.request(method, path, **more)
                self.cookies = client.cookies
                return response

        return asyncio.run(asked())
