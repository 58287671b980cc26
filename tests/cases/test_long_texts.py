"""Text of any kind costs little, and none of it is prepared on the event loop."""

from __future__ import annotations

import asyncio
import time
import unicodedata

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rankloom_engine.prompt import MAX_TEXT_CHARS, clean, render
from rankloom_features.catalogue import Item
from rankloom_proto.v1.features_pb2 import Candidate, ItemText
from rankloom_ranker.ranker import Ranker
from server.rankings import rank, ranking_channel, request
from server.served_parts import ServedParts
from server.servers import failure_of

LIGATURE = "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}"  # 18 characters in NFKC


def test_text_is_cut_after_normalisation() -> None:
    assert len(unicodedata.normalize("NFKC", LIGATURE)) == 18
    assert len(render(Item("a", LIGATURE * 1000, None, (), LIGATURE * 10_000))) == MAX_TEXT_CHARS
    assert clean("e\N{COMBINING ACUTE ACCENT}") == "\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert clean("a" * 5000) == "a" * MAX_TEXT_CHARS


@pytest.mark.parametrize("text", [LIGATURE, "\u0315\u0300", "x", "\u200b"])
def test_the_work_is_bounded_whatever_the_text(text: str) -> None:
    clean("warm")
    began = time.perf_counter()
    clean(text * 1_000_000)
    assert time.perf_counter() - began < 0.2


def long_candidates() -> list[Candidate]:
    text = ItemText(title=LIGATURE * 1000, description=LIGATURE * 1000)
    return [Candidate(item_id=f"new-{number}", text=text) for number in range(32)]


async def test_long_texts_do_not_hold_up_the_event_loop(
    parts: ServedParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop = list[bool]()
    prepare = Ranker.prepare

    def noting(*arguments: object) -> object:
        try:
            asyncio.get_running_loop()
            on_loop.append(True)
        except RuntimeError:
            on_loop.append(False)
        return prepare(*arguments)  # type: ignore[arg-type]

    async with ranking_channel(parts) as channel:
        monkeypatch.setattr(Ranker, "prepare", noting)
        await rank(channel, request(parts, 0, candidates=long_candidates()[:8]))
        await rank(channel, request(parts))
    assert on_loop == [False, True]


async def test_a_message_over_one_mebibyte_is_refused(parts: ServedParts) -> None:
    text = ItemText(title="t", description="x" * 9_000)
    large = [Candidate(item_id=f"new-{number}", text=text) for number in range(120)]
    async with ranking_channel(parts) as channel:
        failure = await failure_of(rank(channel, request(parts, 0, candidates=large)))
        assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        stub = health_pb2_grpc.HealthStub(channel)
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    async with ranking_channel(parts, max_message_mib=2) as channel:
        answer = await rank(channel, request(parts, 0, candidates=large))
        assert len(answer.items) == 120
