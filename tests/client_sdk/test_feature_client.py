"""What both feature clients send and return."""

from __future__ import annotations

import inspect
import math
import pickle
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from client_sdk.clients import AnyFeatureClient
from client_sdk.recording_server import Behaviour, RecordingServer, fail, wait
from client_sdk.test_errors import bad_request, retry_info
from rankloom import (
    AsyncFeatureClient,
    ClientClosedError,
    DeadlineExceededError,
    Event,
    FeatureClient,
    FeatureQuery,
    InvalidRequestError,
    Item,
    ServerError,
    TabularFeatures,
    UserFeatures,
)
from rankloom._feature_messages import build_batch_request, build_features_request
from rankloom._policy import MAX_ATTEMPTS, MAX_MESSAGE_BYTES
from rankloom_proto.v1 import features_pb2 as wire

Code = grpc.StatusCode
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
EVENTS = [wire.Event(item_id="x", liked=True), wire.Event(item_id="y", liked=False)]
EVENTS[0].time.FromDatetime(NOON)
AGE = Duration(seconds=90, nanos=500_000_000)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def features(**changes: Any) -> wire.UserFeatures:  # noqa: ANN401
    given = {"vector": floats(0.5, -1.0, 0.25), "feature_version": "v1", "history_version": 2**63}
    return wire.UserFeatures(**{**given, "history_age": AGE, "events": EVENTS, **changes})


def answer(*found: wire.UserFeatures) -> Behaviour:
    return lambda *_: wire.GetUserFeaturesResponse(features=found)


async def test_features_of_a_user(
    feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    matrix = wire.TabularMatrix(
        rows=2, columns=3, values=floats(1, 2, 3, 4, 5, 6), schema_digest="s"
    )
    server.will(answer(features(tabular=matrix)))
    film = Item("b", title="Été", year=1999)
    async with feature_client_class(server.target) as client:
        found = await client.user_features(user="42", items=["a", film])
    assert found == UserFeatures(
        vector=(0.5, -1.0, 0.25),
        feature_version="v1",
        cold_start=False,
        events=(Event("x", liked=True, time=NOON), Event("y", liked=False)),
        history_version=2**63,
        history_age_s=90.5,
        tabular=TabularFeatures(((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), "s"),
    )
    assert pickle.loads(pickle.dumps(found)) == found
    assert hash(found) == hash(pickle.loads(pickle.dumps(found)))
    text = wire.ItemText(title="Été", year=1999)
    candidates = [wire.Candidate(item_id="a"), wire.Candidate(item_id="b", text=text)]
    query = wire.UserQuery(user_id="42", candidates=candidates)
    assert server.received[0].features_request == wire.GetUserFeaturesRequest(users=[query])


async def test_a_new_user_without_candidates(
    feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    server.will(answer(wire.UserFeatures(cold_start=True)))
    async with feature_client_class(server.target) as client:
        found = await client.user_features(history=[])
    assert found == UserFeatures((), "", True, (), None, None, None)
    (query,) = server.received[0].features_request.users
    assert query.WhichOneof("subject") == "history"


async def test_features_of_many_users(
    feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    server.will(answer(features(), features(cold_start=True)))
    queries = [
        FeatureQuery(user="42"),
        FeatureQuery(history=[Event("x", liked=True, time=NOON)], items=["a"]),
    ]
    async with feature_client_class(server.target) as client:
        found = await client.user_features_batch(queries, feature_version="v1")
    assert [each.cold_start for each in found] == [False, True]
    assert server.received[0].features_request.feature_version == "v1"
    assert server.received[0].features_request.users == [
        wire.UserQuery(user_id="42"),
        wire.UserQuery(
            history=wire.History(events=EVENTS[:1]), candidates=[wire.Candidate(item_id="a")]
        ),
    ]


async def test_unknown_values_are_nan(
    feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    matrix = wire.TabularMatrix(rows=1, columns=2, values=floats(math.nan, 0.1))
    server.will(answer(features(tabular=matrix)))
    async with feature_client_class(server.target) as client:
        found = await client.user_features(user="42", items=["a"])
    assert found.tabular is not None
    ((first, second),) = found.tabular.rows
    assert math.isnan(first)
    assert second == pytest.approx(0.1)


async def test_predicted_ratings_come_where_they_are_asked_for(
    feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    matrix = wire.TabularMatrix(rows=2, columns=0)
    server.will(answer(features(tabular=matrix, predicted_ratings=floats(4.5, math.nan))))
    async with feature_client_class(server.target) as client:
        found = await client.user_features(user="42", items=["a", "b"], predict_ratings=True)
        assert found.predicted_ratings is not None
        first, second = found.predicted_ratings
        assert first == 4.5
        assert math.isnan(second)
        server.will(answer(features(tabular=matrix)))
        plain = await client.user_features(user="42", items=["a", "b"])
        assert plain.predicted_ratings is None
        with pytest.raises(InvalidRequestError, match="predict_ratings: must be bool"):
            await client.user_features(user="42", predict_ratings=1)  # type: ignore[arg-type]
    asked = [each.features_request.users[0].predict_ratings for each in server.received]
    assert asked == [True, False]


async def test_how_many_events_are_answered_is_the_callers_choice(
    feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    server.will(answer(features()))
    async with feature_client_class(server.target) as client:
        await client.user_features(user="42")
        await client.user_features(user="42", max_events=0)
        with pytest.raises(InvalidRequestError, match="max_events: must be from 0"):
            await client.user_features(user="42", max_events=-1)
    first, second = (each.features_request.users[0] for each in server.received)
    assert (first.HasField("max_events"), second.HasField("max_events")) == (False, True)


MALFORMED: dict[str, tuple[wire.UserFeatures, ...]] = {
    "nobody": (),
    "two users": (features(), features()),
    "half a float": (features(vector=b"\x00" * 6),),
    "too few values": (
        features(tabular=wire.TabularMatrix(rows=2, columns=3, values=floats(1, 2, 3))),
    ),
    "ratings of other candidates": (
        features(tabular=wire.TabularMatrix(rows=2, columns=0), predicted_ratings=floats(4.0)),
    ),
    "values without rows": (features(tabular=wire.TabularMatrix(values=floats(1))),),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_an_answer_that_does_not_fit_is_a_server_error(
    name: str, feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    server.will(answer(*MALFORMED[name]))
    async with feature_client_class(server.target) as client:
        with pytest.raises(ServerError):
            await client.user_features(user="42", items=["a"])


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 3), (2, 0)])
async def test_an_empty_matrix(
    rows: int, columns: int, feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    server.will(answer(features(tabular=wire.TabularMatrix(rows=rows, columns=columns))))
    async with feature_client_class(server.target) as client:
        found = await client.user_features(user="42", items=["a"])
    assert found.tabular == TabularFeatures(((),) * rows, "")


async def test_an_answer_may_be_larger_than_a_request(
    feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    """256 users with 500 candidates each, or a few events of years, are more than 4 MiB."""
    long = [wire.Event(item_id="x" * 256)] * (2 * MAX_MESSAGE_BYTES // 256)
    server.will(answer(features(events=long)))
    async with feature_client_class(server.target) as client:
        found = await client.user_features(user="42", timeout_s=30)
    assert len(found.events) == len(long)


async def test_calls_have_the_policy_of_rankings(
    feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    starting = fail(Code.UNAVAILABLE, "starting", retry_info(1))
    server.will(*[starting] * (MAX_ATTEMPTS - 1), answer(features()), wait(30.0))
    async with feature_client_class(server.target, timeout_s=7.0) as client:
        await client.wait_ready(5.0)
        await client.user_features(user="42")
        assert len(server.received) == MAX_ATTEMPTS
        assert 5.5 < server.received[-1].time_remaining_s < 7.1
        with pytest.raises(DeadlineExceededError):
            await client.user_features(user="42", timeout_s=0.2)
        server.will(fail(Code.INVALID_ARGUMENT, "no", bad_request(("users[0].user_id", "empty"))))
        with pytest.raises(InvalidRequestError) as caught:
            await client.user_features(user="")
        assert caught.value.violations[0].field == "users[0].user_id"
        await client.close()
        with pytest.raises(ClientClosedError):
            await client.user_features(user="42")


def of_batch(*queries: object) -> Callable[[], object]:
    return lambda: build_batch_request(queries)  # type: ignore[arg-type]


def of_one(**query: Any) -> Callable[[], object]:  # noqa: ANN401
    return lambda: build_features_request(FeatureQuery(**query))


GOOD = FeatureQuery(user="u")
LARGE = Item("a", description="x" * MAX_MESSAGE_BYTES)
REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("user", of_one()),
    ("user", of_one(user="u", history=[])),
    ("user", of_one(user=42)),
    ("feature_version", lambda: build_features_request(GOOD, 1)),  # type: ignore[arg-type]
    ("history[0]", of_one(history=["a"])),
    ("items", of_one(user="u", items="abc")),
    ("items[0].year", of_one(user="u", items=[Item("a", year=2**31)])),
    ("items", of_one(user="u", items=[LARGE])),
    ("queries", lambda: build_batch_request("abc")),  # type: ignore[arg-type]
    ("queries[1]", of_batch(GOOD, "42")),
    ("queries[1].user", of_batch(GOOD, FeatureQuery())),
    ("queries[0].history[0]", of_batch(FeatureQuery(history=["a"]))),  # type: ignore[list-item]
    ("queries[0].items[0]", of_batch(FeatureQuery(user="u", items=[1]))),  # type: ignore[list-item]
    ("queries", of_batch(FeatureQuery(user="u", items=[LARGE]))),
]


@pytest.mark.parametrize(
    ("field", "build"), REFUSED, ids=[f"{n}-{field}" for n, (field, _) in enumerate(REFUSED)]
)
def test_what_the_wire_cannot_express_is_refused(field: str, build: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build()
    assert [violation.field for violation in caught.value.violations] == [field]


def test_both_clients_take_the_same_arguments() -> None:
    calls = ("user_features", "user_features_batch", "record_events", "forget_user", "model_info")
    for name in (*calls, "wait_ready", "close", "__init__"):
        blocking = inspect.signature(getattr(FeatureClient, name))
        asynchronous = inspect.signature(getattr(AsyncFeatureClient, name))
        assert blocking.parameters == asynchronous.parameters, name
