"""A pin names a revision and its bundle: another server may have another bundle by that number.

A revision can be pinned once requests were sent to it, and as long as it is loaded.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import grpc
import pytest

from rankloom import AsyncClient, ExplainOptions, InvalidRequestError, RankOptions
from rankloom.errors import ErrorReason, NotFoundError
from rankloom.testing import FakeServer
from rankloom_adapters.bundle import seal
from rankloom_proto.v1.ranking_pb2 import ExplainOptions as WireExplainOptions
from rankloom_proto.v1.ranking_pb2 import ExplainRequest
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_proto.v1.rollout_pb2 import RetireRequest, RollbackRequest, StartShadowRequest
from server.explanations import explain
from server.explanations import request as explain_request
from server.rankings import candidates, item_ids, known_user, rank, ranking_channel, with_options
from server.rollouts import Running, key, other_bundle, rolling_out, state_name
from server.served_parts import ServedParts, ranking_server
from server.servers import failure_of, opened

OTHER = "0" * 64


async def test_a_pinned_digest_is_compared(parts: ServedParts) -> None:
    digest = parts.loaded.digest
    async with ranking_channel(parts) as channel:
        pinned = with_options(parts, revision=1, bundle_digest=digest)
        assert (await rank(channel, pinned)).revision.bundle_digest == digest
        failure = await failure_of(
            rank(channel, with_options(parts, revision=1, bundle_digest=OTHER))
        )
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "REVISION_UNKNOWN")
        assert "another bundle" in failure.message
        alone = await failure_of(rank(channel, with_options(parts, bundle_digest=digest)))
        assert (alone.code, alone.field) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "options.bundle_digest",
        )


async def test_an_explanation_compares_it_too(parts: ServedParts) -> None:
    message = ExplainRequest(
        user_id=known_user(parts),
        candidate=candidates(item_ids(parts, 1))[0],
        options=WireExplainOptions(revision=1, bundle_digest=OTHER),
    )
    async with ranking_channel(parts) as channel:
        failure = await failure_of(
            anext(aiter(RankingServiceStub(channel).Explain(message, timeout=20)))
        )
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "REVISION_UNKNOWN")


async def test_the_sdk_passes_on_the_revision_that_it_got(parts: ServedParts) -> None:
    item, user = item_ids(parts, 1)[0], known_user(parts)
    async with (
        ranking_server(parts) as server,
        opened(server) as target,
        AsyncClient(target, timeout_s=20.0) as client,
    ):
        revision = (await client.rank([item], user=user)).revision
        again = await client.rank([item], user=user, options=RankOptions(revision=revision))
        assert again.revision == revision
        other = dataclasses.replace(revision, bundle_digest=OTHER)
        with pytest.raises(NotFoundError) as refused:
            await client.rank([item], user=user, options=RankOptions(revision=other))
        assert refused.value.reason is ErrorReason.REVISION_UNKNOWN
        wrong = dataclasses.replace(revision, number=-1)
        with pytest.raises(InvalidRequestError, match=r"options\.revision\.number"):
            await client.rank([item], user=user, options=RankOptions(revision=wrong))


async def test_the_fake_server_sees_the_whole_pin() -> None:
    with FakeServer() as server:
        async with AsyncClient(server.target) as client:
            revision = (await client.rank(["a"], user="u")).revision
            await client.rank(["a"], user="u", options=RankOptions(revision=revision))
            await client.explain("a", user="u", options=ExplainOptions(revision=7)).result()
        assert [call.options.revision for call in server.rank_calls] == [None, revision]
        assert [call.options.revision for call in server.explain_calls] == [7]


async def shadow(server: Running, revision: int) -> None:
    started = await server.rollouts.StartShadow(
        StartShadowRequest(revision=revision, expected_revision=1, idempotency_key=key())
    )
    assert state_name(started.rollout) == "shadow"


async def refusal(server: Running, parts: ServedParts, revision: int) -> str:
    """Why neither a ranking nor an explanation may name the revision."""
    question = explain_request(parts)
    question.options.revision = revision
    explained = await failure_of(explain(server.ranking, question))
    ranked = await failure_of(server.rank(with_options(parts, revision=revision)))
    assert (ranked.code, ranked.reason) == (grpc.StatusCode.NOT_FOUND, "REVISION_UNKNOWN")
    assert (explained.code, explained.message) == (ranked.code, ranked.message)
    return ranked.message


async def test_a_revision_that_is_only_warmed_cannot_be_pinned(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    pin = with_options(parts, revision=2)
    async with rolling_out(served_folder, tmp_path / "state", retire_s=0.2) as server:
        staged = await server.stage(other)
        assert (state_name(staged), staged.loaded) == ("warmed", True)
        assert "revision 2 has served no request yet" in await refusal(server, parts, 2)
        pin.options.bundle_digest = staged.bundle_digest
        assert "no request yet" in (await failure_of(server.rank(pin))).message
        await shadow(server, 2)
        answer = (await server.rank(pin)).revision
        assert (answer.number, answer.bundle_digest) == (2, staged.bundle_digest)
        await server.start_canary(2, 1)
        assert (await server.rank(pin)).revision.number == 2
        await server.promote(2)
        assert (await server.rank(with_options(parts, revision=1))).revision.number == 1


async def test_a_warmed_revision_that_was_rolled_back_cannot_be_pinned_either(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(other)
        await server.rollouts.Rollback(
            RollbackRequest(revision=2, expected_revision=1, idempotency_key=key())
        )
        assert (await server.get(2)).loaded
        assert "revision 2 has served no request yet" in await refusal(server, parts, 2)


async def test_what_served_before_a_restart_can_be_pinned_after_it(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    folders = [other_bundle(served_folder, tmp_path / name, 2.0 + n) for n, name in enumerate("ab")]
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(folders[0])
        await server.promote(2)
        await server.stage(folders[1], 2)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        async with asyncio.timeout(30):
            while not (await server.get(1)).loaded or not (await server.get(3)).loaded:
                await asyncio.sleep(0.05)
        assert (await server.rank(with_options(parts, revision=1))).revision.number == 1
        assert "no request yet" in await refusal(server, parts, 3)


async def test_a_quarantined_and_a_retired_revision_cannot_be_pinned(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    unfit = other_bundle(served_folder, tmp_path / "unfit")
    (unfit / "prompt.json").write_text("{}")
    seal(unfit, {})
    other = other_bundle(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        assert state_name(await server.stage(unfit)) == "quarantined"
        assert "revision 2 is not being served" in await refusal(server, parts, 2)
        await server.stage(other)
        await server.promote(3)
        await server.roll_back(3, 3)
        await server.rollouts.Retire(
            RetireRequest(revision=3, expected_revision=1, idempotency_key=key())
        )
        assert "revision 3 is not being served" in await refusal(server, parts, 3)
