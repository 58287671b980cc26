"""Times stored explanations beside empty calls, in turns, on a server in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.common.server_process import serving
from benchmarks.common.timing import progress
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import open_bundle
from rankloom_adapters.derive import with_parts
from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_features.events import Event
from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import Candidate
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_ranker.stored_rationales import (
    StoredRationale,
    UserRationale,
    write_rationale_part,
)
from rankloom_server.ranking import SERVICE_NAME
from rankloom_training.user_events import events_of_bundle

TIMEOUT_S: Final = 60.0
NUM_USERS: Final = 32
WARM_UP: Final = 50  # turns that do not count
WRITTEN: Final = datetime(2026, 1, 1, tzinfo=UTC)
TEXT: Final = "The plan is clever, its end surprises, the middle is long and some jokes old. " * 3

Reviewed = tuple[str, Event]


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """Seconds of each turn: an empty call, a stored explanation, and one that is not there.

    ``num_bytes``: of the file of rationales. ``rss_mib``: of the server, at the end.
    """

    num_bytes: int
    rss_mib: float = 0.0
    empty: list[float] = field(default_factory=list[float])
    stored: list[float] = field(default_factory=list[float])
    missing: list[float] = field(default_factory=list[float])


def run_stored_study(bundle: Path, folder: Path, num_others: int, turns: int) -> StoredStudy:
    """``folder``: for what is written. ``num_others``: rationales that nobody asks for."""
    reviewed = _reviewed(bundle)
    progress(f"a bundle with {len(reviewed) + num_others:,} rationales")
    num_bytes = _with_rationales(bundle, folder, reviewed, num_others)
    progress(f"{turns} turns")
    with serving(folder / "stored", folder / "state", threads=1, cache_mib=16) as server:
        found = asyncio.run(_timed_calls(server.ranking, reviewed, turns, num_bytes))
        return replace(found, rss_mib=server.resource_use().rss_mib)


def _reviewed(bundle: Path) -> list[Reviewed]:
    """Some users' events, users taking turns, so that no two calls are about one user."""
    with events_of_bundle(bundle) as store:
        users = list(store.users())[:NUM_USERS]
        histories = [[(user, event) for event in store.history(user).events] for user in users]
    return [each for turn in zip(*histories, strict=False) for each in turn]


def _with_rationales(bundle: Path, folder: Path, reviewed: list[Reviewed], num_others: int) -> int:
    file = folder / "rationales.sqlite"
    write_rationale_part(file, _rationales(reviewed, num_others))
    data = file.read_bytes()
    with_parts(open_bundle(bundle), {parts.RATIONALES: data}, folder / "stored", {})
    copy_events(events_beside(bundle), events_beside(folder / "stored"))
    return len(data)


def _rationales(reviewed: list[Reviewed], num_others: int) -> Iterator[UserRationale]:
    for user, event in reviewed:
        yield _rationale(user, event.item_id, event.time or 0.0)
    for number in range(num_others):
        yield _rationale(f"other-{number // 20}", f"item-{number % 20}", float(number))


def _rationale(user: str, item: str, time_s: float) -> UserRationale:
    return UserRationale(user, item, StoredRationale(TEXT, 4.0, time_s, WRITTEN, "evidence"))


async def _timed_calls(
    address: str, reviewed: list[Reviewed], turns: int, num_bytes: int
) -> StoredStudy:
    found = StoredStudy(num_bytes)
    async with grpc.aio.insecure_channel(address) as channel:
        ranking, health = RankingServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        check = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        for turn in range(-WARM_UP, turns):
            user, event = reviewed[turn % len(reviewed)]
            empty = await _seconds(health.Check(check))
            stored = await _seconds(_explained(ranking, user, event.item_id))
            missing = await _seconds(_refused(ranking, user))
            if turn >= 0:
                found.empty.append(empty)
                found.stored.append(stored)
                found.missing.append(missing)
    return found


async def _explained(ranking: Any, user: str, item: str) -> None:  # noqa: ANN401
    text, final = [part async for part in _call(ranking, user, item)]
    if text.chunk.text != TEXT.strip() or not final.final.HasField("stored"):
        raise RuntimeError("another text came than was stored")


async def _refused(ranking: Any, user: str) -> None:  # noqa: ANN401
    try:
        async for _ in _call(ranking, user, "no such item"):
            raise RuntimeError("an explanation came that was not stored")
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise


def _call(ranking: Any, user: str, item: str) -> Any:  # noqa: ANN401
    message = ranking_pb2.ExplainRequest(
        user_id=user,
        candidate=Candidate(item_id=item),
        source=ranking_pb2.EXPLANATION_SOURCE_STORED,
    )
    return ranking.Explain(message, timeout=TIMEOUT_S)


async def _seconds(call: Awaitable[object]) -> float:
    started = time.perf_counter()
    await call
    return time.perf_counter() - started
