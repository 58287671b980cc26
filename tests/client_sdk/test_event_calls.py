"""Recording events, forgetting users and asking for the model, with both feature clients."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import grpc
import pytest

from client_sdk.clients import AnyFeatureClient
from client_sdk.recording_server import Behaviour, RecordingServer, fail
from client_sdk.test_errors import bad_request, retry_info
from rankloom import (
    BufferFullError,
    EventsNotRecordedError,
    FeatureClient,
    InvalidRequestError,
    ModelInfo,
    OverloadedError,
    ServerError,
    UnavailableError,
    UserEvent,
)
from rankloom._event_messages import build_forget_request, build_record_request
from rankloom._policy import MAX_ATTEMPTS, MAX_MESSAGE_BYTES
from rankloom.testing import FakeServer, ForgetCall, RecordCall
from rankloom_proto.v1 import features_pb2 as wire

Code = grpc.StatusCode
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
LIKE = UserEvent(user="42", item_id="x", liked=False, time=NOON, event_id="e1")
RATING = UserEvent(user="43", item_id="y", rating=3)
INFO = ModelInfo("sasrec", 8, "v1", 100, ("a", "b"), "s", None)


def positions(*found: int) -> Behaviour:
    return lambda *_: wire.RecordEventsResponse(positions=found)


def sent(server: RecordingServer) -> list[wire.RecordEventsRequest]:
    return [wire.RecordEventsRequest.FromString(each.payload) for each in server.received]


async def test_events_go_out_as_they_are(
    feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    server.will(positions(2**63, 7))
    async with feature_client_class(server.target) as client:
        assert await client.record_events([LIKE, RATING]) == (2**63, 7)
    first = wire.UserEvent(event_id="e1", user_id="42", item_id="x", liked=False)
    first.time.FromDatetime(NOON)
    second = wire.UserEvent(event_id=RATING.event_id, user_id="43", item_id="y", rating=3.0)
    assert sent(server) == [wire.RecordEventsRequest(events=[first, second])]


async def test_a_call_that_is_sent_again_has_the_same_ids(
    feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    starting = fail(Code.UNAVAILABLE, "starting", retry_info(1))
    server.will(*[starting] * (MAX_ATTEMPTS - 1), positions(1))
    async with feature_client_class(server.target) as client:
        await client.record_events([UserEvent(user="u", item_id="i", liked=True)])
    assert len(server.received) == MAX_ATTEMPTS
    assert len({each.payload for each in server.received}) == 1
    assert sent(server)[0].events[0].event_id


def test_each_event_has_an_id_of_its_own() -> None:
    events = [UserEvent(user="u", item_id="i", liked=True) for _ in range(100)]
    assert len({each.event_id for each in events}) == 100
    assert pickle.loads(pickle.dumps(events)) == events


FAILURES: dict[str, tuple[Behaviour, type[Exception]]] = {
    "wrong": (fail(Code.INVALID_ARGUMENT, "no", bad_request(("events[0].rating", "no"))),
              InvalidRequestError),
    "full": (fail(Code.RESOURCE_EXHAUSTED, "full", retry_info(5)), OverloadedError),
    "read-only": (fail(Code.UNAVAILABLE, "read-only", retry_info(5)), UnavailableError),
    "too few positions": (positions(), ServerError),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
async def test_events_that_are_not_stored_are_an_error(
    name: str, feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    behaviour, error = FAILURES[name]
    server.will(behaviour)
    async with feature_client_class(server.target) as client:
        with pytest.raises(error):
            await client.record_events([LIKE])


async def test_forgetting(feature_client_class: AnyFeatureClient, server: RecordingServer) -> None:
    server.will(lambda *_: wire.ForgetUserResponse(num_events=3))
    async with feature_client_class(server.target) as client:
        assert await client.forget_user("42") == 3
    assert server.received[0].payload == wire.ForgetUserRequest(user_id="42").SerializeToString()


@pytest.mark.parametrize("like_above", [None, 0.0, 3.5])
async def test_the_model(
    like_above: float | None, feature_client_class: AnyFeatureClient, server: RecordingServer
) -> None:
    answer = wire.GetModelInfoResponse(
        kind="sasrec",
        dim=8,
        feature_version="v1",
        num_items=100,
        columns=["a", "b"],
        schema_digest="s",
        like_above=like_above,
    )
    server.will(lambda *_: answer)
    async with feature_client_class(server.target) as client:
        found = await client.model_info()
    assert found == ModelInfo("sasrec", 8, "v1", 100, ("a", "b"), "s", like_above)


def of(**changes: Any) -> Callable[[], object]:  # noqa: ANN401
    given = {"user": "u", "item_id": "i", "liked": True, **changes}
    return lambda: build_record_request([LIKE, UserEvent(**given)])


REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("events", lambda: build_record_request("abc")),  # type: ignore[arg-type]
    ("events[0]", lambda: build_record_request(["abc"])),  # type: ignore[list-item]
    ("events[1].user", of(user=42)),
    ("events[1].item_id", of(item_id=None)),
    ("events[1].event_id", of(event_id=b"e")),
    ("events[1].liked", of(liked=None)),
    ("events[1].liked", of(rating=1.0)),
    ("events[1].liked", of(liked=1)),
    ("events[1].rating", of(liked=None, rating="5")),
    ("events[1].time", of(time=1_700_000_000)),
    ("events[1].time", of(time=NOON.replace(tzinfo=None))),
    ("events", of(item_id="x" * MAX_MESSAGE_BYTES)),
    ("user", lambda: build_forget_request(42)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("field", "build"), REFUSED, ids=[f"{n}-{field}" for n, (field, _) in enumerate(REFUSED)]
)
def test_what_the_wire_cannot_express_is_refused(field: str, build: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build()
    assert [violation.field for violation in caught.value.violations] == [field]


def test_the_fake_server_keeps_events_until_their_user_is_forgotten() -> None:
    other = UserEvent(user="43", item_id="y", rating=3.0, event_id="e1")
    elsewhere = datetime(2024, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    with FakeServer() as server, FeatureClient(server.target) as client:
        assert client.record_events([LIKE, other, LIKE]) == (1, 2, 1)
        assert client.record_events([UserEvent(
            user="44", item_id="z", liked=True, time=elsewhere, event_id="e2"
        )]) == (3,)  # fmt: skip
        assert server.events[:2] == (LIKE, other)
        assert server.events[2].time == NOON
        assert client.forget_user("42") == 1
        assert client.forget_user("42") == 0
        assert [each.user for each in server.events] == ["43", "44"]
        calls = server.record_calls
        assert [type(call) for call in server.calls] == [RecordCall] * 2 + [ForgetCall] * 2
    assert calls[0].events == (LIKE, other, LIKE)
    assert [call.user for call in server.forget_calls] == ["42", "42"]


def test_the_fake_server_answers_as_scripted() -> None:
    with FakeServer() as server, FeatureClient(server.target) as client:
        server.on_record(OverloadedError, None)
        with pytest.raises(OverloadedError):
            client.record_events([LIKE])
        assert not server.events
        assert client.record_events([LIKE]) == (1,)
        server.on_forget(OverloadedError)
        with pytest.raises(OverloadedError):
            client.forget_user("42")
        assert server.events == (LIKE,)
        assert client.model_info().feature_version == client.user_features(user="u").feature_version
        server.on_model_info(INFO)
        assert client.model_info() == INFO


def test_errors_of_a_recorder_survive_a_pickle() -> None:
    error = EventsNotRecordedError("no", (LIKE,))
    assert pickle.loads(pickle.dumps(error)).events == (LIKE,)
    assert str(pickle.loads(pickle.dumps(BufferFullError("full")))) == "full"
