"""Explain with bad input, at bad moments and with broken parts: each ends in a status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rankloom_engine.explain import DEFAULT_EXPLAIN_TOKENS
from rankloom_features.wire import features_to_wire, parse_users
from rankloom_proto.v1.features_pb2 import (
    Candidate,
    Event,
    GetUserFeaturesRequest,
    GetUserFeaturesResponse,
    History,
    ItemText,
    UserFeatures,
)
from rankloom_proto.v1.ranking_pb2 import ExplainOptions, ExplainRequest
from rankloom_server.rpc.lifecycle import CROSSING_S
from server.explanations import Hold, call, explain, request, stubborn, with_options
from server.rankings import candidates, ranking_channel
from server.served_parts import ServedParts, ranking_server
from server.servers import Behaviour, behaving_server, failure_of, opened

SYNTHETIC = "synthetic-secret"
METHOD = "/rankloom.v1.RankingService/Explain"
NOBODY_LISTENS = "127.0.0.1:1"
Code = grpc.StatusCode

FREE_STEPS = 16  # of words, after which some of them are whole


@pytest.fixture
async def channel(parts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    async with ranking_channel(parts) as channel:
        yield channel


def candidate(**text: object) -> dict[str, object]:
    return {"candidate": Candidate(item_id="x", text=ItemText(**text))}  # type: ignore[arg-type]


def event(**fields: object) -> dict[str, object]:
    return {"history": History(events=[Event(**fields)])}  # type: ignore[arg-type]


def options(**fields: object) -> dict[str, object]:
    return {"options": ExplainOptions(**fields)}  # type: ignore[arg-type]


BAD_FIELDS: dict[str, tuple[dict[str, object], str]] = {
    "no candidate": ({"candidate": None}, "candidate.item_id"),
    "long title": (candidate(title=SYNTHETIC * 100), "candidate.text.title"),
    "unknown without text": ({"candidate": candidates([SYNTHETIC])[0]}, "candidate.text.title"),
    "year": (candidate(title=SYNTHETIC, year=-1), "candidate.text.year"),
    "user": ({"user_id": SYNTHETIC * 100}, "user_id"),
    "request id": ({"request_id": SYNTHETIC * 100}, "request_id"),
    "event time": (event(item_id=SYNTHETIC, time=Timestamp(nanos=-1)), "history.events[0].time"),
    "max_tokens": (options(max_tokens=257), "options.max_tokens"),
    "temperature": (options(temperature=2.01), "options.temperature"),
    "temperature NaN": (options(temperature=np.nan), "options.temperature"),
    "fusion": (options(fusion=99), "options.fusion"),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
async def test_a_bad_field_is_refused_by_its_path(
    name: str, channel: grpc.aio.Channel, parts: ServedParts, capsys: pytest.CaptureFixture[str]
) -> None:
    fields, field = BAD_FIELDS[name]
    failure = await failure_of(explain(channel, request(parts, **fields)))
    assert (failure.code, failure.field) == (Code.INVALID_ARGUMENT, field)
    assert SYNTHETIC not in failure.raw
    assert (await explain(channel, request(parts))).final.prompt_tokens
    log = capsys.readouterr().err
    assert '"code": "INVALID_ARGUMENT"' in log
    assert SYNTHETIC not in log


async def test_a_missing_subject_is_refused(channel: grpc.aio.Channel) -> None:
    message = ExplainRequest(candidate=Candidate(item_id="x"))
    failure = await failure_of(explain(channel, message))
    assert (failure.code, failure.field) == (Code.INVALID_ARGUMENT, "subject")


async def read_bytes(channel: grpc.aio.Channel, payload: bytes) -> list[bytes]:
    send: Any = channel.unary_stream(METHOD)
    return [part async for part in send(payload, timeout=10)]


@pytest.mark.parametrize("payload", [b"\xff", b"\x12\x02\xff\xfe", b"\x22\x7f"])
async def test_malformed_bytes_are_refused(
    payload: bytes, channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    failure = await failure_of(read_bytes(channel, payload))
    assert failure.code is Code.INVALID_ARGUMENT
    assert (await explain(channel, request(parts))).final.prompt_tokens


async def test_no_flipped_byte_is_the_servers_fault(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    random = Random(21)
    asked = options(max_tokens=2, temperature=1.0, seed=3, revision=1)
    fields = candidate(title="A Title", year=1999) | event(item_id="x") | asked
    good = request(parts, **fields).SerializeToString()
    codes = set()
    for _ in range(200):
        payload = bytearray(good)
        for _ in range(random.randint(1, 3)):
            payload[random.randrange(len(payload))] = random.randrange(256)
        codes.add(await code_of(read_bytes(channel, bytes(payload))))
    assert {Code.OK, Code.INVALID_ARGUMENT} <= codes <= {
        Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND,
    }  # fmt: skip


async def code_of(answer: Awaitable[object]) -> grpc.StatusCode:
    try:
        await answer
    except grpc.aio.AioRpcError as error:
        return error.code()
    return Code.OK


async def test_a_deadline_that_is_too_short_is_exceeded(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    failure = await failure_of(explain(channel, request(parts), timeout_s=1e-4))
    assert failure.code is Code.DEADLINE_EXCEEDED
    assert (await explain(channel, request(parts))).final.prompt_tokens


async def assert_refused(channel: grpc.aio.Channel, parts: ServedParts, reason: str) -> None:
    failure = await failure_of(explain(channel, request(parts)))
    assert (failure.code, failure.reason) == (Code.FAILED_PRECONDITION, "FALLBACK_REFUSED")
    assert failure.metadata == {"fallback_reason": reason}


def spoiling(parts: ServedParts, spoil: Callable[[UserFeatures], object]) -> Behaviour:
    """The bundle's own features, spoilt."""

    async def behave(message: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        (features,) = parts.loaded.provider.features_of_many(parse_users(message))
        answer = features_to_wire(features)
        spoil(answer)
        return GetUserFeaturesResponse(features=[answer])

    return behave


SPOILT: dict[str, tuple[Callable[[UserFeatures], object], str]] = {
    "vector": (lambda m: setattr(m, "vector", m.vector[:-4]), "VECTOR_INVALID"),
    "feature_version": (
        lambda m: setattr(m, "feature_version", "other"),
        "FEATURE_VERSION_MISMATCH",
    ),
    "tabular": (lambda m: m.ClearField("tabular"), "FEATURES_UNAVAILABLE"),
}


@pytest.mark.parametrize("name", SPOILT)
async def test_nothing_is_explained_from_bad_features(name: str, parts: ServedParts) -> None:
    spoil, reason = SPOILT[name]
    async with (
        opened(behaving_server(spoiling(parts, spoil))) as features,
        ranking_channel(parts, features=features) as channel,
    ):
        await assert_refused(channel, parts, reason)


async def test_nothing_is_explained_without_features(parts: ServedParts) -> None:
    async with ranking_channel(parts, features=NOBODY_LISTENS) as channel:
        await assert_refused(channel, parts, "FEATURES_UNAVAILABLE")


async def test_nothing_is_explained_where_scoring_fails(parts: ServedParts) -> None:
    broken, decoder = stubborn(parts)
    async with ranking_channel(broken) as channel:
        forward = decoder.forward
        decoder.forward = lambda inputs: [  # type: ignore[method-assign]
            replace(each, margins=each.margins * np.nan) for each in forward(inputs)
        ]
        await assert_refused(channel, parts, "ENGINE_FAILED")
    assert decoder.num_decoded == 0


async def test_a_failure_between_words_is_a_status(
    parts: ServedParts, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, decoder = stubborn(parts)

    def fail_between_words() -> None:
        if decoder.num_decoded == FREE_STEPS:
            raise MemoryError(SYNTHETIC)

    decoder.before_decode = fail_between_words
    async with ranking_channel(broken) as channel:
        stream = aiter(call(channel, request(parts)))
        assert (await anext(stream)).chunk.text
        failure = await failure_of(read_on(stream))
        assert (failure.code, failure.reason) == (Code.FAILED_PRECONDITION, "FALLBACK_REFUSED")
        assert failure.metadata == {"fallback_reason": "ENGINE_FAILED"}
        decoder.before_decode = lambda: None
        assert (await explain(channel, request(parts))).text
    captured = capsys.readouterr()
    assert '"event": "engine_failed"' in captured.err
    assert '"code": "FAILED_PRECONDITION"' in captured.err
    assert SYNTHETIC not in captured.err + captured.out


async def read_on(stream: AsyncIterator[object]) -> list[object]:
    return [part async for part in stream]


async def test_a_text_in_the_making_holds_its_place(parts: ServedParts) -> None:
    held, decoder = stubborn(parts)
    decoder.before_decode = hold = Hold(FREE_STEPS)
    async with ranking_channel(held, max_in_flight=1) as channel:
        stream = aiter(call(channel, request(parts)))
        await anext(stream)
        failure = await failure_of(explain(channel, request(parts)))
        assert (failure.code, failure.reason) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert failure.retry_after_s
        hold.open.set()
        assert await read_on(stream)
        assert (await explain(channel, request(parts))).text


async def test_draining_lets_a_text_end_and_begins_none(parts: ServedParts) -> None:
    held, decoder = stubborn(parts)
    decoder.before_decode = hold = Hold(FREE_STEPS)
    async with (
        ranking_server(held) as server,
        opened(server) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        stream = aiter(call(channel, request(parts)))
        await anext(stream)
        draining = asyncio.create_task(server.drain(20))
        await asyncio.sleep(2 * CROSSING_S)
        assert (await failure_of(explain(channel, request(parts)))).code is Code.UNAVAILABLE
        hold.open.set()
        *_, last = [part async for part in stream]
        assert last.final.generated_tokens == DEFAULT_EXPLAIN_TOKENS
        await draining


async def test_a_caller_that_leaves_stops_the_words(
    parts: ServedParts, capsys: pytest.CaptureFixture[str]
) -> None:
    held, decoder = stubborn(parts)
    decoder.before_decode = hold = Hold(FREE_STEPS)
    async with ranking_channel(held, max_in_flight=1) as channel:
        left = call(channel, with_options(parts, max_tokens=256))
        await anext(aiter(left))
        assert await asyncio.to_thread(hold.reached.wait, 10)
        left.cancel()
        line = await call_line(capsys)
        hold.open.set()
        assert line["code"] == "CANCELLED"
        assert (await explain(channel, with_options(parts, max_tokens=FREE_STEPS))).text
    assert decoder.num_decoded <= 1 + 2 * FREE_STEPS


async def call_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The log's next line, once it is there."""
    log = ""
    async with asyncio.timeout(10):
        while "\n" not in log:
            log += capsys.readouterr().err
            await asyncio.sleep(0.005)
    line: dict[str, object] = json.loads(log)
    return line


async def test_good_calls_leave_no_trace_of_the_user(
    parts: ServedParts, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = set()
    async with ranking_channel(stubborn(parts)[0]) as channel:
        new = Candidate(item_id=SYNTHETIC, text=ItemText(title=SYNTHETIC, description=SYNTHETIC))
        drawn = options(temperature=1.5, max_tokens=16)
        for fields in ({"user_id": SYNTHETIC}, event(item_id=SYNTHETIC)):
            told = await explain(channel, request(parts, candidate=new, **fields, **drawn))
            texts.add(told.text)
    log = capsys.readouterr()
    lines = [json.loads(line) for line in log.err.splitlines()]
    assert [(line["code"], line["generated_tokens"]) for line in lines] == [("OK", 16)] * 2
    assert SYNTHETIC not in log.err + log.out
    assert not any(text in log.err for text in texts)
