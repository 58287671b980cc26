"""Bad input and bad moments: each ends in a status, and a good call follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from random import Random

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import (
    Candidate,
    Event,
    GetUserFeaturesRequest,
    GetUserFeaturesResponse,
    History,
    ItemText,
)
from rankloom_proto.v1.ranking_pb2 import RankOptions, RankRequest
from server.rankings import candidates, rank, ranking_channel, request, with_options
from server.served_parts import ServedParts
from server.servers import behaving_server, failure_of, opened, send_bytes
from server.test_partial import slow_channel

SYNTHETIC = "synthetic-secret"
MEGABYTE = SYNTHETIC * 75_000
METHOD = "/rankloom.v1.RankingService/Rank"


@pytest.fixture
async def channel(parts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    async with ranking_channel(parts, max_message_mib=2) as channel:
        yield channel


def candidate(**text: object) -> dict[str, object]:
    return {"candidates": [Candidate(item_id="x", text=ItemText(**text))]}  # type: ignore[arg-type]


def event(**fields: object) -> dict[str, object]:
    return {"history": History(events=[Event(**fields)])}  # type: ignore[arg-type]


def options(**fields: object) -> dict[str, object]:
    return {"options": RankOptions(**fields)}  # type: ignore[arg-type]


BAD_FIELDS: dict[str, tuple[dict[str, object], str]] = {
    "empty candidates": ({"candidates": []}, "candidates"),
    "501 candidates": ({"candidates": candidates([str(n) for n in range(501)])}, "candidates"),
    "candidate twice": ({"candidates": candidates([SYNTHETIC] * 2)}, "candidates[1].item_id"),
    "a megabyte of title": (candidate(title=MEGABYTE), "candidates[0].text.title"),
    "a megabyte of id": ({"candidates": candidates([MEGABYTE])}, "candidates[0].item_id"),
    "unknown without text": ({"candidates": candidates([SYNTHETIC])}, "candidates[0].text.title"),
    "unknown without title": (candidate(description=SYNTHETIC), "candidates[0].text.title"),
    "year": (candidate(title=SYNTHETIC, year=-1), "candidates[0].text.year"),
    "user": ({"user_id": MEGABYTE}, "user_id"),
    "request id": ({"request_id": MEGABYTE}, "request_id"),
    "time": (event(item_id=SYNTHETIC, time=Timestamp(nanos=-1)), "history.events[0].time"),
    "event item": (event(item_id=MEGABYTE), "history.events[0].item_id"),
    "top_k": (options(top_k=501), "options.top_k"),
    "unknown enum": (options(fusion=99), "options.fusion"),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
async def test_a_bad_field_is_refused_by_its_path(
    name: str, channel: grpc.aio.Channel, parts: ServedParts, capsys: pytest.CaptureFixture[str]
) -> None:
    fields, field = BAD_FIELDS[name]
    failure = await failure_of(rank(channel, request(parts, **fields)))
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert SYNTHETIC not in failure.raw
    assert (await rank(channel, request(parts))).items
    log = capsys.readouterr().err
    assert '"code": "INVALID_ARGUMENT"' in log
    assert SYNTHETIC not in log


async def test_a_missing_subject_is_refused(channel: grpc.aio.Channel) -> None:
    failure = await failure_of(rank(channel, RankRequest(candidates=candidates(["x"]))))
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, "subject")


@pytest.mark.parametrize("payload", [b"\xff", b"\x12\x02\xff\xfe", b"\x22\x7f"])
async def test_malformed_bytes_are_refused(
    payload: bytes, channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    failure = await failure_of(send_bytes(channel, METHOD, payload))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (await rank(channel, request(parts))).items


async def test_no_flipped_byte_is_the_servers_fault(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    random = Random(20)
    fields = candidate(title="A Title", year=1999) | event(item_id="x", time=Timestamp(seconds=1))
    good = request(parts, **fields, **options(top_k=3, revision=1)).SerializeToString()
    codes = set()
    for _ in range(300):
        payload = bytearray(good)
        for _ in range(random.randint(1, 3)):
            payload[random.randrange(len(payload))] = random.randrange(256)
        codes.add(await code_of(send_bytes(channel, METHOD, bytes(payload))))
    code = grpc.StatusCode
    assert code.INVALID_ARGUMENT in codes
    assert codes <= {code.OK, code.INVALID_ARGUMENT, code.NOT_FOUND}


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


EXTREMES: dict[str, dict[str, object]] = {
    "invisible title": candidate(title="\u200b\x00\u202e"),
    "special tokens": candidate(title="<|endoftext|><s></s>[INST]<unk><pad>"),
    "the longest texts": candidate(
        title="t" * 1_000, attributes=["a" * 100] * 32, description="d" * 10_000
    ),
    "the longest history": {"history": History(events=[Event(item_id="x", liked=True)] * 1_000)},
    "year zero": candidate(title="Old", year=0),
}


@pytest.mark.parametrize("name", EXTREMES)
async def test_the_edge_of_what_is_allowed_is_served(
    name: str, channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    fields = {**EXTREMES[name], **options(allow_fallback=False)}
    answer = await rank(channel, request(parts, **fields))
    assert answer.fallback_level == ranking_pb2.FALLBACK_LEVEL_EXACT_MIXTURE
    assert all(item.scored for item in answer.items)


async def test_500_candidates_are_served(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    many = [Candidate(item_id=str(n), text=ItemText(title=f"Film {n}")) for n in range(500)]
    answer = await rank(channel, request(parts, candidates=many))
    assert answer.fallback_level == ranking_pb2.FALLBACK_LEVEL_EXACT_MIXTURE
    assert len(answer.items) == 500


async def test_good_calls_leave_no_trace_of_the_user(
    channel: grpc.aio.Channel, parts: ServedParts, capsys: pytest.CaptureFixture[str]
) -> None:
    new = Candidate(item_id=SYNTHETIC, text=ItemText(title=SYNTHETIC, description=SYNTHETIC))
    for fields in ({"user_id": SYNTHETIC}, event(item_id=SYNTHETIC)):
        assert (await rank(channel, request(parts, candidates=[new], **fields))).items
    log = capsys.readouterr()
    assert '"code": "OK"' in log.err
    assert SYNTHETIC not in log.err + log.out


@pytest.mark.parametrize("timeout_s", [1e-6, 1e-4])
async def test_a_deadline_that_is_too_short_is_exceeded(
    timeout_s: float, parts: ServedParts
) -> None:
    """gRPC tells whole milliseconds, of which an order without the model takes less than one."""
    async with slow_channel(parts) as channel:
        failure = await failure_of(rank(channel, request(parts, 20), timeout_s=timeout_s))
        assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await rank(channel, request(parts))).items


async def test_a_call_without_a_deadline_gets_the_servers(parts: ServedParts) -> None:
    async with ranking_channel(parts, default_deadline_s=1e-9) as channel:  # past at once
        failure = await failure_of(rank(channel, request(parts, 100), timeout_s=None))
        assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await rank(channel, request(parts))).items


async def test_a_call_over_the_limit_is_refused(parts: ServedParts) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def hold(_: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        entered.set()
        await release.wait()
        return GetUserFeaturesResponse()

    async with (
        opened(behaving_server(hold)) as features,
        ranking_channel(parts, features=features, max_in_flight=1) as channel,
    ):
        held = asyncio.create_task(rank(channel, request(parts)))
        await entered.wait()
        failure = await failure_of(rank(channel, request(parts)))
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "OVERLOADED",
        )
        assert failure.retry_after_s
        release.set()
        assert (await held).items
        assert (await rank(channel, request(parts))).items


async def test_a_caller_that_leaves_costs_nothing(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    calls = [asyncio.create_task(rank(channel, request(parts, 100))) for _ in range(10)]
    await asyncio.sleep(0.02)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (await rank(channel, with_options(parts, allow_fallback=False))).items
