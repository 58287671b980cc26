from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from feature_service.feature_bundle import EVENTS, ITEMS, KNOWN_USER
from rankloom_features import wire
from rankloom_features.catalogue import MAX_YEAR, Item
from rankloom_features.events import MAX_TIME_S, MIN_TIME_S, Event
from rankloom_features.provider import MAX_CANDIDATES_ON_LOOP, UserFeatures, UserQuery
from rankloom_features.wire import features_from_wire, features_to_wire, query_to_wire
from rankloom_proto.v1 import features_pb2
from rankloom_proto.v1.features_pb2 import (
    Candidate,
    GetUserFeaturesRequest,
    GetUserFeaturesResponse,
    History,
    ItemText,
    TabularMatrix,
)
from rankloom_proto.v1.features_pb2 import (
    UserQuery as QueryMessage,
)
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_ranker.loaded import BundleFeatures
from rankloom_server.feature_app import feature_server
from server.servers import FeaturesCall, failure_of, opened, settings

SYNTHETIC = "synthetic-secret"
Mistake = Callable[[GetUserFeaturesRequest], object]


@pytest.fixture
async def channel(feature_parts: BundleFeatures) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        opened(feature_server(settings().server, feature_parts, "digest")) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        yield channel


def ask(channel: grpc.aio.Channel, *users: UserQuery) -> FeaturesCall:
    request = GetUserFeaturesRequest(users=map(query_to_wire, users))
    return FeatureServiceStub(channel).GetUserFeatures(request, timeout=10)


async def test_answers_what_the_provider_computes(
    channel: grpc.aio.Channel, feature_parts: BundleFeatures
) -> None:
    new_item = Item("new", "New", 1999, ("Drama",))
    queries = (
        UserQuery(KNOWN_USER, None, (ITEMS[1], new_item)),
        UserQuery(None, (Event("item-2", True, 12.5), Event("elsewhere", False)), ITEMS),
        UserQuery("nobody", None),
        UserQuery(None, ()),
    )
    answer: GetUserFeaturesResponse = await ask(channel, *queries)
    expected = feature_parts.provider.features_of_many(queries)
    assert len(answer.features) == len(queries)
    for message, features in zip(answer.features, expected, strict=True):
        assert_same(features_from_wire(message), features)
    assert [message.cold_start for message in answer.features] == [False, False, True, True]
    assert [message.HasField("tabular") for message in answer.features] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("num_candidates", [0, 3, MAX_CANDIDATES_ON_LOOP, 200])
async def test_one_user_is_answered_as_among_others(
    num_candidates: int, channel: grpc.aio.Channel
) -> None:
    candidates = tuple(Item(f"item-{number}") for number in range(num_candidates))
    query = UserQuery(KNOWN_USER, None, candidates)
    alone: GetUserFeaturesResponse = await ask(channel, query)
    among: GetUserFeaturesResponse = await ask(channel, UserQuery("nobody", None), query)
    found, expected = alone.features[0], among.features[1]
    assert found.tabular.rows == num_candidates
    table, wanted = (features_from_wire(message).tabular for message in (found, expected))
    np.testing.assert_allclose(table, wanted, rtol=1e-3)  # some columns are of the moment
    for message in (found, expected):
        message.ClearField("tabular")
        message.ClearField("history_age")
    assert found == expected
    assert len(found.events) == len(EVENTS)


def assert_same(found: UserFeatures, expected: UserFeatures) -> None:
    np.testing.assert_array_equal(found.vector, expected.vector)
    assert (found.feature_version, found.cold_start) == (
        expected.feature_version,
        expected.cold_start,
    )
    assert (found.events, found.stored_version) == (expected.events, expected.stored_version)
    if len(expected.tabular):
        np.testing.assert_array_equal(found.tabular, expected.tabular)
        assert found.schema_digest == expected.schema_digest


async def test_events_come_oldest_first_with_their_times(channel: grpc.aio.Channel) -> None:
    answer: GetUserFeaturesResponse = await ask(channel, UserQuery(KNOWN_USER, None))
    assert features_from_wire(answer.features[0]).events == EVENTS


async def test_the_newest_events_alone_are_answered_where_few_are_asked_for(
    channel: grpc.aio.Channel,
) -> None:
    asked = [QueryMessage(user_id=KNOWN_USER, max_events=most) for most in (0, 1, len(EVENTS) + 1)]
    request = GetUserFeaturesRequest(users=[*asked, QueryMessage(user_id=KNOWN_USER)])
    answer: GetUserFeaturesResponse = await FeatureServiceStub(channel).GetUserFeatures(
        request, timeout=10
    )
    found = [features_from_wire(message).events for message in answer.features]
    assert found == [(), EVENTS[-1:], EVENTS, EVENTS]
    for message in answer.features:
        message.ClearField("events")
    assert all(message == answer.features[-1] for message in answer.features)


def set_user(**fields: object) -> Mistake:
    return lambda request: request.users[0].MergeFrom(QueryMessage(**fields))  # type: ignore[arg-type]


def set_event(**fields: object) -> Mistake:
    event = features_pb2.Event(**{"item_id": "item-1", **fields})  # type: ignore[arg-type]
    return set_user(history=History(events=[event]))


def set_candidate(item_id: str = "item-1", **text: object) -> Mistake:
    candidate = Candidate(item_id=item_id, text=ItemText(**text))  # type: ignore[arg-type]
    return set_user(candidates=[candidate])


def add_users(request: GetUserFeaturesRequest) -> None:
    request.users.extend([QueryMessage(user_id="u")] * wire.MAX_USERS)


ONE_EVENT = features_pb2.Event(item_id="item-1")
LONG = SYNTHETIC * 100

MISTAKES: dict[str, tuple[Mistake, str]] = {
    "no users": (lambda request: request.ClearField("users"), "users"),
    "too many users": (add_users, "users"),
    "no subject": (lambda request: request.users[0].ClearField("user_id"), "users[0].subject"),
    "empty user id": (set_user(user_id=""), "users[0].user_id"),
    "too many ablations": (set_user(ablate_newest=wire.MAX_USERS), "users[0].ablate_newest"),
    "long user id": (set_user(user_id=LONG), "users[0].user_id"),
    "too many events": (
        set_user(history=History(events=[ONE_EVENT] * (wire.MAX_EVENTS + 1))),
        "users[0].history.events",
    ),
    "event without item": (set_event(item_id=""), "users[0].history.events[0].item_id"),
    "event of a long item": (set_event(item_id=LONG), "users[0].history.events[0].item_id"),
    "event before year 1": (
        set_event(time=Timestamp(seconds=MIN_TIME_S - 1)),
        "users[0].history.events[0].time",
    ),
    "event after year 9999": (
        set_event(time=Timestamp(seconds=MAX_TIME_S + 1)),
        "users[0].history.events[0].time",
    ),
    "negative nanos": (set_event(time=Timestamp(nanos=-1)), "users[0].history.events[0].time"),
    "a second of nanos": (
        set_event(time=Timestamp(nanos=wire.NANOS_PER_S)),
        "users[0].history.events[0].time",
    ),
    "too many candidates": (
        set_user(candidates=[Candidate(item_id=str(n)) for n in range(wire.MAX_CANDIDATES + 1)]),
        "users[0].candidates",
    ),
    "candidate twice": (
        set_user(candidates=[Candidate(item_id=SYNTHETIC)] * 2),
        "users[0].candidates[1].item_id",
    ),
    "candidate without id": (set_candidate(""), "users[0].candidates[0].item_id"),
    "long candidate id": (set_candidate(LONG), "users[0].candidates[0].item_id"),
    "long title": (set_candidate(title=LONG), "users[0].candidates[0].text.title"),
    "long description": (
        set_candidate(description=LONG * 10),
        "users[0].candidates[0].text.description",
    ),
    "too many attributes": (
        set_candidate(attributes=["a"] * (wire.MAX_ATTRIBUTES + 1)),
        "users[0].candidates[0].text.attributes",
    ),
    "empty attribute": (
        set_candidate(attributes=["a", ""]),
        "users[0].candidates[0].text.attributes[1]",
    ),
    "long attribute": (
        set_candidate(attributes=[LONG]),
        "users[0].candidates[0].text.attributes[0]",
    ),
    "negative year": (set_candidate(year=-1), "users[0].candidates[0].text.year"),
    "year 10000": (set_candidate(year=MAX_YEAR + 1), "users[0].candidates[0].text.year"),
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_refuses_a_wrong_field_by_its_path(name: str, channel: grpc.aio.Channel) -> None:
    mistake, field = MISTAKES[name]
    request = GetUserFeaturesRequest(users=[QueryMessage(user_id="u")])
    stub = FeatureServiceStub(channel)
    assert await stub.GetUserFeatures(request, timeout=10)
    mistake(request)
    failure = await failure_of(stub.GetUserFeatures(request, timeout=10))
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert failure.message.startswith(f"{field}: ")
    assert SYNTHETIC not in failure.raw
    assert len((await ask(channel, UserQuery("u", None))).features) == 1


async def test_the_limits_themselves_are_allowed(channel: grpc.aio.Channel) -> None:
    item = Item("i" * 256, "t" * 1_000, 9_999, ("a" * 100,) * 32, "d" * 10_000)
    events = (Event("item-1", True, float(MIN_TIME_S)),) * wire.MAX_EVENTS
    others = tuple(Item(str(n), year=0) for n in range(wire.MAX_CANDIDATES - 1))
    query = query_to_wire(UserQuery(None, events, (item, *others)))
    query.candidates[0].text.title, query.candidates[0].text.description = item.title, "d" * 10_000
    request = GetUserFeaturesRequest(users=[query])
    answer = await FeatureServiceStub(channel).GetUserFeatures(request, timeout=10)
    assert answer.features[0].tabular.rows == wire.MAX_CANDIDATES


def test_a_query_leaves_out_what_no_feature_is_made_of() -> None:
    item = Item("item", SYNTHETIC, 1999, ("Drama",), SYNTHETIC)
    message = query_to_wire(UserQuery("user", None, (item,)))
    assert SYNTHETIC.encode() not in message.SerializeToString()
    assert wire.parse_query(message, "user_id").candidates == (Item("item", "", 1999, ("Drama",)),)


@pytest.mark.parametrize("time", [0.0, -0.25, 1e9 + 0.999_999_999, float(MIN_TIME_S)])
def test_times_survive_the_wire(time: float) -> None:
    message = query_to_wire(UserQuery(None, (Event("item", True, time),)))
    (event,) = wire.parse_query(message, "history").history or ()
    assert event.time is not None
    assert math.isclose(event.time, time, abs_tol=1e-6)


def test_bytes_that_are_no_array_become_an_empty_one(feature_parts: BundleFeatures) -> None:
    message = features_to_wire(feature_parts.provider.features(UserQuery("u", None, ITEMS)))
    message.vector += b"\0"
    message.tabular.values = message.tabular.values[:-4]
    features = features_from_wire(message)
    assert features.vector.shape == (0,)
    assert features.tabular.shape == (0, 0)


def test_a_matrix_that_claims_more_than_it_holds_allocates_nothing() -> None:
    huge = 2**32 - 1
    message = features_pb2.UserFeatures(tabular=TabularMatrix(rows=huge, columns=huge))
    assert features_from_wire(message).tabular.shape == (0, 0)


def test_ablated_features_survive_the_wire(feature_parts: BundleFeatures) -> None:
    query = UserQuery("u", (Event("i0", True), Event("i1", False)), ITEMS[:2], ablate_newest=2)
    features = feature_parts.provider.features(query)
    message = features_to_wire(features)
    assert not any(each.events for each in message.ablated)
    found = features_from_wire(message)
    assert [each.events for each in found.ablated] == [each.events for each in features.ablated]
    for mine, theirs in zip(found.ablated, features.ablated, strict=True):
        assert np.array_equal(mine.vector, theirs.vector)
        assert np.array_equal(mine.tabular, theirs.tabular, equal_nan=True)
