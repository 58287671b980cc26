"""Explain with source STORED: the user's own rationale, without a model, while it may be known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import grpc
import pytest

from cases.hanging_server import HANGING, HangingDecoder
from rankloom_adapters.bundle import RATIONALES
from rankloom_engine.model import Decoder
from rankloom_features.event_store.store import events_beside
from rankloom_features.events import Event
from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import Candidate, ForgetUserRequest, History
from rankloom_proto.v1.ranking_pb2 import ExplainOptions, ExplainRequest
from rankloom_ranker.stored_rationales import newest_of_history
from server.explanations import explain, request
from server.rankings import known_user, rank, ranking_channel
from server.rankings import request as rank_request
from server.rollouts import rolling_out
from server.served_parts import ServedParts, ranking_server
from server.servers import failure_of, opened
from server.stored import (
    WRITTEN,
    about,
    events_of,
    explain_stored,
    stored_request,
    with_rationales,
)
from server.test_live_events import liked, serving

SECRET = "synthetic-secret"
TEXT = "Its jokes are \u201cdry\u201d, and its end is long."
STORED = ranking_pb2.EXPLANATION_SOURCE_STORED


@pytest.fixture(scope="module")
def with_texts(parts: ServedParts, tmp_path_factory: pytest.TempPathFactory) -> ServedParts:
    """A bundle with rationales of the known user's first two events."""
    user, (first, second, *_) = known_user(parts), events_of(parts)
    written = [about(user, first, TEXT), about(user, second)]
    return with_rationales(parts, written, tmp_path_factory.mktemp("stored") / "bundle")


@pytest.fixture
async def channel(with_texts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    async with ranking_channel(with_texts) as channel:
        yield channel


async def test_the_rationale_of_the_users_own_review_comes_whole(
    channel: grpc.aio.Channel, with_texts: ServedParts
) -> None:
    user, (first, *_) = known_user(with_texts), events_of(with_texts)
    told = await explain_stored(channel, user, first.item_id, request_id="r-1")
    assert told.texts == [TEXT]
    final = told.final
    assert (final.request_id, final.source) == ("r-1", STORED)
    assert (final.revision.number, final.revision.bundle_digest) == (1, with_texts.loaded.digest)
    assert final.stored.written.ToMicroseconds() == round(WRITTEN.timestamp() * 1e6)
    assert (final.stored.generator, final.stored.rating) == ("evidence", 4.5)
    assert final.stored.digest == with_texts.loaded.bundle.parts[RATIONALES].sha256
    none = ranking_pb2.Explanation(
        request_id="r-1", revision=final.revision, source=STORED, stored=final.stored
    )
    assert final == none, "no verdict, score, routing or evidence"


async def test_a_live_explanation_says_so_and_is_unchanged(
    channel: grpc.aio.Channel, with_texts: ServedParts
) -> None:
    plain = await explain(channel, request(with_texts))
    live = await explain(channel, request(with_texts, source=ranking_pb2.EXPLANATION_SOURCE_LIVE))
    assert plain.text == live.text
    assert plain.final.source == live.final.source == ranking_pb2.EXPLANATION_SOURCE_LIVE
    assert not live.final.HasField("stored")
    assert live.final.verdict


async def refused(channel: grpc.aio.Channel, user: str, item: str) -> None:
    failure = await failure_of(explain_stored(channel, user, item))
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.NOT_FOUND, "NO_STORED_EXPLANATION",
    )  # fmt: skip
    assert "; ask for a live one" in failure.message


async def test_others_and_other_items_have_none(
    channel: grpc.aio.Channel, with_texts: ServedParts
) -> None:
    user, (first, _, third, *_) = known_user(with_texts), events_of(with_texts)
    await refused(channel, user, third.item_id)
    await refused(channel, user, "unknown")
    await refused(channel, "nobody", first.item_id)
    others = list(with_texts.loaded.provider.events.users())[1:]
    await refused(channel, others[0], first.item_id)


async def test_a_bundle_without_rationales_says_so(parts: ServedParts) -> None:
    async with ranking_channel(parts) as channel:
        await refused(channel, known_user(parts), "i1")


def test_only_a_review_of_the_history_counts() -> None:
    newer, older = (about("u", Event("i", True, time)).rationale for time in (9.0, 5.0))
    written = (newer, older)
    assert newest_of_history(written, "i", [Event("i", True, 5.0), Event("i", False, 9.0)]) is newer
    assert newest_of_history(written, "i", [Event("i", True, 5.0)]) is older
    assert newest_of_history(written, "i", [Event("i", True, 7.0), Event("i", True)]) is None
    assert newest_of_history(written, "i", [Event("j", True, 9.0)]) is None


async def test_a_forgotten_user_has_none_in_any_revision_and_after_a_return(
    parts: ServedParts, with_texts: ServedParts, tmp_path: Path
) -> None:
    user, (first, *_) = known_user(with_texts), events_of(with_texts)
    own = with_rationales(parts, [about(user, first)], tmp_path / "bundle")
    async with serving(own, events_beside(tmp_path / "bundle")) as (channel, features):
        assert (await explain_stored(channel, user, first.item_id)).text
        await features.ForgetUser(ForgetUserRequest(user_id=user), timeout=10)
        await refused(channel, user, first.item_id)
        await features.RecordEvents(liked(user, first.item_id), timeout=10)
        await refused(channel, user, first.item_id)
    async with ranking_channel(own) as channel:  # a restart, and another process
        await refused(channel, user, first.item_id)


async def test_features_from_another_server_tell_which_reviews_count(
    with_texts: ServedParts,
) -> None:
    user, (first, _, third, *_) = known_user(with_texts), events_of(with_texts)
    async with ranking_server(with_texts, features_port=0) as source:
        features, _ = source.beside[0]
        async with (
            opened(source),
            opened(features) as target,
            ranking_channel(with_texts, features=target) as channel,
        ):
            assert (await explain_stored(channel, user, first.item_id)).text == TEXT
            await refused(channel, user, third.item_id)


async def test_no_language_model_is_waited_for(with_texts: ServedParts) -> None:
    user, (first, *_) = known_user(with_texts), events_of(with_texts)
    decoder = HangingDecoder(with_texts.decoder)
    hanging = replace(with_texts, decoder=cast("Decoder", decoder))
    async with ranking_channel(hanging) as channel:
        hung = asyncio.create_task(rank(channel, rank_request(with_texts, HANGING)))
        await asyncio.sleep(0.1)  # the model thread is in that pass
        try:
            for _ in range(20):
                assert (await explain_stored(channel, user, first.item_id)).text == TEXT
            assert not hung.done()
        finally:
            decoder.go.set()
            await hung


BAD: dict[str, tuple[dict[str, object], str]] = {
    "an unknown source": ({"source": 7}, "source"),
    "an inline history": ({"user_id": None, "history": History()}, "user_id"),
    "no user": ({"user_id": None}, "subject"),
    "a long user": ({"user_id": SECRET * 20}, "user_id"),
    "a long item": ({"candidate": Candidate(item_id=SECRET * 20)}, "candidate.item_id"),
    "a length": ({"options": ExplainOptions(max_tokens=9)}, "options.max_tokens"),
    "no evidence": ({"options": ExplainOptions(max_evidence=0)}, "options.max_evidence"),
    "a digest alone": ({"options": ExplainOptions(bundle_digest="0")}, "options.bundle_digest"),
    "a long request id": ({"request_id": "x" * 129}, "request_id"),
}


@pytest.mark.parametrize(("fields", "field"), BAD.values(), ids=BAD)
async def test_bad_requests_name_the_field(
    channel: grpc.aio.Channel, fields: dict[str, object], field: str
) -> None:
    given = {"user_id": "u", "candidate": Candidate(item_id="i"), "source": STORED, **fields}
    failure = await failure_of(explain(channel, ExplainRequest(**given)))  # type: ignore[arg-type]
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert SECRET not in failure.raw


async def test_a_pinned_revision_must_be_there(
    channel: grpc.aio.Channel, with_texts: ServedParts
) -> None:
    user, (first, *_) = known_user(with_texts), events_of(with_texts)
    pinned = ExplainOptions(revision=1, bundle_digest=with_texts.loaded.digest)
    assert (await explain_stored(channel, user, first.item_id, options=pinned)).text == TEXT
    for other in (ExplainOptions(revision=9), ExplainOptions(revision=1, bundle_digest="0")):
        failure = await failure_of(explain_stored(channel, user, first.item_id, options=other))
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "REVISION_UNKNOWN")


async def test_rationales_come_and_go_with_their_revision(
    parts: ServedParts, with_texts: ServedParts, served_folder: Path, tmp_path: Path
) -> None:
    user, (first, *_) = known_user(with_texts), events_of(with_texts)
    ask = stored_request(user, first.item_id)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await refused(server.ranking, user, first.item_id)
        await server.stage(with_texts.loaded.bundle.folder)
        await server.promote(2)
        told = await explain(server.ranking, ask)
        assert (told.text, told.final.revision.number) == (TEXT, 2)
        await server.roll_back(2, 2)
        await refused(server.ranking, user, first.item_id)


async def test_the_log_has_no_text_and_no_user(
    channel: grpc.aio.Channel, with_texts: ServedParts, capsys: pytest.CaptureFixture[str]
) -> None:
    user, (first, *_) = known_user(with_texts), events_of(with_texts)
    await explain_stored(channel, user, first.item_id)
    log = capsys.readouterr().err
    assert '"explanation_source": "STORED"' in log
    assert TEXT[:12] not in log
    assert f'"{user}"' not in log


async def test_found_and_missing_are_counted(with_texts: ServedParts) -> None:
    user, (first, *_) = known_user(with_texts), events_of(with_texts)
    async with (
        ranking_server(with_texts) as server,
        opened(server) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        await explain_stored(channel, user, first.item_id)
        await refused(channel, user, "unknown")
        for name in ("found", "missing"):
            counted = f"rankloom_stored_explanations_{name}_total"
            assert server.metrics.registry.get_sample_value(counted) == 1
