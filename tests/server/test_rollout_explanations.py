"""Explanations while revisions come and go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from rankloom_proto.v1 import rollout_pb2
from server import explanations
from server.rankings import request, scores
from server.rollouts import expert_folder, key, other_bundle, rolling_out, state_name
from server.served_parts import ServedParts
from server.servers import failure_of


async def test_explanations_find_the_revision_of_their_ranking(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(other)
        await server.promote(2)
        pinned = request(parts)
        pinned.options.revision = 1
        assert (await server.rank(pinned)).revision.number == 1
        retire = rollout_pb2.RetireRequest(revision=1, expected_revision=2, idempotency_key=key())
        assert state_name((await server.rollouts.Retire(retire)).rollout) == "retired"
        failure = await failure_of(server.rank(pinned))
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.NOT_FOUND,
            "REVISION_UNKNOWN",
        )


async def test_what_was_rolled_back_can_still_be_asked_why(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    question = explanations.request(parts)
    question.options.revision = 2
    async with rolling_out(served_folder, tmp_path / "state", retire_s=4.0) as server:
        await server.stage(other)
        await server.promote(2)
        ranked = await server.rank(request(parts, 1))
        assert ranked.revision.number == 2
        assert state_name(await server.roll_back(2, 2)) == "rolled_back"
        assert (await server.rank(request(parts, 1))).revision.number == 1
        told = (await explanations.explain(server.ranking, question)).final
        assert told.revision.number == 2
        assert told.score == pytest.approx(ranked.items[0].score, abs=1e-5)
        async with asyncio.timeout(20):
            while (await server.get(2)).loaded:
                await asyncio.sleep(0.1)
        pinned = request(parts)
        pinned.options.revision = 2
        failure = await failure_of(server.rank(pinned))
        assert failure.reason == "REVISION_UNKNOWN"


async def test_explanations_are_as_fresh_as_rankings(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    files = expert_folder(served_folder, "global", tmp_path / "files", 4.0)
    question = explanations.request(parts, user_id="nobody")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        before = (await explanations.explain(server.ranking, question)).final
        await server.stage_expert("global", files)
        await server.promote(2)
        after = (await explanations.explain(server.ranking, question)).final
        assert (before.revision.number, after.revision.number) == (1, 2)
        assert abs(after.score - before.score) > 1e-3
        item = question.candidate.item_id
        ranked = scores(await server.rank(request(parts, 1, user_id="nobody")))
        assert after.score == pytest.approx(ranked[item], abs=1e-5)
        question.options.revision = 1
        pinned = (await explanations.explain(server.ranking, question)).final
        assert pinned.score == pytest.approx(before.score, abs=1e-5)
