"""Times how long an event takes until a retrieval reflects it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_proto.v1 import features_pb2, ranking_pb2
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_server.app import servers
from rankloom_server.config import Settings
from rankloom_training.user_events import events_of_bundle

if TYPE_CHECKING:
    from rankloom_proto.v1.features_pb2_grpc import FeatureServiceAsyncStub
    from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceAsyncStub

K: Final = 10
TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class FreshnessStudy:
    """Seconds from sending an event to the first answer that reflects it, one for each event.

    ``calls``: how many retrievals that took.
    """

    seconds: list[float] = field(default_factory=list[float])
    calls: list[int] = field(default_factory=list[int])


async def run_freshness_study(bundle: Path, folder: Path, num_events: int) -> FreshnessStudy:
    """Users in turn like the item that is nearest to them. ``folder``: for a copy of the events."""
    found = FreshnessStudy()
    with events_of_bundle(bundle) as store:
        users = list(store.users())
    async with _serving(bundle, folder / "events.sqlite") as (ranking, features):
        for number in range(-1, num_events):  # the first is a warm-up
            user = users[number % len(users)]
            seconds, calls = await _one_event(ranking, features, user, f"fresh {number}")
            if number >= 0:
                found.seconds.append(seconds)
                found.calls.append(calls)
    return found


async def _one_event(
    ranking: RankingServiceAsyncStub, features: FeatureServiceAsyncStub, user: str, event_id: str
) -> tuple[float, int]:
    retrieval = ranking_pb2.RetrieveRequest(user_id=user, k=K)
    before = await ranking.Retrieve(retrieval, timeout=TIMEOUT_S)
    liked = before.items[0].item_id
    event = features_pb2.UserEvent(event_id=event_id, user_id=user, item_id=liked, liked=True)
    started, calls = time.perf_counter(), 0
    await features.RecordEvents(features_pb2.RecordEventsRequest(events=[event]), timeout=TIMEOUT_S)
    while True:
        answer = await ranking.Retrieve(retrieval, timeout=TIMEOUT_S)
        calls += 1
        if _reflects(answer, before, liked):
            return time.perf_counter() - started, calls
        if time.perf_counter() - started > TIMEOUT_S:
            raise TimeoutError("a recorded event is in no answer")


def _reflects(
    answer: ranking_pb2.RetrieveResponse, before: ranking_pb2.RetrieveResponse, liked: str
) -> bool:
    """Without the liked item, of a later history, and by another vector."""
    scores = {item.item_id: item.score for item in answer.items}
    former = {item.item_id: item.score for item in before.items}
    is_later = answer.history_version > before.history_version
    is_moved = any(former.get(item_id, score) != score for item_id, score in scores.items())
    return is_later and is_moved and liked not in scores


@asynccontextmanager
async def _serving(
    bundle: Path, events: Path
) -> AsyncIterator[tuple[RankingServiceAsyncStub, FeatureServiceAsyncStub]]:
    """A server in this process that writes to a copy of the events."""
    copy_events(events_beside(bundle), events)
    given = {"bundle": bundle, "dtype": "float32", "port": 0, "features_port": 0, "events": events}
    async with servers(Settings.from_flat(given)) as (server, _):
        features, _ = server.beside[0]
        ports = [await each.start("127.0.0.1", 0) for each in (server, features)]
        for each in (server, features):
            await each.open()
        addresses = [f"127.0.0.1:{port}" for port in ports]
        try:
            async with (
                grpc.aio.insecure_channel(addresses[0]) as ranking,
                grpc.aio.insecure_channel(addresses[1]) as recording,
            ):
                yield RankingServiceStub(ranking), FeatureServiceStub(recording)
        finally:
            for each in (server, features):
                await each.grpc.stop(None)
