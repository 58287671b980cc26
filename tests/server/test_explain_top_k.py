"""Explanations of a ranking's best items, in the ranking's own answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest

from rankloom_proto.v1 import ranking_pb2
from server.explanations import Hold, explain, request, stubborn
from server.rankings import candidates, rank, ranking_channel, scores, with_options
from server.served_parts import ServedParts
from server.servers import failure_of

NOBODY_LISTENS = "127.0.0.1:1"


@pytest.fixture
async def channel(parts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    async with ranking_channel(stubborn(parts)[0]) as channel:
        yield channel


def best(parts: ServedParts, num: int, **options: object) -> ranking_pb2.RankRequest:
    explaining = ranking_pb2.ExplainOptions(max_tokens=12)
    return with_options(parts, explain_top_k=num, explain=explaining, **options)


async def test_they_are_those_of_explain(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    answer = await rank(channel, best(parts, 3))
    assert [each.item_id for each in answer.explanations] == [
        item.item_id for item in answer.items[:3]
    ]
    for found, item in zip(answer.explanations, answer.items[:3], strict=True):
        options = ranking_pb2.ExplainOptions(max_tokens=12)
        message = request(parts, candidate=candidates([item.item_id])[0], options=options)
        told = await explain(channel, message)
        assert (found.verdict, found.text) == (told.final.verdict, told.text)
        assert found.generated_tokens == told.final.generated_tokens
        assert found.stop_reason == told.final.stop_reason
        assert [each.item_id for each in found.evidence] == [
            each.item_id for each in told.final.evidence
        ]
        assert [each.influence for each in found.evidence] == pytest.approx(
            [each.influence for each in told.final.evidence], abs=1e-5
        )
        assert (found.verdict == ranking_pb2.VERDICT_LIKED) == (item.probability >= 0.5)
    plain = await rank(channel, with_options(parts))
    assert scores(plain) == pytest.approx(scores(answer), abs=1e-5)
    assert not plain.explanations


async def test_only_items_of_the_answer_are_explained(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    assert len((await rank(channel, best(parts, 5, top_k=2))).explanations) == 2
    assert len((await rank(channel, best(parts, 10))).explanations) == 5
    assert len((await rank(channel, best(parts, 2, allow_partial=True))).explanations) == 2


async def test_a_fallback_is_not_explained(parts: ServedParts) -> None:
    async with ranking_channel(parts, features=NOBODY_LISTENS) as channel:
        answer = await rank(channel, best(parts, 3))
    assert answer.fallback_level == ranking_pb2.FALLBACK_LEVEL_POPULARITY
    assert not answer.explanations


async def test_the_ranking_comes_where_the_words_fail(
    parts: ServedParts, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, decoder = stubborn(parts)

    def fail() -> None:
        raise MemoryError

    decoder.before_decode = fail
    async with ranking_channel(broken) as channel:
        answer = await rank(channel, best(parts, 3))
    assert len(answer.items) == 5
    assert np.isfinite(list(scores(answer).values())).all()
    assert not answer.explanations
    assert '"event": "engine_failed"' in capsys.readouterr().err


async def test_the_deadline_cuts_the_words(parts: ServedParts) -> None:
    slow, decoder = stubborn(parts)
    decoder.before_decode = lambda: time.sleep(0.15)
    async with ranking_channel(slow) as channel:
        message = best(parts, 3)
        message.options.explain.max_tokens = 256
        answer = await rank(channel, message, timeout_s=2.4)
    assert len(answer.explanations) == 3
    for each in answer.explanations:
        assert each.stop_reason == ranking_pb2.STOP_REASON_DEADLINE
        assert 0 < each.generated_tokens < 20


async def test_each_explained_item_takes_a_place(parts: ServedParts) -> None:
    held, decoder = stubborn(parts)
    decoder.before_decode = hold = Hold(2)
    async with ranking_channel(held, max_in_flight=4) as channel:
        running = asyncio.create_task(rank(channel, best(parts, 2)))
        assert await asyncio.to_thread(hold.reached.wait, 10)
        failure = await failure_of(rank(channel, best(parts, 1)))
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "OVERLOADED",
        )
        plain = asyncio.create_task(rank(channel, with_options(parts)))
        hold.open.set()
        assert len((await running).explanations) == 2
        assert (await plain).items
        assert len((await rank(channel, best(parts, 10))).explanations) == 5
