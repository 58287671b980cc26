"""Rankings beside a feature service at fault: is each answered in time, and when is all well?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from benchmarks.common.live_server import channel_to
from benchmarks.faults.network import FaultyNetwork, Line, faulty_network
from benchmarks.faults.service import (
    Fault,
    FaultyService,
    faulty_service,
    hanging,
    healthy,
    nan_vector,
    other_dimension,
    other_user,
    other_version,
    refusing,
    slow,
    spoilt,
)
from rankloom_adapters.bundle import open_bundle
from rankloom_features.event_store.store import events_beside
from rankloom_proto.v1 import features_pb2, ranking_pb2
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_ranker.loaded import BundleFeatures, load_features
from rankloom_server.app import servers
from rankloom_server.breaker import MAX_FAILURES
from rankloom_server.config import Settings
from rankloom_training.user_events import opened_events

if TYPE_CHECKING:
    from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceAsyncStub

NUM_CANDIDATES: Final = 10
FLAPS_S: Final = 0.15  # how long a flapping service is well, and then ill
MAX_BACK_S: Final = 30.0
HEALTHY: Final = "EXACT_MIXTURE"
NO_FEATURES: Final = "POPULARITY, FEATURES_UNAVAILABLE"


@dataclass(frozen=True, slots=True, eq=False)
class Patient:
    """A ranking server whose feature service can be made ill."""

    ranking: RankingServiceAsyncStub
    service: FaultyService
    network: FaultyNetwork
    users: Sequence[str]
    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class FaultCase:
    """A fault, and how rankings may be answered under it: level and reason.

    ``begin``: makes it so; it may go on until it is cancelled. ``opens_breaker``: every call fails.
    """

    name: str
    begin: Callable[[Patient], Awaitable[None]]
    answers: frozenset[str]
    opens_breaker: bool = False


@dataclass(frozen=True, slots=True)
class FaultFigures:
    """What became of the rankings under one fault.

    ``in_time``: how many of ``num`` were answered before their deadline, by a level and reason that
    are expected. ``answers``: how many by level and reason. ``feature_share``: of the deadline, the
    most that features took. ``open_ms``: the most that they took once the breaker was open, None
    where it stays closed. ``back_s``: from the end of the fault to the first exact answer.
    """

    num: int
    in_time: int
    answers: Mapping[str, int]
    feature_share: float
    open_ms: float | None
    back_s: float


@dataclass(frozen=True, slots=True)
class _Ranked:
    answer: str
    took_s: float
    features_s: float


async def run_faults_study(bundle: Path, num: int, deadline_s: float) -> dict[str, FaultFigures]:
    """One fault after the other: ``num`` rankings in a row under each, with this deadline."""
    with opened_events(events_beside(bundle)) as store:
        features = load_features(open_bundle(bundle), store)
        async with _patient(bundle, features) as patient:
            await _until_exact(patient, MAX_BACK_S)  # a first call compiles what it needs
            return {case.name: await _studied(patient, case, num, deadline_s) for case in CASES}


async def _studied(patient: Patient, case: FaultCase, num: int, deadline_s: float) -> FaultFigures:
    illness = asyncio.ensure_future(case.begin(patient))
    await asyncio.wait([illness], timeout=FLAPS_S)
    ranked = [await _rank(patient, n, deadline_s) for n in range(num)]
    illness.cancel()
    patient.service.fault = healthy
    await patient.network.switch(Line.WORKING)
    back_s = await _until_exact(patient, deadline_s)
    answers = [each.answer for each in ranked]
    opened = ranked[MAX_FAILURES:] if case.opens_breaker else []
    return FaultFigures(
        num=num,
        in_time=sum(each.took_s <= deadline_s and each.answer in case.answers for each in ranked),
        answers={answer: answers.count(answer) for answer in sorted(set(answers))},
        feature_share=max(each.features_s for each in ranked) / deadline_s,
        open_ms=1e3 * max(each.features_s for each in opened) if opened else None,
        back_s=back_s,
    )


@asynccontextmanager
async def _patient(bundle: Path, features: BundleFeatures) -> AsyncIterator[Patient]:
    users = list(features.provider.events.users())
    items = [item.item_id for item in features.provider.catalogue.items[:NUM_CANDIDATES]]
    async with faulty_service(features) as (service, port), faulty_network(port) as network:
        address = f"127.0.0.1:{network.port}"
        given = {"bundle": bundle, "features": address, "dtype": "float32", "port": 0}
        async with (
            servers(Settings.from_flat(given)) as (server, _),
            channel_to(server) as channel,
        ):
            yield Patient(RankingServiceStub(channel), service, network, users, items)


async def _rank(patient: Patient, turn: int, deadline_s: float) -> _Ranked:
    """One user after the other, so that no cache answers."""
    candidates = [features_pb2.Candidate(item_id=item) for item in patient.items]
    user = patient.users[turn % len(patient.users)]
    request = ranking_pb2.RankRequest(user_id=user, candidates=candidates)
    started = time.perf_counter()
    try:
        answer = await patient.ranking.Rank(request, timeout=deadline_s)
    except grpc.aio.AioRpcError as error:
        return _Ranked(error.code().name, time.perf_counter() - started, 0.0)
    took_s = time.perf_counter() - started
    return _Ranked(_told(answer), took_s, answer.timing.features.ToNanoseconds() / 1e9)


def _told(answer: ranking_pb2.RankResponse) -> str:
    level = ranking_pb2.FallbackLevel.Name(answer.fallback_level)
    reason = ranking_pb2.FallbackReason.Name(answer.fallback_reason)
    names = [level.removeprefix("FALLBACK_LEVEL_")]
    if answer.fallback_reason:
        names.append(reason.removeprefix("FALLBACK_REASON_"))
    return ", ".join(names)


async def _until_exact(patient: Patient, deadline_s: float) -> float:
    """Seconds until a ranking is answered by the exact mixture."""
    started, turn = time.perf_counter(), 0
    while (await _rank(patient, turn, deadline_s)).answer != HEALTHY:
        if time.perf_counter() - started > MAX_BACK_S:
            return MAX_BACK_S
        await asyncio.sleep(0.02)
        turn += 1
    return time.perf_counter() - started


async def _set(fault: Fault, patient: Patient) -> None:
    patient.service.fault = fault


async def _switch(line: Line, patient: Patient) -> None:
    await patient.network.switch(line)


async def _flap(patient: Patient) -> None:
    while True:
        for fault in (refusing, healthy):
            patient.service.fault = fault
            await asyncio.sleep(FLAPS_S)


_EITHER: Final = frozenset({HEALTHY, NO_FEATURES})
_NONE: Final = frozenset({NO_FEATURES})
_BAD_VECTOR: Final = frozenset({"GLOBAL_EXPERT, VECTOR_INVALID"})
_OTHER_VERSION: Final = frozenset({"GLOBAL_EXPERT, FEATURE_VERSION_MISMATCH"})
CASES: Final = (
    FaultCase("dead", partial(_switch, Line.REFUSING), _NONE, opens_breaker=True),
    FaultCase("refusing", partial(_set, refusing), _NONE, opens_breaker=True),
    FaultCase("black-holed", partial(_switch, Line.SILENT), _NONE, opens_breaker=True),
    FaultCase("hanging", partial(_set, hanging), _NONE, opens_breaker=True),
    FaultCase("10 x slow", partial(_set, slow), _EITHER),
    FaultCase("flapping", _flap, _EITHER),
    FaultCase("NaN", partial(_set, spoilt(nan_vector)), _BAD_VECTOR),
    FaultCase("another dimension", partial(_set, spoilt(other_dimension)), _BAD_VECTOR),
    FaultCase("another version", partial(_set, spoilt(other_version)), _OTHER_VERSION),
    FaultCase("another user's features", partial(_set, spoilt(other_user)), _NONE),
)
