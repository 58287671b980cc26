"""The trees choose the candidates that the language model scores."""

from __future__ import annotations

import grpc
import pytest

from rankloom_features.provider import UserQuery
from rankloom_proto.v1.ranking_pb2 import RankOptions, RankResponse
from server.rankings import item_ids, known_user, order, rank, ranking_channel, request, scores
from server.served_parts import ServedParts, ranking_server
from server.servers import opened

NUM = 30


async def ranked(channel: grpc.aio.Channel, parts: ServedParts, **options: object) -> RankResponse:
    given = RankOptions(**options)  # type: ignore[arg-type]
    return await rank(channel, request(parts, NUM, options=given))


def by_trees(parts: ServedParts) -> dict[str, float]:
    """The candidates with the trees' logits, the best first."""
    items = tuple(parts.loaded.catalogue.items[:NUM])
    features = parts.loaded.provider.features(UserQuery(known_user(parts), None, items))
    logits = parts.loaded.trees.logits(features.tabular).tolist()
    found = dict(zip(item_ids(parts, NUM), logits, strict=True))
    return dict(sorted(found.items(), key=lambda each: -each[1]))


async def test_the_model_scores_what_the_trees_rank_highest(parts: ServedParts) -> None:
    trees = by_trees(parts)
    async with ranking_channel(parts) as channel:
        whole, answer = await ranked(channel, parts), await ranked(channel, parts, prefilter=10)
    done, rest = answer.items[:10], answer.items[10:]
    assert all(item.scored and item.probability for item in done)
    assert {item.item_id for item in done} == set(list(trees)[:10])
    assert {item.item_id: item.score for item in done} == pytest.approx(
        {item.item_id: scores(whole)[item.item_id] for item in done}, abs=1e-5
    )
    assert [item.score for item in done] == sorted((i.score for i in done), reverse=True)
    assert [item.item_id for item in rest] == list(trees)[10:]
    assert [item.score for item in rest] == pytest.approx(list(trees.values())[10:])
    assert not any(item.scored or item.probability for item in rest)


@pytest.mark.parametrize("prefilter", [0, NUM, 500])
async def test_room_for_all_candidates_changes_nothing(parts: ServedParts, prefilter: int) -> None:
    async with ranking_channel(parts) as channel:
        whole = await ranked(channel, parts)
        answer = await ranked(channel, parts, prefilter=prefilter)
    assert order(answer) == order(whole)
    assert scores(answer) == pytest.approx(scores(whole), abs=1e-6)
    assert all(item.scored for item in answer.items)


async def test_the_best_are_cut_and_explained_behind_a_prefilter(parts: ServedParts) -> None:
    async with ranking_channel(parts) as channel:
        answer = await ranked(channel, parts, prefilter=5, top_k=8, explain_top_k=7)
    assert [item.scored for item in answer.items] == [True] * 5 + [False] * 3
    assert [each.item_id for each in answer.explanations] == order(answer)[:5]


async def test_what_the_model_scored_is_counted(parts: ServedParts) -> None:
    async with (
        ranking_server(parts) as server,
        opened(server) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        await ranked(channel, parts, prefilter=10)
        await ranked(channel, parts)
        value = server.metrics.registry.get_sample_value
        assert value("rankloom_candidates_scored_total") == 10 + NUM
        assert value("rankloom_candidates_prefiltered_total") == NUM - 10
