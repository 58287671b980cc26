"""A pin names a revision and its bundle: another server may have another bundle by that number."""

from __future__ import annotations

import dataclasses

import grpc
import pytest

from rankloom import AsyncClient, ExplainOptions, InvalidRequestError, RankOptions
from rankloom.errors import ErrorReason, NotFoundError
from rankloom.testing import FakeServer
from rankloom_proto.v1.ranking_pb2 import ExplainOptions as WireExplainOptions
from rankloom_proto.v1.ranking_pb2 import ExplainRequest
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from server.rankings import candidates, item_ids, known_user, rank, ranking_channel, with_options
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
