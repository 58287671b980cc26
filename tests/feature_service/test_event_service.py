"""FeatureService on both event stores: recording, forgetting, and the model's description."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from feature_service.feature_bundle import DIM, ITEMS
from rankloom_features import wire
from rankloom_features.event_store.memory import MemoryEventStore
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import (
    EventStore,
    EventStoreError,
    EventStoreFullError,
    UserEvent,
)
from rankloom_features.events import MAX_TIME_S, MIN_TIME_S, Event
from rankloom_features.model_info import model_info_of
from rankloom_features.provider import UserQuery
from rankloom_features.service import FeatureService, Provider
from rankloom_features.wire import query_to_wire
from rankloom_proto.v1.features_pb2 import (
    Candidate,
    ForgetUserRequest,
    GetModelInfoRequest,
    GetUserFeaturesRequest,
    RecordEventsRequest,
)
from rankloom_proto.v1.features_pb2 import UserEvent as EventMessage
from rankloom_proto.v1.features_pb2 import UserQuery as QueryMessage
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_ranker.loaded import BundleFeatures
from rankloom_server.feature_app import feature_service_server
from server.servers import failure_of, no_warm_up, opened, settings

if TYPE_CHECKING:  # in the stubs only
    from rankloom_proto.v1.features_pb2_grpc import FeatureServiceAsyncStub as FeatureStub

SYNTHETIC = "synthetic-secret"
LONG = SYNTHETIC * 100
LIKE_ABOVE = 3.0
Code = grpc.StatusCode


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventStore]:
    made: EventStore = (
        MemoryEventStore() if request.param == "memory" else SqliteEventStore(tmp_path / "events")
    )
    yield made
    made.close()


@pytest.fixture
def provider(feature_parts: BundleFeatures) -> BundleFeatures:
    return replace(feature_parts, info=replace(feature_parts.info, like_above=LIKE_ABOVE))


@pytest.fixture
async def service(provider: BundleFeatures, store: EventStore) -> AsyncIterator[FeatureStub]:
    async with served(provider, store) as stub:
        yield stub


@asynccontextmanager
async def served(provider: Provider, store: EventStore) -> AsyncIterator[FeatureStub]:
    server = feature_service_server(settings().server, provider, store, no_warm_up)
    async with (
        opened(server) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        yield FeatureServiceStub(channel)


def message(event_id: str = "e1", user: str = "u", **fields: object) -> EventMessage:
    given = {"item_id": "item-1", **(fields or {"liked": True})}
    return EventMessage(event_id=event_id, user_id=user, **given)  # type: ignore[arg-type]


async def record(service: FeatureStub, *events: EventMessage) -> list[int]:
    answer: Any = await service.RecordEvents(RecordEventsRequest(events=events), timeout=10)
    return [*answer.positions]


async def test_events_are_stored_in_the_order_of_their_times(
    service: FeatureStub, store: EventStore
) -> None:
    late, early = Timestamp(seconds=200, nanos=500_000_000), Timestamp(seconds=100)
    positions = await record(
        service,
        message("late", item_id="item-1", liked=True, time=late),
        message("early", item_id="in-no-catalogue", liked=False, time=early),
        message("other", user="v", liked=True, time=early),
    )
    assert positions == sorted(set(positions))
    assert store.history("u").events == (
        Event("in-no-catalogue", False, 100.0),
        Event("item-1", True, 200.5),
    )
    assert store.history("u").version == positions[1]
    assert store.history("v").events == (Event("item-1", True, 100.0),)


async def test_an_event_that_is_sent_again_is_one_event(
    service: FeatureStub, store: EventStore
) -> None:
    first = await record(service, message("a"), message("b"), message("a"))
    assert first[0] == first[2] < first[1]
    again = await record(service, message("c"), message("b", liked=False))
    assert again[1] == first[1] < again[0]
    assert [event.liked for event in store.history("u").events] == [True] * 3
    assert len(await record(service, message("a", user="v"))) == 1
    assert len(store.history("v").events) == 1, "ids are unique among one user's events only"


async def test_an_event_without_a_time_happens_when_it_arrives(
    service: FeatureStub, store: EventStore
) -> None:
    before = time.time()
    await record(service, message())
    (event,) = store.history("u").events
    assert event.time is not None
    assert before <= event.time <= time.time()


async def test_a_rating_above_the_threshold_is_a_like(
    service: FeatureStub, store: EventStore
) -> None:
    ratings = [LIKE_ABOVE, math.nextafter(LIKE_ABOVE, math.inf), -1.0]
    await record(service, *(message(str(n), rating=rating) for n, rating in enumerate(ratings)))
    assert [event.liked for event in store.history("u").events] == [False, True, False]


async def test_a_model_without_a_threshold_takes_no_ratings(
    feature_parts: BundleFeatures, store: EventStore
) -> None:
    async with served(feature_parts, store) as service:
        failure = await failure_of(record(service, message("a"), message("b", rating=4.0)))
        info = await service.GetModelInfo(GetModelInfoRequest(), timeout=10)
    assert (failure.code, failure.field) == (Code.INVALID_ARGUMENT, "events[1].rating")
    assert "give liked" in failure.message
    assert store.history("u").events == (), "all events are stored or none"
    assert not info.HasField("like_above")


MISTAKES: dict[str, tuple[RecordEventsRequest, str]] = {
    "no events": (RecordEventsRequest(), "events"),
    "too many": (RecordEventsRequest(events=[EventMessage()] * 1001), "events"),
    **{
        name: (RecordEventsRequest(events=[message("fine"), wrong]), f"events[1].{field}")
        for name, wrong, field in (
            ("no event id", message(""), "event_id"),
            ("long event id", message(LONG), "event_id"),
            ("no user", message(user=""), "user_id"),
            ("long user", message(user=LONG), "user_id"),
            ("no item", message(item_id="", liked=True), "item_id"),
            ("long item", message(item_id=LONG, liked=True), "item_id"),
            ("no label", EventMessage(event_id="e", user_id="u", item_id="i"), "label"),
            ("NaN", message(rating=math.nan), "rating"),
            ("infinite", message(rating=math.inf), "rating"),
            ("year 0", message(liked=True, time=Timestamp(seconds=MIN_TIME_S - 1)), "time"),
            ("year 10000", message(liked=True, time=Timestamp(seconds=MAX_TIME_S + 1)), "time"),
            ("nanos", message(liked=True, time=Timestamp(nanos=-1)), "time"),
        )
    },
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_wrong_event_is_refused_by_its_path(name: str, provider: BundleFeatures) -> None:
    request, field = MISTAKES[name]
    store = MemoryEventStore()
    async with served(provider, store) as service:
        failure = await failure_of(service.RecordEvents(request, timeout=10))
    assert (failure.code, failure.field) == (Code.INVALID_ARGUMENT, field)
    assert SYNTHETIC not in failure.raw
    assert store.statistics().num_events == 0, "all events are stored or none"


async def test_the_limits_themselves_are_allowed(service: FeatureStub) -> None:
    ids, item = [f"{n:0>256}" for n in range(1000)], "i" * 256
    events = [message(each, "u" * 256, item_id=item, liked=True) for each in ids]
    assert len(await record(service, *events)) == wire.MAX_EVENTS


async def test_a_large_request_of_empty_events_is_refused_before_it_is_built(
    service: FeatureStub,
) -> None:
    request = RecordEventsRequest(events=[EventMessage()] * 100_000)
    failure = await failure_of(service.RecordEvents(request, timeout=10))
    assert (failure.code, failure.field) == (Code.INVALID_ARGUMENT, "events")
    assert "at most" in failure.message


async def test_a_forgotten_user_has_no_events(service: FeatureStub, store: EventStore) -> None:
    await record(service, message("a"), message("b"), message("c", user="v"))
    answer = await service.ForgetUser(ForgetUserRequest(user_id="u"), timeout=10)
    assert answer.num_events == 2
    assert (await service.ForgetUser(ForgetUserRequest(user_id="u"), timeout=10)).num_events == 0
    assert store.history("u").events == ()
    assert len(store.history("v").events) == 1


async def test_what_was_recorded_and_forgotten_is_counted(
    provider: BundleFeatures, store: EventStore
) -> None:
    server = feature_service_server(settings().server, provider, store, no_warm_up)
    async with opened(server) as target, grpc.aio.insecure_channel(target) as channel:
        service = FeatureServiceStub(channel)
        await record(service, message("a"), message("b"))
        await failure_of(record(service))
        await service.ForgetUser(ForgetUserRequest(user_id="u"), timeout=10)
    value = server.metrics.registry.get_sample_value
    assert value("rankloom_events_recorded_total") == 2
    assert value("rankloom_users_forgotten_total") == 1


@pytest.mark.parametrize("user_id", ["", LONG], ids=["empty", "long"])
async def test_a_wrong_user_is_not_forgotten(user_id: str, service: FeatureStub) -> None:
    failure = await failure_of(service.ForgetUser(ForgetUserRequest(user_id=user_id), timeout=10))
    assert (failure.code, failure.field) == (Code.INVALID_ARGUMENT, "user_id")
    assert SYNTHETIC not in failure.raw


async def test_the_model_describes_itself(service: FeatureStub, provider: BundleFeatures) -> None:
    info = await service.GetModelInfo(GetModelInfoRequest(), timeout=10)
    query = QueryMessage(user_id="u", candidates=[Candidate(item_id="item-1")])
    request = GetUserFeaturesRequest(users=[query], feature_version=info.feature_version)
    (features,) = (await service.GetUserFeatures(request, timeout=10)).features
    assert (info.dim, info.num_items, info.like_above) == (DIM, len(ITEMS), LIKE_ABOVE)
    assert len(info.columns) == features.tabular.columns
    assert info.columns[-1] == "collaborative_logit"
    assert info.schema_digest == features.tabular.schema_digest
    assert info.feature_version == features.feature_version
    assert info.kind == provider.info.kind


@pytest.mark.parametrize(
    ("metadata", "kind", "like_above"),
    [
        ({"collaborative": "sasrec", "like_above": 3}, "sasrec", 3.0),
        ({"collaborative": "mf", "like_above": None}, "mf", None),
        ({}, "", None),
    ],
)
def test_a_bundle_says_kind_and_threshold(
    metadata: dict[str, object],
    kind: str,
    like_above: float | None,
    feature_parts: BundleFeatures,
) -> None:
    info = model_info_of(feature_parts.provider, metadata)
    assert (info.kind, info.like_above) == (kind, like_above)


async def test_only_the_asked_feature_version_answers(service: FeatureStub) -> None:
    def request(version: str) -> GetUserFeaturesRequest:
        return GetUserFeaturesRequest(users=[QueryMessage(user_id="u")], feature_version=version)

    other = await failure_of(service.GetUserFeatures(request("other"), timeout=10))
    assert other.code is Code.FAILED_PRECONDITION
    assert other.reason == "FEATURE_VERSION_MISMATCH"
    empty = await failure_of(service.GetUserFeatures(request(""), timeout=10))
    assert (empty.code, empty.field) == (Code.INVALID_ARGUMENT, "feature_version")


@pytest.mark.parametrize(("newest", "age_s"), [(1_000.0, 500.25), (1_600.0, 0.0), (None, None)])
async def test_features_say_how_old_the_history_is(
    newest: float | None, age_s: float | None, provider: BundleFeatures
) -> None:
    events = (Event("item-1", True, newest and newest - 10), Event("item-2", True, newest))
    query = query_to_wire(UserQuery(None, events))
    service = FeatureService(provider, MemoryEventStore(), lambda: 1_500.25)
    answer = await service.GetUserFeatures(GetUserFeaturesRequest(users=[query]), None)  # type: ignore[arg-type]
    (features,) = answer.features
    assert not features.HasField("history_version")
    found = features.history_age.ToTimedelta().total_seconds()
    assert (found if features.HasField("history_age") else None) == age_s


class FailingStore(MemoryEventStore):
    """Cannot be written."""

    def __init__(self, error: EventStoreError) -> None:
        self._error = error

    def append(self, events: Sequence[UserEvent]) -> tuple[int, ...]:
        raise self._error

    def forget(self, user_id: str) -> int:
        raise self._error


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (EventStoreFullError("the disk is full; make room"), "RESOURCE_EXHAUSTED", "NO_ROOM"),
        (EventStoreError("read-only; remount it"), "UNAVAILABLE", "EVENT_STORE_UNAVAILABLE"),
    ],
    ids=["full", "read-only"],
)
async def test_a_store_that_fails_is_a_status_that_says_what_to_do(
    error: EventStoreError, code: str, reason: str, provider: BundleFeatures
) -> None:
    async with served(provider, FailingStore(error)) as service:
        recording = await failure_of(record(service, message(user=SYNTHETIC)))
        request = ForgetUserRequest(user_id=SYNTHETIC)
        forgetting = await failure_of(service.ForgetUser(request, timeout=10))
        users = [QueryMessage(user_id="u")]
        assert await service.GetUserFeatures(GetUserFeaturesRequest(users=users), timeout=10)
    for failure in (recording, forgetting):
        assert (failure.code.name, failure.reason) == (code, reason)
        assert failure.message == str(error)
        assert failure.retry_after_s
        assert SYNTHETIC not in failure.raw


async def test_many_callers_record_at_once(service: FeatureStub, store: EventStore) -> None:
    calls = [record(service, *(message(f"{caller}-{n}") for n in range(20))) for caller in range(8)]
    positions = [each for call in await asyncio.gather(*calls) for each in call]
    assert len(set(positions)) == len(positions) == 160
    assert len(store.history("u").events) == 160
