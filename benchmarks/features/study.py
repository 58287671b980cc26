"""Times feature calls of a real server beside empty ones, and vectors beside the bare session."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from grpc_health.v1 import health_pb2

from benchmarks.common.live_server import LiveServer, live_server
from rankloom_adapters.bundle import open_bundle
from rankloom_features.encoder import MAX_EVENTS, Encoder
from rankloom_features.event_store.store import events_beside
from rankloom_features.events import Event
from rankloom_features.histories import Histories
from rankloom_features.service import SERVICE_NAME
from rankloom_features.wire import MAX_EVENTS as MAX_EVENTS_OF_CALL
from rankloom_proto.v1 import features_pb2, ranking_pb2
from rankloom_ranker.loaded import load_features
from rankloom_training.user_events import opened_events

NUM_USERS: Final = 256  # of one call: the most that it may have
NUM_CANDIDATES: Final = 20
BATCH: Final = 512  # histories of one pass of the model
TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class FeaturesStudy:
    """Seconds of each turn. ``encode``, ``session``: of BATCH histories.

    ``record``: of a call with one event. ``record_event``: of an event, in full calls.
    """

    encode: Sequence[float]
    session: Sequence[float]
    empty: Sequence[float]
    one_user: Sequence[float]
    many_users: Sequence[float]
    record: Sequence[float]
    record_event: Sequence[float]
    event_to_ranking: Sequence[float]


async def run_features_study(bundle: Path, num: int) -> FeaturesStudy:
    """Measures ``num`` turns of each kind."""
    encode, session = _batches(bundle, num)
    with opened_events(events_beside(bundle)) as store:
        users = list(store.users())
        histories = [store.history(users[n % len(users)]).events for n in range(NUM_USERS)]
    items = [item.item_id for item in load_features(open_bundle(bundle)).provider.catalogue.items]
    async with live_server(bundle) as stubs:
        await _rank(stubs, users[-1], items)  # a first call compiles and opens what it needs
        empty, one, many = list[float](), list[float](), list[float]()
        for turn in range(num):  # each asks for a user who is not cached
            empty.append(await _timed(_empty(stubs)))
            one.append(await _timed(_features(stubs, [users[turn % len(users)]])))
        record_event = list[float]()
        for turn in range(max(num // 10, 3)):
            asked, calls = _copies(histories, turn)
            seconds = [await _timed(_recorded(stubs, call)) for call in calls]
            record_event.append(sum(seconds) / sum(len(call.events) for call in calls))
            many.append(await _timed(_features(stubs, asked)))
        record, ranked = list[float](), list[float]()
        for turn in range(num):
            record.append(await _timed(_record(stubs, [f"fresh {turn}"], items)))
            ranked.append(record[-1] + await _timed(_rank(stubs, f"fresh {turn}", items)))
    return FeaturesStudy(encode, session, empty, one, many, record, record_event, ranked)


def _batches(bundle: Path, num: int) -> tuple[list[float], list[float]]:
    """The encoder, which pads histories itself, and its session on padded ones, in turns."""
    provider = load_features(open_bundle(bundle)).provider
    encoder, random = provider.encoder, np.random.default_rng(0)
    length = MAX_EVENTS // 2
    index = random.integers(0, len(provider.catalogue), BATCH * length)
    first = np.arange(BATCH, dtype=np.int64) * length
    liked, times = random.random(len(index)) < 0.5, np.full(len(index), np.nan)
    histories = Histories(index, liked, times, first, first + length)
    feed = _padded(histories)
    encode, session = list[float](), list[float]()
    for _ in range(num):
        started = time.perf_counter()
        encoder.encode_all(histories)
        middle = time.perf_counter()
        _run_bare(encoder, feed)
        encode.append(middle - started)
        session.append(time.perf_counter() - middle)
    return encode, session


def _padded(histories: Histories) -> dict[str, Any]:
    items, liked = histories.newest(MAX_EVENTS)
    return {"items": items, "liked": liked, "candidates": np.zeros((BATCH, 1), np.int64)}


def _run_bare(encoder: Encoder, feed: dict[str, Any]) -> None:
    encoder._session.run(None, feed)  # the floor: nothing around the session


async def _timed(call: Coroutine[object, object, object]) -> float:
    started = time.perf_counter()
    await call
    return time.perf_counter() - started


async def _empty(stubs: LiveServer) -> None:
    await stubs.health.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=TIMEOUT_S)


async def _features(stubs: LiveServer, users: Sequence[str]) -> None:
    asked = [features_pb2.UserQuery(user_id=user) for user in users]
    request = features_pb2.GetUserFeaturesRequest(users=asked)
    await stubs.features.GetUserFeatures(request, timeout=TIMEOUT_S)


async def _record(stubs: LiveServer, users: Sequence[str], items: Sequence[str]) -> None:
    request = features_pb2.RecordEventsRequest()
    for n, user in enumerate(users):
        request.events.add(event_id="1", user_id=user, item_id=items[n % len(items)], liked=True)
    await _recorded(stubs, request)


async def _recorded(stubs: LiveServer, request: features_pb2.RecordEventsRequest) -> None:
    await stubs.features.RecordEvents(request, timeout=TIMEOUT_S)


def _copies(
    histories: Sequence[Sequence[Event]], turn: int
) -> tuple[list[str], list[features_pb2.RecordEventsRequest]]:
    """As many new users, whom no cache has, and the calls that give them the same events."""
    users, events = list[str](), list[features_pb2.UserEvent]()
    for number, history in enumerate(histories):
        users.append(f"{turn} {number}")
        for at, each in enumerate(history):
            event = features_pb2.UserEvent(
                event_id=str(at), user_id=users[-1], item_id=each.item_id, liked=each.liked
            )
            event.time.FromNanoseconds(round((each.time or 0.0) * 1e9))
            events.append(event)
    return users, [
        features_pb2.RecordEventsRequest(events=events[first : first + MAX_EVENTS_OF_CALL])
        for first in range(0, len(events), MAX_EVENTS_OF_CALL)
    ]


async def _rank(stubs: LiveServer, user: str, items: Sequence[str]) -> None:
    candidates = [features_pb2.Candidate(item_id=item) for item in items[:NUM_CANDIDATES]]
    request = ranking_pb2.RankRequest(user_id=user, candidates=candidates)
    answer = await stubs.ranking.Rank(request, timeout=TIMEOUT_S)
    if answer.routing.cold_start:
        raise RuntimeError("the ranking does not know the event that was recorded before it")
