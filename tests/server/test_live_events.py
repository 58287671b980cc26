"""A user's events count from the next ranking on, in every revision, whatever the store does."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc
import pytest
from prometheus_client import generate_latest

from cases.hanging_server import HANGING, HangingDecoder
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import UserEvent, events_beside
from rankloom_features.events import Event
from rankloom_proto.v1 import features_pb2, ranking_pb2
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_server.app import servers
from rankloom_server.errors import StartError
from rankloom_server.stored_events import EVENTS, opened_events
from server.rankings import item_ids, known_user, rank, request, scores
from server.rollouts import other_bundle, rolling_out
from server.served_parts import ServedParts, ranking_server
from server.servers import failure_of, opened, settings

if TYPE_CHECKING:
    from rankloom_engine.model import Decoder
    from rankloom_proto.v1.features_pb2_grpc import FeatureServiceAsyncStub

NEWCOMER = "somebody-new"
SECRET = "synthetic-secret"


@pytest.fixture
def events_file(served_folder: Path, tmp_path: Path) -> Path:
    """A copy of the events beside the bundle, for a test that writes."""
    return Path(shutil.copy(events_beside(served_folder), tmp_path / "events.sqlite"))


@asynccontextmanager
async def serving(
    parts: ServedParts, events: Path
) -> AsyncIterator[tuple[grpc.aio.Channel, FeatureServiceAsyncStub]]:
    async with ranking_server(parts, features_port=0, events=events) as server:
        features, _ = server.beside[0]
        async with (
            opened(server) as target,
            opened(features) as features_target,
            grpc.aio.insecure_channel(target) as channel,
            grpc.aio.insecure_channel(features_target) as features_channel,
        ):
            yield channel, FeatureServiceStub(features_channel)


def liked(user: str, *items: str) -> features_pb2.RecordEventsRequest:
    message = features_pb2.RecordEventsRequest()
    for item in items:
        event = message.events.add(event_id=f"{user} {item}", user_id=user, item_id=item)
        event.liked = True
    return message


def append(file: Path, parts: ServedParts) -> None:
    """As another process would."""
    with closing(SqliteEventStore(file)) as store:
        event = Event(item_ids(parts, 9)[-1], liked=True, time=1e9)
        store.append([UserEvent("1", NEWCOMER, event)])


async def test_what_was_recorded_is_in_the_next_ranking(
    parts: ServedParts, events_file: Path
) -> None:
    items = item_ids(parts, 6)
    async with serving(parts, events_file) as (channel, features):
        before = await rank(channel, request(parts, user_id=NEWCOMER))
        assert (before.routing.cold_start, before.routing.history_events) == (True, 0)
        await features.RecordEvents(liked(NEWCOMER, *items[3:]), timeout=10)
        after = await rank(channel, request(parts, user_id=NEWCOMER))
        assert (after.routing.cold_start, after.routing.history_events) == (False, 3)
        inline = features_pb2.History(
            events=[features_pb2.Event(item_id=item, liked=True) for item in items[3:]]
        )
        given = await rank(channel, request(parts, history=inline))
        assert scores(after) == pytest.approx(scores(given), abs=1e-5)
        assert scores(after) != scores(before)
        await rank(channel, request(parts, user_id=NEWCOMER))
        await features.ForgetUser(features_pb2.ForgetUserRequest(user_id=NEWCOMER), timeout=10)
        assert scores(await rank(channel, request(parts, user_id=NEWCOMER))) == scores(before)


async def test_another_process_may_write_the_same_events(
    parts: ServedParts, events_file: Path
) -> None:
    async with serving(parts, events_file) as (channel, _):
        before = await rank(channel, request(parts, user_id=NEWCOMER))
        append(events_file, parts)
        after = await rank(channel, request(parts, user_id=NEWCOMER))
    assert (before.routing.history_events, after.routing.history_events) == (0, 1)
    assert scores(after) != scores(before)


async def test_the_events_outlive_a_new_revision_and_a_restart(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    second = other_bundle(served_folder, tmp_path / "second")
    before = events_beside(served_folder).read_bytes()
    asked = request(parts, user_id=NEWCOMER)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        assert (await server.rank(asked)).routing.cold_start
        assert not (await server.rank(request(parts))).routing.cold_start
        append(tmp_path / "state" / EVENTS, parts)
        await server.stage(second)
        await server.promote(2)
        answer = await server.rank(asked)
        assert (answer.revision.number, answer.routing.history_events) == (2, 1)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        assert (await server.rank(asked)).routing.history_events == 1
    assert events_beside(served_folder).read_bytes() == before  # the state has its own


async def test_rankings_go_on_where_events_cannot_be_read(
    parts: ServedParts, events_file: Path
) -> None:
    async with serving(parts, events_file) as (channel, _):
        with events_file.open("r+b") as file:
            file.write(b"\xff" * events_file.stat().st_size)
        answer = await rank(channel, request(parts))
        assert answer.fallback_level == ranking_pb2.FALLBACK_LEVEL_POPULARITY
        history = features_pb2.History(
            events=[features_pb2.Event(item_id=item_ids(parts, 1)[0], liked=True)]
        )
        inline = await rank(channel, request(parts, history=history))
        assert inline.fallback_level == ranking_pb2.FALLBACK_LEVEL_EXACT_MIXTURE


async def test_a_file_that_holds_no_events_ends_the_start(
    served_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "events").write_bytes(b"something else, and more of it" * 100)
    with pytest.raises(StartError, match=r"^events: .*events"):
        async with servers(settings(bundle=served_folder, events=tmp_path / "events")):
            pass


def test_events_live_in_memory_where_no_file_can_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with opened_events(settings(bundle=tmp_path / "bundle")) as store:
        store.append([UserEvent("1", "u", Event("i", True, 1.0))])
        assert len(store.history("u").events) == 1
    assert list(tmp_path.iterdir()) == []
    assert "give --events FILE to keep them" in capsys.readouterr().err


def test_a_server_whose_features_come_from_elsewhere_has_no_events(tmp_path: Path) -> None:
    with opened_events(settings(bundle=tmp_path / "bundle", features="127.0.0.1:1")) as store:
        assert not store.history("u").events
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", [{"events": Path("events")}, {"features_port": 0}])
def test_only_the_server_of_the_features_has_events(setting: dict[str, object]) -> None:
    both = settings(features="127.0.0.1:1", **setting)
    with pytest.raises(StartError, match="give this setting to that server"), opened_events(both):
        pass


async def test_cached_prefixes_go_with_a_forgotten_user(
    parts: ServedParts, events_file: Path
) -> None:
    async with ranking_server(parts, features_port=0, events=events_file) as server:
        metrics = server.metrics.registry
        features, _ = server.beside[0]
        async with (
            opened(server) as target,
            opened(features) as features_target,
            grpc.aio.insecure_channel(target) as channel,
            grpc.aio.insecure_channel(features_target) as features_channel,
        ):
            await rank(channel, request(parts))
            assert metrics.get_sample_value("rankloom_prefix_cache_bytes")
            message = features_pb2.ForgetUserRequest(user_id=known_user(parts))
            answer = await FeatureServiceStub(features_channel).ForgetUser(message, timeout=10)
            assert answer.num_events > 0
            assert metrics.get_sample_value("rankloom_prefix_cache_bytes") == 0
            assert (await rank(channel, request(parts))).routing.cold_start


async def test_a_ranking_that_runs_while_its_user_is_forgotten_keeps_no_prefix(
    parts: ServedParts, events_file: Path
) -> None:
    decoder = HangingDecoder(parts.decoder)
    hanging = replace(parts, decoder=cast("Decoder", decoder))
    async with ranking_server(hanging, features_port=0, events=events_file) as server:
        features, _ = server.beside[0]
        async with (
            opened(server) as target,
            opened(features) as features_target,
            grpc.aio.insecure_channel(target) as channel,
            grpc.aio.insecure_channel(features_target) as features_channel,
        ):
            hung = asyncio.create_task(rank(channel, request(parts, HANGING)))
            try:
                assert await asyncio.to_thread(decoder.hangs.wait, 30)
                message = features_pb2.ForgetUserRequest(user_id=known_user(parts))
                await FeatureServiceStub(features_channel).ForgetUser(message, timeout=10)
            finally:
                decoder.go.set()
            assert (await hung).routing.history_events
            kept = server.metrics.registry.get_sample_value("rankloom_prefix_cache_bytes")
            assert kept == 0
            await rank(channel, request(parts, user_id="another"))
            assert server.metrics.registry.get_sample_value("rankloom_prefix_cache_bytes")


async def test_a_forgotten_user_stands_nowhere(
    parts: ServedParts, events_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in a file, a log line or a metric, also where served rankings are kept."""
    user, given = f"{SECRET}-user", {"events": events_file, "log_served": tmp_path / "served"}
    async with ranking_server(parts, features_port=0, **given) as server:
        features, _ = server.beside[0]
        async with (
            opened(server) as target,
            opened(features) as features_target,
            grpc.aio.insecure_channel(target) as channel,
            grpc.aio.insecure_channel(features_target) as features_channel,
        ):
            stub = FeatureServiceStub(features_channel)
            await stub.RecordEvents(liked(user, *item_ids(parts, 3)), timeout=10)
            assert SECRET.encode() in bytes_below(tmp_path)
            await rank(channel, request(parts, user_id=user, request_id="ranked"))
            await failure_of(rank(channel, request(parts, 0, user_id=user)))
            await stub.ForgetUser(features_pb2.ForgetUserRequest(user_id=user), timeout=10)
            assert SECRET.encode() not in bytes_below(tmp_path)
            counted = generate_latest(server.metrics.registry)
    assert SECRET.encode() not in counted + bytes_below(tmp_path)
    assert list((tmp_path / "served").glob("*.parquet"))
    told = capfd.readouterr()
    assert "ranked" in told.err
    assert SECRET not in told.out + told.err


def bytes_below(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
