"""Explanations in both clients: pieces as they arrive, the whole text, and every early end."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from client_sdk.clients import AnyClient, AnyStream
from client_sdk.recording_server import (
    Behaviour,
    RecordingServer,
    Silence,
    chunk,
    fail,
    tell,
    tell_then,
)
from rankloom import (
    AsyncClient,
    CallCancelledError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    ErrorReason,
    Evidence,
    ExpertWeight,
    Explanation,
    ExplanationSource,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    Revision,
    Route,
    Routing,
    ServerError,
    StopReason,
    StoredRationale,
    UnavailableError,
    Verdict,
)
from rankloom._policy import DEFAULT_TIMEOUT_S, MAX_ATTEMPTS
from rankloom_proto.v1 import ranking_pb2 as wire

Code = grpc.StatusCode
FINAL: dict[str, Any] = {
    "revision": wire.Revision(number=7, bundle_digest="sha256:ab"),
    "verdict": wire.VERDICT_LIKED,
    "score": 1.25,
    "probability": 0.75,
    "routing": wire.Routing(
        route=wire.ROUTE_SINGLE,
        weights=[wire.ExpertWeight(expert="drama", digest="d1", weight=1.0)],
        entropy=0.5,
        history_events=12,
    ),
    "prompt_tokens": 100,
    "generated_tokens": 3,
    "stop_reason": wire.STOP_REASON_STOP_TOKEN,
    "evidence": [wire.Evidence(item_id="b", liked=True, influence=-0.25)],
}
WHOLE = Explanation(
    request_id="r",
    text="You like wars.",
    verdict=Verdict.LIKED,
    score=1.25,
    probability=0.75,
    revision=Revision(7, "sha256:ab"),
    routing=Routing(Route.SINGLE, (ExpertWeight("drama", "d1", 1.0),), 0.5, False, 12),
    prompt_tokens=100,
    generated_tokens=3,
    stop_reason=StopReason.STOP_TOKEN,
    evidence=(Evidence("b", True, -0.25),),
)


async def texts(stream: AnyStream) -> list[str]:
    return [text async for text in stream]


async def test_pieces_and_then_the_whole(client_class: AnyClient, server: RecordingServer) -> None:
    server.will(tell("You", " like", " wars.", **FINAL))
    async with client_class(server.target) as client:
        stream = client.explain("a", user="u", request_id="r")
        assert await texts(stream) == ["You", " like", " wars."]
        assert await stream.result() == WHOLE
        assert await stream.result() == WHOLE
        assert await texts(stream) == []


async def test_the_whole_at_once(client_class: AnyClient, server: RecordingServer) -> None:
    server.will(tell("You", " like", " wars.", **FINAL))
    async with client_class(server.target) as client:
        assert await client.explain("a", user="u", request_id="r").result() == WHOLE


STORED = Explanation(
    request_id="r",
    text="It is warm.",
    verdict=Verdict.UNKNOWN,
    score=0.0,
    probability=0.0,
    revision=Revision(7, "sha256:ab"),
    routing=Routing(Route.UNKNOWN, (), 0.0, False, 0),
    prompt_tokens=0,
    generated_tokens=0,
    stop_reason=StopReason.UNKNOWN,
    source=ExplanationSource.STORED,
    stored=StoredRationale(datetime(2026, 5, 4, 3, 2, 1, 7, UTC), "evidence", "d1", 4.5),
)


async def test_a_stored_explanation_comes_with_its_origin(
    client_class: AnyClient, server: RecordingServer
) -> None:
    stored = wire.StoredRationale(generator="evidence", digest="d1", rating=4.5)
    stored.written.FromJsonString("2026-05-04T03:02:01.000007Z")
    source = wire.EXPLANATION_SOURCE_STORED
    server.will(tell("It is warm.", revision=FINAL["revision"], source=source, stored=stored))
    async with client_class(server.target) as client:
        for given in ("stored", ExplanationSource.STORED):
            answer = await client.explain("a", user="u", request_id="r", source=given).result()
            assert answer == STORED
            assert pickle.loads(pickle.dumps(answer)) == STORED
    assert [each.explain_request.source for each in server.received] == [source] * 2


async def test_another_source_is_refused_before_anything_is_sent(
    client_class: AnyClient, server: RecordingServer
) -> None:
    async with client_class(server.target) as client:
        for wrong in ("fresh", ExplanationSource.UNKNOWN, None):
            with pytest.raises(InvalidRequestError, match='source: must be "live" or "stored"'):
                client.explain("a", user="u", source=wrong)  # type: ignore[arg-type]
    assert not server.received


async def test_the_rest_belongs_to_the_whole(
    client_class: AnyClient, server: RecordingServer
) -> None:
    server.will(tell("You", " like", " wars.", **FINAL))
    async with client_class(server.target) as client:
        stream = client.explain("a", user="u", request_id="r")
        assert await anext(stream) == "You"
        assert await stream.result() == WHOLE


async def test_a_piece_comes_before_the_next_is_written(
    client_class: AnyClient, server: RecordingServer
) -> None:
    silence = Silence("You")
    server.will(silence)
    async with (
        client_class(server.target, timeout_s=20.0) as client,
        client.explain("a", user="u") as stream,
    ):
        assert await anext(stream) == "You"
        assert not silence.ended.is_set()
    assert await asyncio.to_thread(silence.ended.wait, 10.0)


async def test_an_empty_text_is_an_explanation_too(
    client_class: AnyClient, server: RecordingServer
) -> None:
    server.will(tell(verdict=wire.VERDICT_DISLIKED, stop_reason=wire.STOP_REASON_DEADLINE))
    async with client_class(server.target) as client:
        explanation = await client.explain("a", user="u").result()
    assert (explanation.text, explanation.verdict) == ("", Verdict.DISLIKED)
    assert explanation.stop_reason is StopReason.DEADLINE


async def test_what_only_a_newer_server_knows_is_unknown(
    client_class: AnyClient, server: RecordingServer
) -> None:
    # As bytes, since a newer server sends numbers that our enum lacks.
    final = wire.Explanation.FromString(b"\x18\x63\x48\x62")

    def behave(*_: object) -> Iterator[wire.ExplainResponse]:
        yield wire.ExplainResponse.FromString(b"\x1a\x00")  # a part of a kind to come
        yield chunk("x")
        yield wire.ExplainResponse(final=final)

    server.will(behave)
    async with client_class(server.target) as client:
        stream = client.explain("a", user="u")
        assert await texts(stream) == ["x"]
        explanation = await stream.result()
    assert explanation.verdict is Verdict.UNKNOWN
    assert explanation.stop_reason is StopReason.UNKNOWN


async def test_an_end_without_a_verdict_is_a_server_error(
    client_class: AnyClient, server: RecordingServer
) -> None:
    server.will(tell_then("You", lambda *_: iter(())))
    async with client_class(server.target) as client:
        stream = client.explain("a", user="u", request_id="r")
        assert await texts(stream) == ["You"]
        with pytest.raises(ServerError, match="without a verdict") as caught:
            await stream.result()
    assert caught.value.request_id == "r"


REFUSED: list[tuple[Behaviour, type[Exception]]] = [
    (fail(Code.NOT_FOUND, "no such revision"), NotFoundError),
    (fail(Code.UNIMPLEMENTED, "an older server"), ServerError),
]


@pytest.mark.parametrize(("behaviour", "kind"), REFUSED, ids=["not found", "unimplemented"])
async def test_a_refusal_is_raised_by_the_stream(
    client_class: AnyClient,
    server: RecordingServer,
    behaviour: Behaviour,
    kind: type[Exception],
) -> None:
    server.will(behaviour)
    async with client_class(server.target) as client:
        with pytest.raises(kind):
            await texts(client.explain("a", user="u"))
        with pytest.raises(kind):
            await client.explain("a", user="u").result()


async def test_an_error_between_pieces_has_all_details(
    client_class: AnyClient, server: RecordingServer
) -> None:
    info = ErrorInfo(reason="FALLBACK_REFUSED", domain="rankloom")
    server.will(tell_then("You", fail(Code.FAILED_PRECONDITION, "engine failed", info)))
    async with client_class(server.target) as client:
        stream = client.explain("a", user="u", request_id="r")
        assert await anext(stream) == "You"
        with pytest.raises(PreconditionError, match="engine failed") as caught:
            await anext(stream)
    assert caught.value.reason is ErrorReason.FALLBACK_REFUSED
    assert caught.value.request_id == "r"


async def test_unavailable_is_retried_before_the_first_piece_only(
    client_class: AnyClient, server: RecordingServer
) -> None:
    starting = fail(Code.UNAVAILABLE, "starting", RetryInfo())
    server.will(*[starting] * (MAX_ATTEMPTS - 1), tell("You", **FINAL))
    async with client_class(server.target) as client:
        assert (await client.explain("a", user="u").result()).text == "You"
        assert len(server.received) == MAX_ATTEMPTS
        server.will(tell_then("You", starting))
        with pytest.raises(UnavailableError):
            await client.explain("a", user="u").result()
    assert len(server.received) == MAX_ATTEMPTS + 1


async def test_no_server(client_class: AnyClient, server: RecordingServer) -> None:
    server.stop()
    async with client_class(server.target) as client:
        with pytest.raises(ConnectionFailedError):
            await client.explain("a", user="u").result()


@pytest.mark.parametrize(
    ("arguments", "expected_s"), [({}, DEFAULT_TIMEOUT_S), ({"timeout_s": 5}, 5.0)]
)
async def test_every_call_has_a_deadline(
    client_class: AnyClient, server: RecordingServer, arguments: dict[str, Any], expected_s: float
) -> None:
    server.will(tell(**FINAL))
    async with client_class(server.target) as client:
        await client.explain("a", user="u", **arguments).result()
    # gRPC rounds up what it sends.
    assert expected_s - 1.5 < server.received[0].time_remaining_s < expected_s + 0.1


async def test_a_deadline_ends_the_stream(client_class: AnyClient, server: RecordingServer) -> None:
    server.will(Silence("You"))
    started = time.monotonic()
    async with client_class(server.target) as client:
        stream = client.explain("a", user="u", timeout_s=0.3)
        assert await anext(stream) == "You"
        with pytest.raises(DeadlineExceededError):
            await anext(stream)
    assert 0.2 < time.monotonic() - started < 3.0


async def test_closing_the_stream_ends_the_call_on_the_server(
    client_class: AnyClient, server: RecordingServer
) -> None:
    silence = Silence("You")
    server.will(silence)
    async with client_class(server.target, timeout_s=20.0) as client:
        stream = client.explain("a", user="u", request_id="r")
        await anext(stream)
        await stream.close()
        assert await asyncio.to_thread(silence.ended.wait, 10.0)
        with pytest.raises(CallCancelledError) as caught:
            await anext(stream)
        assert (caught.value.status, caught.value.request_id) == ("CANCELLED", "r")
        await stream.close()


async def test_closing_a_stream_that_has_ended_changes_nothing(
    client_class: AnyClient, server: RecordingServer
) -> None:
    server.will(tell("You", " like", " wars.", **FINAL))
    async with client_class(server.target) as client:
        async with client.explain("a", user="u", request_id="r") as stream:
            await stream.result()
        assert await stream.result() == WHOLE


async def test_closing_the_client_ends_its_streams(
    client_class: AnyClient, server: RecordingServer
) -> None:
    silence = Silence("You")
    server.will(silence)
    client = client_class(server.target, timeout_s=20.0)
    stream = client.explain("a", user="u")
    await anext(stream)
    reading = asyncio.create_task(stream.result())
    await asyncio.sleep(0.05)
    await client.close()
    with pytest.raises(CallCancelledError):
        await reading
    assert await asyncio.to_thread(silence.ended.wait, 10.0)
    with pytest.raises(ClientClosedError):
        await client.explain("a", user="u").result()


async def test_cancelling_a_task_stays_a_cancellation(server: RecordingServer) -> None:
    silence = Silence("You")
    server.will(silence)
    async with AsyncClient(server.target, timeout_s=20.0) as client:
        stream = client.explain("a", user="u")
        await anext(stream)
        reading = asyncio.create_task(stream.result())
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await asyncio.to_thread(silence.ended.wait, 10.0)


async def test_a_stream_that_is_dropped_is_ended(
    client_class: AnyClient, server: RecordingServer
) -> None:
    silence = Silence("You")
    server.will(silence)
    async with client_class(server.target, timeout_s=20.0) as client:
        async for text in client.explain("a", user="u"):
            assert text == "You"
            break
        assert await asyncio.to_thread(silence.ended.wait, 10.0)


def test_an_explanation_is_a_value() -> None:
    assert pickle.loads(pickle.dumps(WHOLE)) == WHOLE
    assert hash(WHOLE) == hash(pickle.loads(pickle.dumps(WHOLE)))
