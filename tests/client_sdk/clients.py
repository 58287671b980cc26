"""Both clients behind one set of methods, so that each scenario is written once."""

from __future__ import annotations

import asyncio
from typing import Self

from rankloom import (
    AsyncClient,
    AsyncExplanationStream,
    Client,
    Explanation,
    ExplanationStream,
    Ranking,
)


class ThreadedClient:
    """`Client` with the methods of `AsyncClient`; each call blocks a thread of its own."""

    def __init__(self, target: str, **options: object) -> None:
        self._client = Client(target, **options)  # type: ignore[arg-type]

    async def rank(self, *args: object, **options: object) -> Ranking:
        return await asyncio.to_thread(self._client.rank, *args, **options)  # type: ignore[arg-type]

    def explain(self, *args: object, **options: object) -> ThreadedStream:
        return ThreadedStream(self._client.explain(*args, **options))  # type: ignore[arg-type]

    async def wait_ready(self, timeout_s: float = 10.0) -> None:
        await asyncio.to_thread(self._client.wait_ready, timeout_s)

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class ThreadedStream:
    """`ExplanationStream` with the methods of `AsyncExplanationStream`."""

    def __init__(self, stream: ExplanationStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        text = await asyncio.to_thread(next, self._stream, None)
        if text is None:
            raise StopAsyncIteration
        return text

    async def result(self) -> Explanation:
        return await asyncio.to_thread(self._stream.result)

    async def close(self) -> None:
        self._stream.close()

    async def __aenter__(self) -> Self:
        self._stream.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stream.__exit__(None, None, None)


AnyStream = ThreadedStream | AsyncExplanationStream
AnyClient = type[ThreadedClient] | type[AsyncClient]
