"""Where time runs short: what has been scored by then, the likeliest first."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import grpc
import numpy as np
import pytest

from rankloom_engine.model import Decoder, ForwardInput, ForwardOutput
from rankloom_features.provider import UserQuery
from rankloom_proto.v1.ranking_pb2 import RankOptions, RankResponse
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranking import options_of
from server.rankings import item_ids, known_user, rank, ranking_channel, request
from server.served_parts import ServedParts
from server.servers import failure_of

NUM, PASS_S, TIME_S = 30, 0.3, 3.0


class SlowDecoder:
    """The bundle's decoder with slow passes."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.bank, self.digest = decoder.bank, decoder.digest
        self.pause_s = 0.0

    def warm_up_steps(self, max_tokens: int) -> Iterator[Callable[[], object]]:
        return self._decoder.warm_up_steps(max_tokens)

    def forward(self, inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        time.sleep(self.pause_s)
        return self._decoder.forward(inputs)


@asynccontextmanager
async def slow_channel(
    parts: ServedParts, pause_s: float = PASS_S
) -> AsyncIterator[grpc.aio.Channel]:
    """Pieces of few candidates, each of which takes its time."""
    decoder = SlowDecoder(parts.decoder)
    slow = replace(parts, decoder=cast("Decoder", decoder))
    async with ranking_channel(slow, max_batch_tokens=120, prefix_cache_mib=0) as channel:
        decoder.pause_s = pause_s
        yield channel


async def ranked(channel: grpc.aio.Channel, parts: ServedParts, *, partial: bool) -> RankResponse:
    options = RankOptions(allow_partial=partial)
    return await rank(channel, request(parts, NUM, options=options), timeout_s=TIME_S)


def logits_of_trees(parts: ServedParts) -> dict[str, float]:
    ids = item_ids(parts, NUM)
    items = tuple(parts.loaded.provider.catalogue.items[:NUM])
    features = parts.loaded.provider.features(UserQuery(known_user(parts), None, items))
    return dict(zip(ids, parts.loaded.trees.logits(features.tabular).tolist(), strict=True))


async def test_a_partial_answer_scores_the_likeliest(parts: ServedParts) -> None:
    async with slow_channel(parts) as channel:
        answer = await ranked(channel, parts, partial=True)
    done = [item for item in answer.items if item.scored]
    rest = [item for item in answer.items if not item.scored]
    assert done
    assert rest
    assert [item.rank for item in answer.items] == list(range(1, NUM + 1))
    assert list(answer.items) == done + rest, "what was not scored comes last"
    tree_logits = logits_of_trees(parts)
    assert min(tree_logits[item.item_id] for item in done) >= max(
        tree_logits[i.item_id] for i in rest
    )
    assert [item.score for item in done] == sorted((i.score for i in done), reverse=True)
    assert [item.score for item in rest] == pytest.approx([tree_logits[i.item_id] for i in rest])
    assert not any(item.probability for item in rest)


async def test_with_nothing_scored_the_trees_order_all(parts: ServedParts) -> None:
    async with slow_channel(parts, pause_s=1.5 * TIME_S) as channel:
        answer = await ranked(channel, parts, partial=True)
    tree_logits = logits_of_trees(parts)
    assert not any(item.scored or item.probability for item in answer.items)
    best = sorted(tree_logits, key=lambda name: -tree_logits[name])
    assert [tree_logits[item.item_id] for item in answer.items] == [
        tree_logits[name] for name in best
    ]
    assert [item.score for item in answer.items] == pytest.approx(
        [tree_logits[name] for name in best]
    )


async def test_its_scores_are_those_of_a_whole_answer(parts: ServedParts) -> None:
    async with ranking_channel(parts) as channel:
        whole = {i.item_id: i.score for i in (await rank(channel, request(parts, NUM))).items}
    async with slow_channel(parts) as channel:
        answer = await ranked(channel, parts, partial=True)
    found = {item.item_id: item.score for item in answer.items if item.scored}
    assert np.allclose([whole[name] for name in found], list(found.values()), atol=1e-5)


async def test_without_leave_it_is_late(parts: ServedParts) -> None:
    async with slow_channel(parts) as channel:
        failure = await failure_of(ranked(channel, parts, partial=False))
    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_partial_answer_has_a_part_of_the_time_to_arrive() -> None:
    now = time.monotonic()
    partial = RankQuery("", UserQuery("user", None, ()), allow_partial=True)
    for left_s, reserve_s in ((10.0, 1.0), (0.1, 0.02)):
        options = options_of(partial, now + left_s)
        assert now + left_s - options.deadline == pytest.approx(reserve_s, rel=0.05)
        whole = options_of(replace(partial, allow_partial=False), now + left_s)
        assert whole.deadline == now + left_s
