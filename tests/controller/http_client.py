"""Requests to the controller's service without a socket, from any thread."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI


class Client:
    """A client of one application. Each request has an event loop of its own, so several threads may ask at a time."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def get(self, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._request("GET", path, **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._request("POST", path, **options))

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self._app), base_url="http://controller") as client:
            return await client.request(method, path, **options)
