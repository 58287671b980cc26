"""The blocking and the asyncio clients behind one set of methods: each scenario is written once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Self

from rankloom import (
    AsyncClient,
    AsyncExplanationStream,
    AsyncFeatureClient,
    AsyncRolloutClient,
    Client,
    Explanation,
    ExplanationStream,
    FeatureClient,
    ModelInfo,
    Ranking,
    Recommendation,
    Retrieval,
    RevisionList,
    Rollout,
    RolloutClient,
    UserFeatures,
)


class Threaded:
    """A blocking client whose calls each block a thread of their own."""

    def __init__(self, client: Client | FeatureClient | RolloutClient) -> None:
        self._blocking = client

    async def wait_ready(self, timeout_s: float = 10.0) -> None:
        await asyncio.to_thread(self._blocking.wait_ready, timeout_s)

    async def close(self) -> None:
        await asyncio.to_thread(self._blocking.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class ThreadedClient(Threaded):
    """`Client` with the methods of `AsyncClient`."""

    def __init__(self, target: str, **options: object) -> None:
        self._client = Client(target, **options)  # type: ignore[arg-type]
        super().__init__(self._client)

    async def rank(self, *args: object, **options: object) -> Ranking:
        return await asyncio.to_thread(self._client.rank, *args, **options)  # type: ignore[arg-type]

    async def retrieve(self, *args: object, **options: object) -> Retrieval:
        return await asyncio.to_thread(self._client.retrieve, *args, **options)  # type: ignore[arg-type]

    async def recommend(self, *args: object, **options: object) -> Recommendation:
        return await asyncio.to_thread(self._client.recommend, *args, **options)  # type: ignore[arg-type]

    def explain(self, *args: object, **options: object) -> ThreadedStream:
        return ThreadedStream(self._client.explain(*args, **options))  # type: ignore[arg-type]


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


class ThreadedFeatureClient(Threaded):
    """`FeatureClient` with the methods of `AsyncFeatureClient`."""

    def __init__(self, target: str, **options: object) -> None:
        self._client = FeatureClient(target, **options)  # type: ignore[arg-type]
        super().__init__(self._client)

    async def user_features(self, **options: object) -> UserFeatures:
        return await asyncio.to_thread(self._client.user_features, **options)  # type: ignore[arg-type]

    async def user_features_batch(
        self,
        queries: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> tuple[UserFeatures, ...]:
        return await asyncio.to_thread(self._client.user_features_batch, queries, **options)

    async def record_events(self, *args: Any, **options: Any) -> tuple[int, ...]:  # noqa: ANN401
        return await asyncio.to_thread(self._client.record_events, *args, **options)

    async def forget_user(self, *args: Any, **options: Any) -> int:  # noqa: ANN401
        return await asyncio.to_thread(self._client.forget_user, *args, **options)

    async def model_info(self, **options: Any) -> ModelInfo:  # noqa: ANN401
        return await asyncio.to_thread(self._client.model_info, **options)


class ThreadedRolloutClient(Threaded):
    """`RolloutClient` with the methods of `AsyncRolloutClient`."""

    def __init__(self, target: str, **options: Any) -> None:  # noqa: ANN401
        self._client = RolloutClient(target, **options)
        super().__init__(self._client)

    async def stage(self, url: str, **options: Any) -> Rollout:  # noqa: ANN401
        return await asyncio.to_thread(self._client.stage, url, **options)

    async def stage_expert(self, name: str, url: str, **options: Any) -> Rollout:  # noqa: ANN401
        return await asyncio.to_thread(self._client.stage_expert, name, url, **options)

    async def upload(self, folder: str | Path, **options: Any) -> Rollout:  # noqa: ANN401
        return await asyncio.to_thread(self._client.upload, folder, **options)

    async def start_shadow(self, *args: int, **options: Any) -> Rollout:  # noqa: ANN401
        return await asyncio.to_thread(self._client.start_shadow, *args, **options)

    async def start_canary(self, revision: int, percent: int, **options: Any) -> Rollout:  # noqa: ANN401
        return await asyncio.to_thread(self._client.start_canary, revision, percent, **options)

    async def promote(self, revision: int, **options: Any) -> Rollout:  # noqa: ANN401
        return await asyncio.to_thread(self._client.promote, revision, **options)

    async def roll_back(self, revision: int, **options: Any) -> Rollout:  # noqa: ANN401
        return await asyncio.to_thread(self._client.roll_back, revision, **options)

    async def retire(self, revision: int, **options: Any) -> Rollout:  # noqa: ANN401
        return await asyncio.to_thread(self._client.retire, revision, **options)

    async def get(self, revision: int, **options: Any) -> Rollout:  # noqa: ANN401
        return await asyncio.to_thread(self._client.get, revision, **options)

    async def list(self, **options: Any) -> RevisionList:  # noqa: ANN401
        return await asyncio.to_thread(self._client.list, **options)

    async def watch(self) -> AsyncGenerator[RevisionList, None]:
        changes = self._client.watch()
        try:
            while (found := await asyncio.to_thread(next, changes, None)) is not None:
                yield found
        finally:
            await asyncio.to_thread(changes.close)


AnyStream = ThreadedStream | AsyncExplanationStream
AnyClient = type[ThreadedClient] | type[AsyncClient]
AnyFeatureClient = type[ThreadedFeatureClient] | type[AsyncFeatureClient]
AnyRolloutClient = type[ThreadedRolloutClient] | type[AsyncRolloutClient]
