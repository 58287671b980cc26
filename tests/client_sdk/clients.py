"""Both clients behind one set of methods, so that each scenario is written once."""

from __future__ import annotations

import asyncio
from typing import Self

from rankloom import AsyncClient, Client, Ranking


class ThreadedClient:
    """`Client` with the methods of `AsyncClient`; each call blocks a thread of its own."""

    def __init__(self, target: str, **options: object) -> None:
        self._client = Client(target, **options)  # type: ignore[arg-type]

    async def rank(self, *args: object, **options: object) -> Ranking:
        return await asyncio.to_thread(self._client.rank, *args, **options)  # type: ignore[arg-type]

    async def wait_ready(self, timeout_s: float = 10.0) -> None:
        await asyncio.to_thread(self._client.wait_ready, timeout_s)

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


AnyClient = type[ThreadedClient] | type[AsyncClient]
